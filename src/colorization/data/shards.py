"""Packed photos in shards, anywhere that fsspec gets to: for data that no single disk holds, or many machines share.

``python -m colorization.pack to=s3://bucket/imagenet datamodule.data_dir=photos`` writes them, ``datamodule=shards
datamodule.data_dir=s3://bucket/imagenet`` trains on them. A folder holds

- ``shards.json``, written last: the recipe, and what each split has;
- for each split ``00000.bin``, ...: photos packed as in :mod:`colorization.data.packed`, one after the other, in an
  order by the hash of their names, so that a shard is a sample of the whole; and for each of them ``00000.npz``: what
  is known of its photos;
- ``index.npz``: those of all shards, joined.

Shards are fetched whole, when they are needed or a little before, into a folder of this machine, which all processes
here share and which can be kept below a size. One that is missing or damaged ends the run: it is no unreadable photo.

The order of an epoch is made of a number of lanes through the shards, which take turns photo by photo. Of P processes
that train together each has every P-th photo of the order (:class:`colorization.data.loading.EpochSampler`), which is
every P-th lane where P divides their number: it reads its share of the shards and no others. The order does not depend
on P, so the batches are the same however many processes there are, and a stopped run resumes with another number of
them. (MosaicML's streaming calls the lanes canonical nodes.)
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from tqdm import tqdm

from colorization.core import distributed
from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError
from colorization.data.packed import Recipe, encode, in_order, settled
from colorization.data.photos import Facts, FolderPhotos
from colorization.files import locations
from colorization.files.locations import Location

log = logging.getLogger(__name__)

SCHEMA = 1
MIXED = 2  # shards of a lane whose photos are shuffled together
SHARD_BYTES = 64 << 20
_FETCHING = 4  # shards at a time, ahead of their use
_MAPPED = 128  # shards that a process keeps open
_ABANDONED = 3600.0  # seconds


_COLUMNS: dict[str, Any] = {
    "shard": np.int32, "offset": np.int64, "length": np.int64, "height": np.int32, "width": np.int32,
    "crc32": np.uint32, "bytes": np.int64, "original_height": np.int32, "original_width": np.int32,
    "colorfulness": np.float64, "mean_a": np.float64, "mean_b": np.float64, "digest": "S32",
}  # fmt: skip


@dataclass(frozen=True)
class Index:
    """Facts of packed photos: an array of N for each column, and N names."""

    names: list[str]
    columns: dict[str, np.ndarray]

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, Any]]) -> Index:
        """From a dict a photo."""
        columns = {key: np.array([row[key] for row in rows], kind) for key, kind in _COLUMNS.items()}
        return cls([row["name"] for row in rows], columns)

    @classmethod
    def of_bytes(cls, content: bytes) -> Index:
        """From the content of a file."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            columns = {key: file[key] for key in _COLUMNS}
            return cls(json.loads(file["names"].tobytes()), columns)

    @classmethod
    def joined(cls, parts: Sequence[Index]) -> Index:
        """All photos of several."""
        columns = {key: np.concatenate([part.columns[key] for part in parts]) for key in _COLUMNS}
        return cls([name for part in parts for name in part.names], columns)

    def to_bytes(self) -> bytes:
        """The content of its file."""
        file = io.BytesIO()
        content: dict[str, Any] = {"names": np.frombuffer(json.dumps(self.names).encode(), np.uint8), **self.columns}
        np.savez_compressed(file, **content)
        return file.getvalue()

    def facts(self) -> list[Facts]:
        """Of each photo."""
        keys = ("bytes", "colorfulness", "mean_a", "mean_b", "original_height", "original_width", "digest")
        rows = zip(self.names, *(self.columns[key].tolist() for key in keys), strict=True)
        return [
            Facts(name, size, colorfulness, (a, b), None, (height, width), digest.decode())
            for name, size, colorfulness, a, b, height, width, digest in rows
        ]


class ShardedPhotos:
    """The photos of one split; a worker process gets their places, not pixels.

    Args:
        folder: of the split's shards.
        recipe: how the photos were packed.
        index: of the photos.
        lanes: of an epoch's order.
        cache_dir: for copies of remote shards; local shards are read in place.
        cache_bytes: approximate limit of these copies; ``None``: no limit.
        chosen: positions of these photos in the index; default all.
    """

    def __init__(
        self,
        folder: Location,
        recipe: Recipe,
        index: Index,
        lanes: int,
        cache_dir: Path,
        cache_bytes: int | None = None,
        chosen: np.ndarray | None = None,
    ) -> None:
        self.folder, self.recipe, self.index = folder, recipe, index
        self.lanes, self.cache_dir, self.cache_bytes = lanes, cache_dir, cache_bytes
        self._chosen = np.arange(len(index.names)) if chosen is None else chosen
        self.names = [index.names[i] for i in self._chosen]
        self._places = np.stack(
            [index.columns[k][self._chosen] for k in ("shard", "offset", "length", "height", "width")], 1
        ).astype(np.int64)
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": OrderedDict()}

    def scan(self) -> list[Facts]:
        """The facts of every photo, in order, as they were packed."""
        facts = self.index.facts()
        return [facts[i] for i in self._chosen]

    def subset(self, indices: Iterable[int]) -> ShardedPhotos:
        """The photos at these positions."""
        chosen = self._chosen[list(indices)]
        return ShardedPhotos(self.folder, self.recipe, self.index, self.lanes, self.cache_dir, self.cache_bytes, chosen)

    def read(self, index: int) -> np.ndarray:
        """Photo ``index`` as (H, W, 3) uint8. Raises ``InputError`` if its shard cannot be had."""
        shard, offset, length, height, width = self._places[index].tolist()
        content = self._map(shard)[offset : offset + length]
        if self.recipe.format == "raw":
            return content.reshape(height, width, 3)
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if bgr is None:
            raise self._lacks(shard, ValueError(f"{self.names[index]} is damaged"))
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The positions in an order for an epoch, see above."""
        shards = self._places[:, 0]
        by_shard = np.argsort(shards, kind="stable")
        result = np.empty_like(by_shard)
        reach, start = MIXED * self._shard_length(), 0
        for lane in range(self.lanes):
            # The same photos in each epoch: a machine that keeps its shards asks for each of them once.
            run = by_shard[start : start + len(by_shard[lane :: self.lanes])]
            start += len(run)
            groups = np.split(run, np.flatnonzero(np.diff(shards[run])) + 1)
            for group in groups:
                rng.shuffle(group)
            rng.shuffle(groups)
            run = np.concatenate(groups)
            # Each photo goes back by up to some shards' length: an epoch begins with the first shard alone.
            result[lane :: self.lanes] = run[np.argsort(np.arange(len(run)) + rng.uniform(0, reach, len(run)))]
        return result

    @property
    def order_id(self) -> str:
        """Equal for sets whose orders are equal."""
        return f"{self.lanes} lanes of {len(self.names)} photos of {self.cache_dir.name}"

    def _shard_length(self) -> int:
        """Photos in a shard, about."""
        return len(self.names) // max(1, len(np.unique(self._places[:, 0]))) + 1

    def ahead(self, order: np.ndarray) -> Iterator[int]:
        """The positions, one by one, while the shards of those that come soon are fetched by other threads."""
        if not locations.is_remote(self.folder):
            yield from order.tolist()
            return
        shards = self._places[order, 0]
        # The next shard of each of this process's lanes is on its way.
        reach = self._shard_length() * max(1, self.lanes // distributed.world_size())
        asked: dict[int, Future[Any]] = {}
        pool = ThreadPoolExecutor(_FETCHING, "fetch")
        try:
            for position, index in enumerate(order.tolist()):
                if position % 64 == 0:
                    for shard in dict.fromkeys(shards[position : position + reach].tolist()):
                        if shard not in asked or asked[shard].done():
                            asked[shard] = pool.submit(self._fetch, shard, locations.get)
                yield index
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            try:
                self._maps[shard] = self._open(shard)
            except (OSError, ValueError) as error:
                raise self._lacks(shard, error) from error
            most = _MAPPED if self.cache_bytes is None else self.lanes * (MIXED + 2)
            if len(self._maps) > most:
                self._maps.popitem(last=False)
        self._maps.move_to_end(shard)
        return self._maps[shard]

    def _lacks(self, shard: int, error: OSError | ValueError) -> InputError:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        return InputError(f"{locations.public(self.folder / _file(shard))}: cannot be read ({reason})")

    def _open(self, shard: int) -> np.ndarray:
        if not locations.is_remote(self.folder):
            content = np.memmap(self.folder / _file(shard), np.uint8, "r")
            self._check(shard, content)
            return content
        file = self.cache_dir / _file(shard)
        size = self.index.columns["length"][self.index.columns["shard"] == shard].sum()
        for _ in range(5):
            self._fetch(shard, locations.get_again)
            with suppress(FileNotFoundError, ValueError):  # another process has just made room; empty
                content = np.memmap(file, np.uint8, "r")
                if len(content) == size:
                    return content
            file.unlink(missing_ok=True)  # cut short, by a power failure
        raise OSError(f"{self.cache_dir} does not keep it")

    def _fetch(self, shard: int, get: Callable[[Location, Path], None]) -> None:
        """Copy a remote shard to this machine. Several threads and processes may ask for it at once."""
        file = self.cache_dir / _file(shard)
        if self._touch(file):
            return
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not self._touch(file):
                with atomic_path(file) as temporary:
                    get(self.folder / _file(shard), temporary)
                    self._check(shard, np.fromfile(temporary, np.uint8))
                self._make_room(file)

    def _check(self, shard: int, content: np.ndarray) -> None:
        c = self.index.columns
        photos = np.flatnonzero(c["shard"] == shard)
        for offset, length, crc in zip(*(c[k][photos].tolist() for k in ("offset", "length", "crc32")), strict=True):
            if zlib.crc32(content[offset : offset + length].data) != crc:
                raise OSError("is damaged")

    def _touch(self, file: Path) -> bool:
        """Whether it is there; the ones that were used the longest time ago go first."""
        try:
            os.utime(file)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, new: Path) -> None:
        """Keep the shards of all splits and sets below the bound."""
        if self.cache_bytes is None:
            return
        with FileLock(self.cache_dir.parent / "room.lock"):
            files = [f for f in self.cache_dir.parent.glob("shards-*/*.bin") if f.exists()]
            there = sorted((f.stat().st_mtime_ns, f.stat().st_size, f) for f in files)
            used = sum(size for _, size, _ in there)
            for modified, size, file in there:
                unfinished = file.name.startswith(".")  # and if it is old, by a process that was killed
                old = time.time_ns() - modified > _ABANDONED * 1e9
                if file != new and (old if unfinished else used > self.cache_bytes):
                    file.unlink()  # processes that have it open can still read it
                    used -= size


def _file(shard: int) -> str:
    return f"{shard:05d}.bin"


def open_shards(
    location: str, lanes: int, cache_dir: Path, cache_bytes: int | None = None
) -> tuple[dict[str, Any], dict[str, ShardedPhotos]]:
    """The content of ``shards.json``, and the photos of each split.

    Args:
        location: path or URL.
        lanes, cache_dir, cache_bytes: see :class:`ShardedPhotos`.

    Raises:
        InputError: there are none, or they cannot be reached or read.
    """
    folder = locations.location(location)
    place = f"datamodule.data_dir={locations.public(folder)}"
    try:
        with locations.as_os_errors():
            file = folder / "shards.json"
            content = file.read_text() if file.exists() else None
        if content is None:
            raise InputError(f"{place}: no shards there; python -m colorization.pack to=... writes them")
        about = json.loads(content)
        if about["schema"] != SCHEMA:
            raise InputError(f"{place}: written by another version (schema {about['schema']})")
        with locations.as_os_errors():
            contents = {split: (folder / split / "index.npz").read_bytes() for split in about["splits"]}
        photos = {}
        for split, known in about["splits"].items():
            digest = hashlib.sha256(contents[split]).hexdigest()
            if digest != known["index"]:
                raise InputError(f"{place}: {split}/index.npz is not the one that was written last")
            cache = cache_dir / f"shards-{digest[:16]}"
            index, recipe = Index.of_bytes(contents[split]), Recipe(**known["recipe"])
            photos[split] = ShardedPhotos(folder / split, recipe, index, lanes, cache, cache_bytes)
            used = lanes * (MIXED + 2) * known["bytes"] / max(1, known["shards"])
            if locations.is_remote(folder) and cache_bytes is not None and cache_bytes < min(used, known["bytes"]):
                log.warning(
                    "datamodule.cache_gb=%.3g: %d lanes use %.3g GB of shards at a time and fetch them again and again",
                    cache_bytes / 1e9, lanes, used / 1e9,
                )  # fmt: skip
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{place}: shards.json is damaged") from error
    return about, photos


def write(
    photos: FolderPhotos, facts: Sequence[Facts], recipe: Recipe, folder: Location, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Write the shards of a split; those that are there from a run that was stopped are kept.

    Args:
        photos, facts: as for :func:`colorization.data.packed.pack`.
        recipe: as there.
        folder: for this split.
        shard_bytes: a shard ends with the photo that reaches these.

    Returns:
        The split's entry in ``shards.json``.

    Raises:
        InputError: a photo has changed since the scan.
        OSError: the folder cannot be written.
    """
    recipe = settled(recipe, facts)
    chosen = [i for i, f in enumerate(facts) if f.error is None]
    chosen.sort(key=lambda i: hashlib.sha256(os.fsencode(facts[i].name)).digest())
    wanted = json.dumps([SCHEMA, asdict(recipe), shard_bytes, [(facts[i].name, facts[i].digest) for i in chosen]])
    mark = folder / f"{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.mark"  # of the shards that the parts are for
    parts: list[Index] = []
    locations.make_folder(folder)
    if mark.exists():
        while (part := folder / f"{len(parts):05d}.npz").exists():
            parts.append(Index.of_bytes(part.read_bytes()))
    else:
        for other in [*folder.glob("*.mark"), *folder.glob("*.npz"), *folder.glob("*.bin")]:
            other.unlink()
        locations.write_bytes(mark, b"\0")
    left = chosen[sum(len(part.names) for part in parts) :]
    done = in_order(lambda i: encode(photos, facts[i], i, recipe), left)
    progress = tqdm(done, f"packing {photos.root}", len(left), unit="photo", disable=None, delay=2)
    rows: list[dict[str, Any]] = []
    content = bytearray()

    def finish() -> None:
        locations.write_bytes(folder / _file(len(parts)), bytes(content))
        part = Index.of_rows(rows)
        # After the photos: a part says that they are there.
        locations.write_bytes(folder / f"{len(parts):05d}.npz", part.to_bytes())
        parts.append(part)
        rows.clear()
        content.clear()

    for i, (photo, (height, width)) in zip(left, progress, strict=True):
        f = facts[i]
        assert f.size is not None and f.mean_ab is not None
        rows.append({
            "name": f.name, "shard": len(parts), "offset": len(content), "length": len(photo), "height": height,
            "width": width, "crc32": zlib.crc32(photo), "bytes": f.bytes, "original_height": f.size[0],
            "original_width": f.size[1], "colorfulness": f.colorfulness, "mean_a": f.mean_ab[0],
            "mean_b": f.mean_ab[1], "digest": f.digest,
        })  # fmt: skip
        content += photo
        if len(content) >= shard_bytes:
            finish()
    if rows:
        finish()
    return write_index(folder, Index.joined(parts), recipe)


def write_index(folder: Location, index: Index, recipe: Recipe) -> dict[str, Any]:
    """Write the index of a split's shards; returns its entry in ``shards.json``."""
    content = index.to_bytes()
    locations.write_bytes(folder / "index.npz", content)
    return {
        "photos": len(index.names),
        "shards": int(index.columns["shard"].max(initial=-1)) + 1,
        "bytes": int(index.columns["length"].sum()),
        "recipe": asdict(recipe),
        "index": hashlib.sha256(content).hexdigest(),
    }
