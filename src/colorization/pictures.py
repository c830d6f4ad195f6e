"""Picture files in and out: every kind of photograph that an archive has, with nothing lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from colorization.errors import InputError
from colorization.runs import atomic_path


class Unreadable(InputError):
    """A file that is no picture, or a damaged one; in one sentence."""


@dataclass(frozen=True)
class Output:
    """How a picture is written.

    Attributes:
        quality: of JPEG and WebP, 1 to 100.
    """

    quality: int = 95


@dataclass
class Page:
    """One picture of a file, upright, in sRGB.

    Attributes:
        pixels: (H, W) grey or (H, W, 3), uint8 or uint16.
        alpha: (H, W) of the same dtype, or ``None``.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None


class Picture:
    """An open picture file: iterating decodes its pages one by one.

    Attributes:
        format: Pillow's name of the file's true type, e.g. ``JPEG``.
        metadata: what goes over to the result, for :func:`save`.
    """

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.format = image.format
        self.metadata: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Page]:
        yield page_of(self._image)


def page_of(image: Image.Image) -> Page:
    """A Pillow image of any mode as a page."""
    return Page(np.array(ImageOps.exif_transpose(image).convert("RGB")))


@contextmanager
def open_picture(path: Path) -> Iterator[Picture]:
    """The picture in a file. Raises :class:`Unreadable`."""
    try:
        with Image.open(path) as image:
            yield Picture(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(f"{path}: {error}") from error


def save(path: Path, pages: Iterable[Page], metadata: dict[str, Any], output: Output, disclosure: str | None) -> None:
    """Write pages as one file beside ``path``, then rename it.

    Args:
        path: where to, its ending is the type; its folder is made.
        metadata: of the original.
        output: how.
        disclosure: who made the colours, for a tag in the file; ``None`` writes none.
    """
    with atomic_path(path) as temporary:
        for page in pages:
            Image.fromarray(page.pixels).save(temporary, quality=output.quality, subsampling=0)
