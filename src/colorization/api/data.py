"""Photographs on the server: folders below the configured roots, the only places that a request can name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colorization.api.problems import invalid

# As in colorization.data.photos, which imports more than a list of folders needs.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
COUNTED = 100_000  # entries that are looked at for one answer; beyond them the numbers are lower bounds
FOLDER = r"^[^\\\x00-\x1f\x7f]*$"  # of a name relative to a root; what else it must be, resolve() says


def resolve(name: str, roots: Sequence[str], field: str = "data") -> Path:
    """The folder of a name: relative to the first root that has it, ``""`` for the first root itself.

    Links are followed first; what they lead to must be below a root, too.

    Raises:
        Problem: 422, there is none.
    """
    parts = name.split("/")
    tops = [Path(root).resolve() for root in roots]
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or ":" in parts[0]:
        raise invalid(field, "should be the name of a folder below the data roots, like photos/test")
    for top in tops:
        try:
            folder = (top / name).resolve()
            if folder.is_dir() and any(folder.is_relative_to(t) for t in tops):
                return folder
        except (OSError, RuntimeError):  # a name that is too long, a loop of links, or no right to look
            continue
    raise invalid(field, f"there is no folder {name!r} below the data roots; GET /api/data lists them")


def folders(name: str, roots: Sequence[str]) -> list[dict[str, Any]]:
    """The folders in a folder: ``name`` (as :func:`resolve` takes it), ``photos`` in it and below, ``complete``.

    ``complete`` is false where ``photos`` is a lower bound. ``""`` lists the folders in all roots.

    Raises:
        Problem: 422, there is no such folder.
    """
    tops = [Path(root).resolve() for root in roots]
    places = [p for p in tops if p.is_dir()] if not name.strip("/") else [resolve(name, roots, "path")]
    looked, found = 0, {}
    for place in places:
        for entry in sorted(_entries(place), key=lambda e: e.name):
            inside = any(Path(entry.path).resolve().is_relative_to(t) for t in tops)
            relative = entry.name if place in tops else f"{name.strip('/')}/{entry.name}"
            if entry.name.startswith(".") or relative in found or not inside or not entry.is_dir():
                continue
            photos = 0
            for _, _, files in os.walk(entry.path):
                photos += sum(f.lower().endswith(EXTENSIONS) for f in files)
                looked += len(files) + 1
                if looked > COUNTED:
                    break
            found[relative] = {"path": relative, "photos": photos, "complete": looked <= COUNTED}
    return list(found.values())


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries
