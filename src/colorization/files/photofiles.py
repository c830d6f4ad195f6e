"""Which files are photos: one rule for training, evaluation, ``colorize`` and the server's list of folders.

A photo has one of :data:`EXTENSIONS`. Hidden files, files that systems make and excluded
files are skipped and counted; links to folders are not followed, because they could go in circles. Imports no
other part of the package.
"""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

# The types that can be written, with the endings that mean them; the first is the one for new names.
TYPES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
}
# Endings of types that can only be read, and the type of their results: PNG for lossless ones, JPEG for lossy ones.
READ_ONLY = {
    **dict.fromkeys((".apng", ".bmp", ".gif", ".pbm", ".pgm", ".ppm", ".pnm"), "png"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), "png"),
    **dict.fromkeys((".avif", ".avifs", ".heic", ".heif", ".mpo"), "jpeg"),
}
# Endings of the files that are taken from a folder.
EXTENSIONS = frozenset(READ_ONLY).union(*TYPES.values())
# Files that network storage, Windows and archive programs leave in folders of photos, in lower case.
_SYSTEM = frozenset(
    {"@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found", "__macosx"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini"}
)

Folder = Any  # Path, or the UPath of a folder elsewhere


@dataclass
class LeftOut:
    """Files other than photos that a search found.

    Attributes:
        hidden, excluded: counts; a folder counts as one, with all its content.
        links: linked folders, relative to the folder that was searched.
        others: files whose ending is not a photo's.
    """

    hidden: int = 0
    excluded: int = 0
    links: list[PurePosixPath] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)

    def add(self, other: LeftOut) -> None:
        """Add the result of another search."""
        self.hidden, self.excluded = self.hidden + other.hidden, self.excluded + other.excluded
        self.links, self.others = self.links + other.links, self.others + other.others

    def __str__(self) -> str:
        """For a message; empty if there is nothing to say."""
        parts = []
        if self.others:
            files = "file" if len(self.others) == 1 else "files"
            parts.append(f"{len(self.others)} other {files} not taken: {_endings(self.others)}")
        if self.hidden:
            parts.append(f"{self.hidden} hidden or system files and folders left out")
        if self.excluded:
            parts.append(f"{self.excluded} excluded")
        return "; ".join(parts)


def _endings(files: Iterable[Any], most: int = 5) -> str:
    counts = Counter(PurePosixPath(f.name).suffix.lower() or "without an ending" for f in files)
    parts = [f"{count} {ending}" for ending, count in counts.most_common(most)]
    return ", ".join(parts) + (", …" if len(counts) > most else "")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one that a system makes."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_photo(name: str) -> bool:
    """Whether a file of this name counts as a photo."""
    return not is_hidden(name) and PurePosixPath(name).suffix.lower() in EXTENSIONS


def matches(path: PurePosixPath, patterns: Sequence[str]) -> bool:
    """Whether a shell pattern matches the name or, if it has a ``/``, the path; case is ignored."""
    return any(fnmatch.fnmatchcase((str(path) if "/" in p else path.name).lower(), p.lower()) for p in patterns)


def relative(path: Folder, root: Folder) -> PurePosixPath:
    """The relative path from ``root`` to something below it."""
    if isinstance(path, Path):
        return PurePosixPath(path.relative_to(root).as_posix())
    return PurePosixPath(path.path[len(root.path) :].strip("/"))


def walk(
    root: Folder,
    exclude: Sequence[str] = (),
    left_out: LeftOut | None = None,
    on_error: Callable[[OSError], None] | None = None,
    enter: Callable[[Folder], bool] = lambda folder: True,
) -> Iterator[tuple[Folder, PurePosixPath, list[str]]]:
    """The folders below ``root`` and itself, top down: the folder, its path relative to ``root``, its photos' names.

    Args:
        root: of this machine or elsewhere.
        exclude: patterns, see :func:`matches`, of photos and of folders.
        left_out: collects everything else.
        on_error: is told of folders that cannot be read.
        enter: whether to go into a folder.
    """
    told = LeftOut() if left_out is None else left_out
    local = isinstance(root, Path)
    for folder, names, files in os.walk(root, onerror=on_error) if local else root.walk(on_error=on_error):
        folder = Path(folder) if local else folder
        below = relative(folder, root)
        inside = []
        for name in sorted(names):
            if is_hidden(name):
                told.hidden += 1
            elif matches(below / name, exclude):
                told.excluded += 1
            elif local and (folder / name).is_symlink():
                told.links.append(below / name)
            elif enter(folder / name):
                inside.append(name)
        names[:] = inside
        photos = []
        for name in sorted(files):
            if is_hidden(name):
                told.hidden += 1
            elif matches(below / name, exclude):
                told.excluded += 1
            elif is_photo(name):
                photos.append(name)
            else:
                told.others.append(folder / name)
        yield folder, below, photos
