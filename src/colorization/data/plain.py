"""Any ``LightningDataModule`` whose batches carry ``rgb``, with what training and evaluation ask for beyond that.

A data module of this project (:class:`.datamodules.PhotoDataModule`) knows its photos by name and content; of
another one only its loaders are known. Training needs ``train_dataloader`` and ``val_dataloader``, an evaluation
``test_dataloader``; a batch is a mapping with ``rgb``, (B, 3, H, W) uint8, and may hold anything else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities.model_helpers import is_overridden

from colorization.core import color, hydra_main
from colorization.core.errors import InputError
from colorization.data.datamodules import PhotoDataModule

MEASURED = 256  # photos that tell the mean colour of the training photographs


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Within, the global random generators of the CPU start from these numbers; afterwards they resume."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class PlainLoader:
    """A loader of another package: its batches are checked, and its place within the epoch is kept in checkpoints.

    Each batch is drawn with random generators of its own, by (seed, epoch, batch). A resumed run therefore sees the
    batches of a run that was never stopped: it reads those that are done once more, and drops them.

    Args:
        loader: any iterable with a length.
        source: its name in messages.
        seed: of the run.
        train: whether each epoch has random numbers of its own; else all have the same.
    """

    def __init__(self, loader: Any, source: str, seed: int, train: bool = False) -> None:
        if isinstance(loader, list | tuple) and len(loader) == 1:
            (loader,) = loader
        if isinstance(loader, list | tuple | Mapping):
            raise InputError(f"{source}: gives {len(loader)} loaders; only one can be used")
        try:
            self._length = len(loader)
        except TypeError as error:
            raise InputError(
                f"{source}: its loader has no length (an iterable data set has none unless it defines __len__)"
            ) from error
        self.loader, self.source, self.seed = loader, source, seed
        self.dataset: Sequence[Any] = getattr(loader, "dataset", ())
        self.sampler, self.batch_sampler = (self if train else None), None  # Lightning tells the sampler the epoch
        self.epoch = 0
        self.size: tuple[int, int] | None = None  # H, W of the batch before
        self._done = 0
        self._restored: dict[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each training epoch."""
        self.epoch = epoch
        for sampler in self._samplers():
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def _samplers(self) -> list[Any]:
        inner = getattr(self.loader, "batch_sampler", None)
        return [getattr(self.loader, "sampler", None), inner, getattr(inner, "sampler", None)]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        restored, self._restored = self._restored, None
        skipped = restored["done"] if restored and restored["epoch"] == self.epoch else 0
        self._done = 0
        for owner in (self.loader, *self._samplers()):  # a generator of its own would start again on a resume
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                generator.manual_seed(self.seed + self.epoch)
        with seeded(self.seed, self.epoch):
            batches = iter(self.loader)
        while True:
            with seeded(self.seed, self.epoch, self._done):
                batch = next(batches, None)
            if batch is None:
                return
            self._done += 1
            if self._done > skipped:
                yield self._checked(batch)

    def _checked(self, batch: Any) -> Mapping[str, Any]:
        rgb = batch.get("rgb") if isinstance(batch, Mapping) else None
        if not isinstance(rgb, torch.Tensor):
            keys = f" of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
            raise InputError(
                f"{self.source}: a batch should be a mapping with rgb, (B, 3, H, W) uint8, not a "
                f"{type(batch).__name__}{keys}"
            )
        if rgb.dtype != torch.uint8 or rgb.dim() != 4 or rgb.shape[1] != 3:
            kind = str(rgb.dtype).removeprefix("torch.")
            raise InputError(f"{self.source}: rgb should be (B, 3, H, W) uint8, not {tuple(rgb.shape)} {kind}")
        self.size = (rgb.shape[2], rgb.shape[3])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The current epoch, and the batches handed out in it."""
        return self._restored or {"epoch": self.epoch, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume in that epoch after that many batches."""
        self._restored = dict(state)


class NumberedLoader(PlainLoader):
    """The same for an evaluation: photos are numbered in order (``index``), and all have one size."""

    def __init__(self, loader: Any, source: str, seed: int) -> None:
        super().__init__(loader, source, seed)
        try:
            len(self.dataset)
        except TypeError as error:
            raise InputError(f"{source}: its data set has no length, and an evaluation counts its photos") from error

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        number, size = 0, None
        for batch in super().__iter__():
            if size not in (None, self.size):
                raise InputError(f"{self.source}: photos of {size} and of {self.size} pixels; all should have one size")
            size, rgb = self.size, batch["rgb"]
            if number + len(rgb) > len(self.dataset):
                raise InputError(f"{self.source}: its loader gives more photos than its data set has")
            yield {"rgb": rgb, "index": torch.arange(number, number + len(rgb))}
            number += len(rgb)


class PlainDataModule(pl.LightningDataModule):
    """Another package's data module, as Lightning and this project use it.

    Attributes:
        own: that data module; Lightning's hooks go to it.
        name: of this data in tables: ``own.name``, or its class.
        intervals: whether evaluation may claim confidence intervals on this data.
    """

    intervals = True

    def __init__(self, own: pl.LightningDataModule, seed: int) -> None:
        super().__init__()
        self.own, self.seed = own, seed
        self.name = str(getattr(own, "name", None) or type(own).__name__)
        self._source = f"datamodule._target_={type(own).__module__}.{type(own).__qualname__}"
        self._prepared: set[str | None] = set()
        self._test: NumberedLoader | None = None
        self._description: dict[str, Any] = {}

    @property
    def trainer(self) -> pl.Trainer | None:
        """Lightning's trainer, which the data module is told, too."""
        return self.own.trainer

    @trainer.setter
    def trainer(self, trainer: pl.Trainer | None) -> None:
        if "own" in vars(self):  # Lightning's constructor sets None before that
            self.own.trainer = trainer

    def has(self, split: str) -> bool:
        """Whether there is a loader for ``train``, ``val`` or ``test``."""
        return is_overridden(f"{split}_dataloader", self.own)

    def setup(self, stage: str | None = None) -> None:
        """``prepare_data`` and ``setup`` of the data module, once for each stage, and a look at a training batch.

        What they draw depends on the seed alone: the splits are the same in a resumed run and in an evaluation.
        """
        if stage in self._prepared:
            return
        with seeded(self.seed):
            if not self._prepared:
                self.own.prepare_data()
            self.own.setup(str(stage))
        self._prepared.add(stage)
        if stage == "fit":
            self._look()

    def on_exception(self, exception: BaseException) -> None:
        self.own.on_exception(exception)

    def teardown(self, stage: str) -> None:
        self.own.teardown(stage)

    def _loader(self, split: str) -> Any:
        if not self.has(split):
            raise InputError(f"{self._source}: has no {split}_dataloader")
        with seeded(self.seed):
            return getattr(self.own, f"{split}_dataloader")()

    def train_dataloader(self) -> PlainLoader:
        return PlainLoader(self._loader("train"), self._source, self.seed, train=True)

    def val_dataloader(self) -> PlainLoader | list[Any]:
        return PlainLoader(self._loader("val"), self._source, self.seed) if self.has("val") else []

    def test_dataloader(self) -> PlainLoader:
        return PlainLoader(self._loader("test"), self._source, self.seed)

    def loader(self, split: str, train: bool) -> NumberedLoader:
        """The photos of a split for an evaluation."""
        self._test = NumberedLoader(self._loader(split), self._source, self.seed)
        return self._test

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return self.own.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.own.on_before_batch_transfer(batch, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.own.on_after_batch_transfer(batch, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        return self.own.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.own.load_state_dict(state_dict)

    def some_photos(self, number: int) -> Iterator[np.ndarray]:
        """The first training photos as its loader gives them, each (3, H, W) uint8."""
        batches = iter(self.train_dataloader())
        yield from islice((rgb for batch in batches for rgb in batch["rgb"].cpu().numpy()), number)

    def names(self, split: str) -> list[str]:
        """Of photos in an evaluation: their numbers."""
        assert self._test is not None
        return [f"{i:06d}" for i in range(len(self._test.dataset))]

    def training_names(self, index: torch.Tensor | None) -> list[str]:
        """Of photos in a training batch: none is known."""
        return [f"photos of {self.name}"]

    def first_photos(self, batch: Mapping[str, Any], number: int) -> dict[str, torch.Tensor] | None:
        """Photos for the grid of samples: the first of the first validation batch."""
        return {k: batch[k][:number] for k in ("rgb", "grey") if k in batch}

    def manifest(self) -> None:
        """There is no ``split.json``: the photos have no names."""

    def _look(self) -> None:
        means, side = [], 0
        for photo in self.some_photos(MEASURED):
            means.append(color.rgb_to_lab(photo)[1:].mean((1, 2)))
            side = side or min(photo.shape[1:])
        if not means:
            raise InputError(f"{self._source}: its train_dataloader gives no photo")
        mean = [round(float(m), 4) for m in np.mean(means, axis=0)]
        self._description = {"name": self.name, "mean_ab": mean, "image_size": side}

    def describe(self) -> dict[str, Any]:
        """The training data for the description of weights: its name, the mean a*b* (Lab units) and the short side of
        its first photos; nothing before :meth:`setup` for training."""
        return self._description

    def protocol(self) -> dict[str, Any]:
        """The facts of an evaluation about its photos."""
        assert self._test is not None and self._test.size is not None
        height, width = self._test.size
        return {
            "data": self.name,
            "data_hash": None,
            "unreadable": 0,
            "crop": f"as {type(self.own).__qualname__} gives them",
            "size": min(height, width),
            "shape": f"{height}x{width}",
        }

    def close(self) -> None:
        """There is nothing to end: its loaders end their own processes."""


AnyDataModule = PhotoDataModule | PlainDataModule


def configured(config: DictConfig, seed: int) -> AnyDataModule:
    """The data module that is configured, of this project or another package.

    Raises:
        InputError: something in the config cannot work, or it is no data module of Lightning.
    """
    made = hydra_main.instantiate(config)
    if isinstance(made, PhotoDataModule):
        return made
    if not isinstance(made, pl.LightningDataModule):
        raise InputError(
            f"datamodule._target_={config._target_}: should be a LightningDataModule, of the package pytorch_lightning"
        )
    return PlainDataModule(made, seed)
