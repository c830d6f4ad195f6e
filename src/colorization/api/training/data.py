"""Photographs on the server: folders below the configured roots, the only places that a request can name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from colorization.api.training.plan import find_folder
from colorization.files import photofiles

COUNTED = 100_000  # entries that are looked at for one answer; beyond them the numbers are lower bounds
FOLDER = r"^[^\\\x00-\x1f\x7f]*$"  # of a name relative to a root; what else it must be, find_folder() says


def sample() -> Path:
    """A colour photo that an installed package has, a JPEG. The package, which takes seconds, is not imported."""
    (folder,) = (Path(spec.origin).parent for spec in [find_spec("sklearn")] if spec and spec.origin)
    return folder / "datasets" / "images" / "china.jpg"


def folders(name: str, roots: Sequence[str]) -> list[dict[str, Any]]:
    """The folders in a folder: ``path``, ``photos`` in it and below, ``links``, ``complete``.

    ``links`` are the linked folders below, not followed; ``complete`` is false where the numbers are lower bounds.
    ``""`` lists the folders in all roots.

    Raises:
        Problem: 422, there is no such folder.
    """
    tops = [Path(root).resolve() for root in roots]
    places = [p for p in tops if p.is_dir()] if not name.strip("/") else [find_folder(name, roots, "path")]
    looked, found = 0, {}
    for place in places:
        for entry in sorted(_entries(place), key=lambda e: e.name):
            inside = any(Path(entry.path).resolve().is_relative_to(t) for t in tops)
            relative = entry.name if place in tops else f"{name.strip('/')}/{entry.name}"
            if photofiles.is_hidden(entry.name) or relative in found or not inside or not entry.is_dir():
                continue
            photos = 0
            others = photofiles.LeftOut()
            for _, _, files in photofiles.walk(Path(entry.path), (), others):
                photos += len(files)
                looked += len(files) + len(others.others) + 1
                others.others.clear()
                if looked > COUNTED:
                    break
            numbers = {"photos": photos, "links": len(others.links), "complete": looked <= COUNTED}
            found[relative] = {"path": relative, **numbers}
    return list(found.values())


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries
