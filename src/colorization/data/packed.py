"""The packed cache: photos decoded and reduced once, in one file that every worker and every run maps.

Decoding a photograph and reducing it costs more than everything else that a loader does, and is the same in every
epoch. A pack is a folder ``<cache_dir>/packed-<key>`` of ``index.json`` and ``photos.bin``. The key is a hash of the
photos' contents and of what was done to them, so a pack is never stale; it is renamed into place when it is whole, so
one that was killed half-way is never taken for a pack.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from colorization.core.atomic import atomic_folder, write_json
from colorization.core.color import NEAR_GREY
from colorization.core.errors import InputError
from colorization.core.runs import DISK_FULL
from colorization.data.augment import Augment
from colorization.data.photos import Facts, FolderPhotos
from colorization.files.pixels import Unreadable

log = logging.getLogger(__name__)

SCHEMA = 2
RAW_LIMIT = 32 << 30  # above this, `auto` packs JPEG: five times as small, slower to read
JPEG_BITS = 4.3  # a pixel, of 810 ImageNet photos at the quality below
# Quality 95 without subsampling: colour is what the models learn.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_CHECKED = 256 << 20  # bytes whose checksums are compared when a pack is opened
_ABANDONED = 3600  # seconds after which a half-written pack that nobody writes to is removed


@dataclass(frozen=True)
class Recipe:
    """How each photo is packed.

    Attributes:
        format: ``raw`` or ``jpeg``.
        side: pixels of the short side.
        square: scaled to ``side`` and cut to the central square, as evaluation sees it; else only ever reduced to
            ``side``, whole, for random crops.
    """

    format: str
    side: int
    square: bool

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a packed photo of this size."""
        if self.square:
            return self.side, self.side
        scale = min(1.0, self.side / min(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the packed photo."""
        if self.square:
            return Augment(self.side, train=False).cut(rgb)
        height, width = self.shape(*rgb.shape[:2])
        if (height, width) == rgb.shape[:2]:
            return rgb
        return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)

    def bytes(self, facts: Facts) -> int:
        """Bytes of a photo; in JPEG an estimate."""
        assert facts.size is not None
        height, width = self.shape(*facts.size)
        return height * width * 3 if self.format == "raw" else int(height * width * JPEG_BITS / 8)


def settled(recipe: Recipe, facts: Sequence[Facts]) -> Recipe:
    """The recipe with ``auto`` resolved for these photos: raw up to 32 GB, else jpeg."""
    if recipe.format != "auto":
        return recipe
    raw = replace(recipe, format="raw")
    return raw if sum(raw.bytes(f) for f in facts if f.error is None) <= RAW_LIMIT else replace(recipe, format="jpeg")


class PackedPhotos:
    """The photos of a pack; see :func:`pack`. A worker process gets the path, not the pixels."""

    def __init__(self, folder: Path, recipe: Recipe, names: Sequence[str], places: np.ndarray) -> None:
        self.folder, self.recipe, self.names = folder, recipe, list(names)
        self._places = places  # (N, 5) int64: offset, length, height, width, CRC-32
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    @property
    def _bytes(self) -> np.ndarray:
        if self._map is None:
            self._map = np.memmap(self.folder / "photos.bin", np.uint8, "r")
        return self._map

    def read(self, index: int) -> np.ndarray:
        """Photo ``index`` as (H, W, 3) uint8; of a raw pack a read-only view of the file."""
        offset, length, height, width, _ = self._places[index].tolist()
        content = self._bytes[offset : offset + length]
        if self.recipe.format == "raw":
            return content.reshape(height, width, 3)
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR)
        assert bgr is not None
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do to the photos: evaluation takes them as they lie in the file."""
        return self.recipe.square and self.recipe.format == "raw"

    def read_all(self, indices: Sequence[int]) -> np.ndarray:
        """Photos of a :attr:`finished` pack, all at once: (N, side, side, 3) uint8."""
        side = self.recipe.side
        return self._bytes.reshape(-1, side, side, 3)[self._places[indices, 0] // (side * side * 3)]

    def subset(self, indices: Iterable[int]) -> PackedPhotos:
        """The photos at these positions."""
        chosen = list(indices)
        return PackedPhotos(self.folder, self.recipe, [self.names[i] for i in chosen], self._places[chosen])

    def damage(self) -> str | None:
        """The fault of the file, or ``None``: by its size and the checksums of up to 256 MB of it."""
        file = self.folder / "photos.bin"
        expected = int((self._places[:, 0] + self._places[:, 1]).max())
        if not file.is_file() or file.stat().st_size != expected:
            return "photos.bin is not as long as it should be"
        step = max(1, -(-expected // _CHECKED))
        for offset, length, *_, crc in self._places[::step].tolist():
            if zlib.crc32(self._bytes[offset : offset + length].data) != crc:
                return "its content has changed"
        return None


def pack(photos: FolderPhotos, facts: Sequence[Facts], recipe: Recipe, cache_dir: Path) -> PackedPhotos:
    """The pack of these photos; built if it is not there yet, or is damaged.

    Args:
        photos: photos of a folder.
        facts: of the scan about each of them; the unreadable ones are not packed.
        recipe: see also :func:`settled`.
        cache_dir: where packs are kept.

    Raises:
        InputError: the disk has no room, or a photo has changed since the scan.
    """
    recipe = settled(recipe, facts)
    content = [SCHEMA, asdict(recipe), [(f.name, f.digest) for f in facts]]
    folder = cache_dir / f"packed-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"
    if folder.is_dir():
        packed, problem = _open(folder, recipe)
        if packed is not None:
            return packed
        log.warning("the packed photos in %s are damaged (%s) and are packed again", folder, problem)
        shutil.rmtree(folder)
    _build(photos, facts, recipe, folder)
    packed, problem = _open(folder, recipe)
    if packed is None:
        raise InputError(
            f"{folder}: the photos that were just packed cannot be read back ({problem}); is the disk sound?"
        )
    return packed


def _open(folder: Path, recipe: Recipe) -> tuple[PackedPhotos | None, str | None]:
    try:
        rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))["photos"]
    except (OSError, ValueError, KeyError) as error:
        return None, f"index.json: {error}"
    places = np.array([[r["offset"], r["length"], *r["size"], r["crc32"]] for r in rows], np.int64)
    packed = PackedPhotos(folder, recipe, [r["path"] for r in rows], places)
    problem = packed.damage()
    return (None, problem) if problem else (packed, None)


def _build(photos: FolderPhotos, facts: Sequence[Facts], recipe: Recipe, folder: Path) -> None:
    """Write the pack of the photos that can be read; record those that cannot."""
    for unfinished in folder.parent.glob(".packed-*"):
        try:
            written = max(p.stat().st_mtime for p in (unfinished, *unfinished.iterdir()))
        except FileNotFoundError:  # another run has just finished it
            continue
        if time.time() - written > _ABANDONED:
            shutil.rmtree(unfinished)
    chosen = [i for i, f in enumerate(facts) if f.error is None]
    size = sum(recipe.bytes(facts[i]) for i in chosen)
    log.info(
        "packing %d photos (%s of %d, %s, %s%s) into %s", len(chosen), "squares" if recipe.square else "short side",
        recipe.side, recipe.format, "about " if recipe.format == "jpeg" else "", _readable(size), folder,
    )  # fmt: skip
    try:
        with atomic_folder(folder) as temporary:
            free = shutil.disk_usage(temporary).free
            if size > free:
                raise InputError(
                    f"{folder.parent}: packing the photos takes {_readable(size)} and {_readable(free)} are free; "
                    "set paths.cache_dir to another disk, or datamodule.cache to jpeg or off"
                )
            rows, offset = [], 0
            with (temporary / "photos.bin").open("wb") as file:
                done = in_order(lambda i: encode(photos, facts[i], i, recipe), chosen)
                progress = tqdm(done, f"packing {photos.root}", len(chosen), unit="photo", disable=None, delay=2)
                for i, (content, shape) in zip(chosen, progress, strict=True):
                    file.write(content)
                    rows.append({
                        "path": facts[i].name, "digest": facts[i].digest,
                        "colorfulness": facts[i].colorfulness, "near_grey": facts[i].is_below(NEAR_GREY),
                        "size": shape, "offset": offset, "length": len(content), "crc32": zlib.crc32(content),
                    })  # fmt: skip
                    offset += len(content)
                file.flush()
                os.fsync(file.fileno())
            unreadable = [{"path": f.name, "error": f.error} for f in facts if f.error is not None]
            index = {"schema": SCHEMA, **asdict(recipe), "photos": rows, "unreadable": unreadable}
            write_json(temporary / "index.json", index)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise InputError(
                f"{folder.parent}: the disk is full; set paths.cache_dir to another one, or datamodule.cache to off"
            ) from error
        raise


def in_order(task: Callable[[int], Any], indices: Sequence[int], ahead: int = 256) -> Iterator[Any]:
    """The results of the task for each index on all cores, in order, with at most ``ahead`` of them waiting."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), ahead):
            yield from pool.map(task, indices[start : start + ahead])


def encode(photos: FolderPhotos, facts: Facts, index: int, recipe: Recipe) -> tuple[bytes, tuple[int, int]]:
    """A photo as it is packed, and its height and width. Raises ``InputError`` if it has changed since the scan."""
    try:
        rgb, digest = photos.read_with_digest(index)
    except (Unreadable, OSError) as error:
        raise InputError(f"{photos.path(index)} cannot be read any longer ({error}); start again") from error
    if digest != facts.digest:
        raise InputError(f"{photos.path(index)} has changed since the photos were checked; start again")
    rgb = recipe.apply(rgb)
    if recipe.format == "raw":
        return rgb.tobytes(), rgb.shape[:2]
    done, content = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _JPEG)
    assert done
    return content.tobytes(), rgb.shape[:2]


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
