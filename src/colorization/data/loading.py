"""The loader: photos to batches, in an order that a resumed run continues."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from colorization.core import devices, distributed, machine
from colorization.core.errors import InputError
from colorization.data.augment import Augment
from colorization.data.packed import PackedPhotos
from colorization.data.photos import ArrayPhotos, FolderPhotos
from colorization.data.shards import ShardedPhotos
from colorization.files import locations
from colorization.files.pixels import Unreadable

log = logging.getLogger(__name__)

Key = tuple[int, int]  # (epoch, position in the photo set)
PhotoSet = ArrayPhotos | FolderPhotos | ShardedPhotos


def auto_workers() -> int:
    """Loader processes for this machine's cores and device.

    A CPU that trains needs every core for that: one process loads beside it, more only where many cores train. An
    accelerator leaves the cores to the loader, whose process gives it some hundreds of photos a second
    (benchmarks/bench_data.py).
    """
    cores = machine.cores()
    if devices.available()[0] == "cpu":
        return min(cores - 1, max(1, cores // 16))
    return max(1, min(cores - 1, 12))


class EpochSampler(Sampler[Key]):
    """Every photo once an epoch, as (epoch, position), shuffled by (seed, epoch); or in order, as if always epoch 0.

    The epoch travels with the position: a photo's augmentation depends on (seed, epoch, position) alone: not
    on the number of workers, nor on where a run was interrupted. Of several processes that train together each gets
    its share of every batch: the batches are the same however many there are.

    Args:
        size: number of photos.
        shuffle: whether the order is another one in each epoch.
        seed: of the order.
        batch: photos a batch, of all processes.
        even: whether each process must have as many photos as the others (in training; then up to one photo less than
            there are processes is left out).
        shards: makes the order, if the photos come in shards.
    """

    def __init__(
        self, size: int, shuffle: bool, seed: int, batch: int, even: bool, shards: ShardedPhotos | None = None
    ) -> None:
        self.size, self.shuffle, self.seed, self.batch, self.even = size, shuffle, seed, batch, even
        self.shards = shards
        self.rank, self.world = distributed.rank() if distributed.is_distributed() else 0, distributed.world_size()
        self.epoch, self.start = 0, 0  # start: of this process's photos, those that are done

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each training epoch."""
        self.epoch = epoch

    def _share(self, order: np.ndarray) -> np.ndarray:
        kept = self.size - (self.size % self.batch) % self.world if self.even else self.size
        return order[:kept][self.rank :: self.world]

    def __len__(self) -> int:
        return len(self._share(np.arange(self.size)))

    def __iter__(self) -> Iterator[Key]:
        order, rng = np.arange(self.size), np.random.default_rng([self.seed, self.epoch])
        if self.shuffle and self.shards is not None:
            order = self.shards.order(rng)
        elif self.shuffle:
            rng.shuffle(order)
        left = self._share(order)[self.start :]
        for i in self.shards.ahead(left) if self.shards is not None else left.tolist():
            yield (self.epoch if self.shuffle else 0), i


class PhotoDataset(Dataset[Any]):
    """Photos read and augmented a batch at a time; those that have become unreadable since the scan are left out.

    With ``replace`` (for training) the next photo takes the place of one that has become unreadable: an epoch must
    keep its number of batches, or Lightning leaves out the validation after it.
    """

    def __init__(self, photos: PhotoSet | PackedPhotos, augment: Augment, seed: int, replace: bool = False) -> None:
        self.photos, self.augment, self.seed, self.replace = photos, augment, seed, replace

    def __len__(self) -> int:
        return len(self.photos.names)

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, torch.Tensor] | None:
        """The batch of these photos; ``None`` if none of them can be read.

        Returns:
            ``rgb`` (B, 3, S, S) uint8, ``index`` (B,) int64 and, where the input is damaged, ``grey`` (B, 1, S, S)
            uint8.
        """
        if isinstance(self.photos, PackedPhotos) and self.photos.finished:
            indices = [index for _, index in keys]
            rgb = torch.from_numpy(self.photos.read_all(indices)).permute(0, 3, 1, 2)
            return {"rgb": rgb, "index": torch.tensor(indices)}
        read = [found for epoch, index in keys if (found := self._read(epoch, index)) is not None]
        if not read:
            return None
        photos, seeds, positions = zip(*read, strict=True)
        return {**self.augment.batch(photos, seeds), "index": torch.tensor(positions)}

    def _read(self, epoch: int, wanted: int) -> tuple[np.ndarray, Sequence[int], int] | None:
        """The photo, the seed of its augmentation and its position."""
        for step in range(min(8, len(self)) if self.replace else 1):
            index = (wanted + step) % len(self)
            try:
                rgb = self.photos.read(index)
            except (Unreadable, OSError) as error:  # another InputError is about a whole shard
                log.warning("skipped %s: %s", self.photos.names[index], error)
                continue
            return rgb, (self.seed, epoch, index), index
        return None


def _as_it_is(batch: Any) -> Any:
    """In place of a collate function: the data set gives whole batches."""
    return batch


# Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the main process decides when to stop: it tells
# its workers when they are done, and they notice by themselves if it dies.
_LEFT_TO_MAIN = (signal.SIGINT, signal.SIGTERM)


def _start_worker(worker_id: int) -> None:
    for number in _LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)


def _workers_without_connections() -> Any:
    """How to start workers beside threads that are connected elsewhere.

    A fork would copy connections, and locks that nobody would ever release: fsspec is not to be forked.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows, which never forks
        return None
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["colorization.data.datamodules", "pytorch_lightning"])  # once, not by each worker
    # The server would die of a signal to the process group, and its workers with it: it inherits that they are blocked.
    # (The tracker, which it needs, unblocks them when it is started.)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_MAIN)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _end_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


# At exit multiprocessing sends SIGTERM to the workers that are left, which they ignore, and then waits for them.
multiprocessing.util.Finalize(None, _end_workers, exitpriority=100)


class PhotoLoader(DataLoader[Any]):
    """A ``DataLoader`` whose place within the epoch is saved in Lightning's checkpoints and restored from them.

    ``batch_size`` counts the photos of all processes together; each loads its share.
    """

    sampler: EpochSampler

    def __init__(
        self,
        dataset: PhotoDataset,
        batch_size: int,
        shuffle: bool,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        world = distributed.world_size()
        if dataset.replace and batch_size % world:
            raise InputError(f"datamodule.batch_size={batch_size}: cannot be divided evenly among {world} processes")
        if dataset.replace and len(dataset) < world:
            raise InputError(f"{len(dataset)} photos for training are fewer than the {world} processes")
        shards = dataset.photos if isinstance(dataset.photos, ShardedPhotos) else None
        if shards is not None and shards.lanes % world:
            log.warning(
                "each of %d processes reads more than its share of the shards; in a new run, set datamodule.lanes=%d "
                "to a multiple of them", world, shards.lanes,
            )  # fmt: skip
        context = None
        if num_workers and shards is not None and locations.is_remote(shards.folder):
            context = _workers_without_connections()
        super().__init__(
            dataset,
            batch_size=max(1, batch_size // world),
            sampler=EpochSampler(len(dataset), shuffle, dataset.seed, batch_size, dataset.replace, shards),
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            # An odd last batch would weigh its photos more; a set smaller than a batch still trains.
            drop_last=shuffle and len(dataset) >= batch_size,
            worker_init_fn=_start_worker,
            multiprocessing_context=context,
            persistent_workers=num_workers > 0,
            # Else each epoch's start would draw from the global generator, and a resumed run's dropout would differ.
            generator=torch.Generator(),
        )
        self._done = 0  # batches handed out in this epoch
        self._restored: dict[str, Any] | None = None
        self._order = {} if shards is None else {"order": shards.order_id}

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        assert self.batch_size is not None
        # This is a generator: it starts at the first `next`, when Lightning has set the epoch.
        restored, self._restored = self._restored, None
        self._done = restored["done"] if restored and restored["epoch"] == self.sampler.epoch else 0
        if restored and self._done and restored.get("order") != self._order.get("order"):
            log.warning("the shards are in another order than before: epoch %d starts over", self.sampler.epoch + 1)
            self._done = 0
        self.sampler.start = self._done * self.batch_size
        any_left = self._done > 0
        for batch in super().__iter__():
            self._done += 1
            if batch is not None:
                any_left = True
                yield batch
        if not any_left and self._done:
            raise InputError("none of the photos can be read any more; were they moved during training?")

    def _get_iterator(self) -> Any:
        if not hasattr(signal, "pthread_sigmask"):  # Windows, where no process group gets signals
            return super()._get_iterator()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_MAIN)  # a worker inherits it, until it ignores them
        try:
            return super()._get_iterator()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """End the worker processes. (They do not end by a signal, see ``_start_worker``.)"""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The current epoch, the batches handed out in it, and for shards the id of their order."""
        return self._restored or {"epoch": self.sampler.epoch, "done": self._done, **self._order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume in that epoch after that many batches; any other epoch starts at its beginning."""
        self._restored = dict(state)
