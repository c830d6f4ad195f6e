"""Sets of photographs: where they are, how one is read, and the facts of the scan before training."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from colorization.core import color
from colorization.core.atomic import write_json
from colorization.core.errors import InputError, about, shown, told_elsewhere
from colorization.files import photofiles, pictures
from colorization.files.pixels import Unreadable

log = logging.getLogger(__name__)

_SCAN_SCHEMA = 3
_SCAN_SIDE = 128  # pictures are reduced to about this before their colour statistics are taken


@dataclass(frozen=True, slots=True)  # there may be millions of them
class Facts:
    """Facts of the scan about one photo.

    Attributes:
        name: path relative to the set's folder, with forward slashes.
        bytes: file size (or array size).
        colorfulness: Hasler-Süsstrunk, signed, of a reduced copy; ``None`` where unreadable.
        mean_ab: mean a*, b* in Lab units; ``None`` where unreadable.
        error: why the photo cannot be read, else ``None``.
        size: height and width, upright; ``None`` where unreadable.
        digest: hash of the file's content; ``None`` for an array.
    """

    name: str
    bytes: int
    colorfulness: float | None = None
    mean_ab: tuple[float, float] | None = None
    error: str | None = None
    size: tuple[int, int] | None = None
    digest: str | None = None

    def is_below(self, colorfulness: float) -> bool:
        """Whether the photo can be read and has less colour than this."""
        return self.colorfulness is not None and self.colorfulness < colorfulness


def read_rgb(path: str | os.PathLike[str], content: bytes | None = None) -> np.ndarray:
    """The photo in a file as (H, W, 3) uint8, the very picture that is colorized: see :mod:`.pictures`.

    Args:
        path: the file.
        content: its bytes, if they have been read already.

    Raises:
        Unreadable: it cannot be read, or is damaged; a photo of which a part is missing is no truth.
    """
    with about(path, told_elsewhere):  # by the scan
        return pictures.read_rgb(path, content, whole=True)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _statistics(rgb: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Colorfulness and mean (a*, b*) of (H, W, 3) uint8."""
    planes = rgb.transpose(2, 0, 1)
    a, b = color.rgb_to_lab(planes)[1:].mean((1, 2))
    return round(float(color.colorfulness(planes)), 2), (round(float(a), 3), round(float(b), 3))


class ArrayPhotos:
    """Photos held in memory (or mapped), all of the same role.

    Args:
        names: one name a photo.
        arrays: one (H, W, 3) uint8 array a photo.
    """

    def __init__(self, names: Sequence[str], arrays: Sequence[np.ndarray] | np.ndarray) -> None:
        assert len(names) == len(arrays)
        self.names, self.arrays = list(names), arrays

    def read(self, index: int) -> np.ndarray:
        """Photo ``index`` as (H, W, 3) uint8."""
        return np.asarray(self.arrays[index])

    def scan(self) -> list[Facts]:
        """The facts of every photo, in order."""
        facts = []
        for name, rgb in zip(self.names, self.arrays, strict=True):
            reduced = rgb[:: max(1, rgb.shape[0] // _SCAN_SIDE), :: max(1, rgb.shape[1] // _SCAN_SIDE)]
            facts.append(Facts(name, rgb.nbytes, *_statistics(reduced), size=rgb.shape[:2]))
        return facts

    def subset(self, indices: Iterable[int]) -> ArrayPhotos:
        """The photos at these positions."""
        chosen = list(indices)
        return ArrayPhotos([self.names[i] for i in chosen], [self.arrays[i] for i in chosen])


class FolderPhotos:
    """The photos in a folder and all folders below it, sorted by relative path.

    Args:
        root: the folder.
        key: the config key that named it, for messages.
        names: only these (relative, forward slashes); default all photos by the rule of :mod:`.photofiles`.
        exclude: patterns of photos and folders to leave out, see :func:`colorization.files.photofiles.matches`.
        cache_dir: where the scan is remembered between runs (keyed by path, size and times of change); ``None``
            scans again.

    Raises:
        InputError: no such folder, or nothing in it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        key: str,
        names: Sequence[str] | None = None,
        cache_dir: Path | None = None,
        exclude: Sequence[str] = (),
    ) -> None:
        self.root, self.key, self.cache_dir = Path(root), key, cache_dir
        self._facts: dict[str, Facts] = {}  # of the photos that have been scanned
        if names is None:
            if not self.root.is_dir():
                raise InputError(f"{key}={root}: no such folder; give a folder of photographs")

            def unreadable(error: OSError) -> None:
                log.warning("%s=%s: %s cannot be read (%s)", key, root, error.filename, error.strerror)

            left_out = photofiles.LeftOut()
            names = sorted(
                (below / name).as_posix()
                for folder, below, files in photofiles.walk(self.root, exclude, left_out, unreadable)
                for name in files
                if (folder / name).is_file()
            )
            if said := str(left_out):
                log.info("%s=%s: %s", key, root, said)
            for link in left_out.links:
                log.warning("%s=%s: %s is a link to a folder and is not followed", key, root, link)
            if not names:
                kinds = ", ".join(sorted(e[1:] for e in photofiles.EXTENSIONS))
                raise InputError(f"{key}={root}: no photographs in this folder; it should hold {kinds} files")
        self.names = list(names)

    def path(self, index: int) -> Path:
        """The file of photo ``index``."""
        return self.root / self.names[index]

    def read(self, index: int) -> np.ndarray:
        """Photo ``index`` as (H, W, 3) uint8."""
        return read_rgb(self.path(index))

    def read_with_digest(self, index: int) -> tuple[np.ndarray, str]:
        """Photo ``index`` and the hash of the very bytes that it was decoded from."""
        content = self.path(index).read_bytes()
        return read_rgb(self.path(index), content), _digest(content)

    def subset(self, indices: Iterable[int]) -> FolderPhotos:
        """The photos at these positions."""
        subset = FolderPhotos(self.root, self.key, [self.names[i] for i in indices], self.cache_dir)
        subset._facts = self._facts
        return subset

    def _scan_one(self, index: int) -> Facts:
        path, name = self.path(index), self.names[index]
        try:
            content = path.read_bytes()
            with pictures.open_picture(path, content, whole=True) as picture:
                size, rgb = picture.overview(_SCAN_SIDE)
            image = Image.fromarray(rgb)
            image.thumbnail((2 * _SCAN_SIDE, 2 * _SCAN_SIDE), Image.Resampling.BOX)
            return Facts(name, len(content), *_statistics(np.asarray(image)), size=size, digest=_digest(content))
        except (Unreadable, OSError) as error:
            reason = str(error).removeprefix(f"{shown(path)}: ")
            return Facts(name, path.stat().st_size if path.exists() else 0, error=reason)

    def scan(self) -> list[Facts]:
        """The facts of every photo, in order; decodes each once, on all cores, and remembers the result."""
        if not self._facts.keys() >= set(self.names):
            self._facts = {facts.name: facts for facts in self._scan_all()}
        return [self._facts[name] for name in self.names]

    def _scan_all(self) -> list[Facts]:
        known: dict[str, dict] = {}
        cache = None
        if self.cache_dir is not None:
            key = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
            cache = self.cache_dir / f"scan-{key}.json"
            if cache.is_file():
                content = json.loads(cache.read_text(encoding="utf-8"))
                known = content["photos"] if content.get("schema") == _SCAN_SCHEMA else {}
        stamps = [self._stamp(i) for i in range(len(self.names))]
        fresh = [i for i, n in enumerate(self.names) if n not in known or known[n]["stamp"] != stamps[i]]
        if fresh:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                progress = tqdm(
                    pool.map(self._scan_one, fresh),
                    f"checking {self.root}",
                    len(fresh),
                    unit="photo",
                    disable=None,
                    delay=2,
                )
                for i, facts in zip(fresh, progress, strict=True):
                    known[self.names[i]] = {**asdict(facts), "stamp": stamps[i]}
            if cache is not None:
                write_json(cache, {"schema": _SCAN_SCHEMA, "photos": known})
        return [_facts_of_json(known[name]) for name in self.names]

    def _stamp(self, index: int) -> list[int]:
        path = self.path(index)
        if not path.exists():
            return []
        stat = path.stat()
        # Also the time of change: a copy that keeps size and modification time may hold something else.
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _facts_of_json(row: dict[str, Any]) -> Facts:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "stamp"}
    return Facts(**values)
