"""Previews for browsers of pictures that they cannot show (TIFF, HEIF), or that are too large for a thumbnail."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import cv2

from colorization.api.http.problems import Problem
from colorization.api.storage import uploads
from colorization.api.storage.uploads import Upload
from colorization.core.errors import InputError, about, told_elsewhere
from colorization.files import pictures, writing
from colorization.files.pixels import Page
from colorization.files.writing import Output

LARGEST = 65_500  # pixels of a JPEG's side
_turns = threading.BoundedSemaphore(2)  # one of 100 megapixels takes some hundred megabytes while it is decoded


def preview(upload: Upload, side: int | None = None) -> bytes:
    """The first page as a JPEG, upright and in sRGB, its longer side ``side`` pixels at most.

    Raises:
        Problem: 413, 415 or 422, it cannot be read.
    """
    with _turns, tempfile.TemporaryDirectory() as folder:
        try:
            with about(upload.path, told_elsewhere), pictures.open_picture(upload.path) as picture:
                page = next(iter(picture))
            target = Path(folder) / "preview.jpg"
            writing.save(target, [_reduced(page, min(side or LARGEST, LARGEST))], None, Output("jpeg", 90), None)
        except InputError as error:
            raise uploads.problem(error, upload) from error
        except StopIteration as error:
            raise Problem(422, f"{upload.name}: has no page that is a picture") from error
        return target.read_bytes()


def _reduced(page: Page, side: int) -> Page:
    height, width = page.pixels.shape[:2]
    if max(height, width) <= side:
        return page
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels, alpha = (
        None if p is None else cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (page.pixels, page.alpha)
    )
    assert pixels is not None
    return Page(pixels, alpha)
