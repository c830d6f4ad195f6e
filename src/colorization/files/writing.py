"""Pictures into files: JPEG, PNG, WebP and TIFF, with their metadata, profile and disclosure."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError, about, shown, warn
from colorization.files import metadata as metadata_
from colorization.files.metadata import Metadata
from colorization.files.photofiles import READ_ONLY, TYPES
from colorization.files.pixels import Page, on_white, srgb_profile

Buffer = bytes | memoryview

_LARGEST_SIDE = {"jpeg": 65500, "png": 1_000_000, "webp": 16383}  # of the formats' encoders, pixels
QUALITIES = (1, 100)  # of JPEG and WebP, from and to


@dataclass(frozen=True)
class Output:
    """How a picture is written.

    Attributes:
        type: ``same`` as the original, or one of :data:`TYPES`, see :func:`target_suffix`.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        InputError: a value that cannot work.
    """

    type: str = "same"
    quality: int = 95

    def __post_init__(self) -> None:
        if self.type != "same" and self.type not in TYPES:
            raise InputError(f"type={self.type}: should be same, {', '.join(TYPES)}")
        low, high = QUALITIES
        if not low <= self.quality <= high:
            raise InputError(f"quality={self.quality}: should be a number from {low} to {high}")


def target_suffix(source: str | os.PathLike[str], type: str = "same") -> str:
    """The ending of a result's name.

    ``same`` keeps the original's ending where it can be written, also where the content was of another type than it
    said; BMP, GIF and JPEG 2000 become PNG, HEIF and AVIF become JPEG.
    """
    suffix = Path(source).suffix
    kind = READ_ONLY.get(suffix.lower()) if type == "same" else type
    if kind is None or suffix.lower() in TYPES[kind]:
        return suffix
    return TYPES[kind][0]


def save(path: Path, pages: Iterable[Page], metadata: Metadata | None, output: Output, disclosure: str | None) -> None:
    """Write pages as one file beside ``path``, then rename it.

    JPEG is written at 4:4:4, because its colours were just painted; PNG and TIFF lossless and at the pages' depth. JPEG
    cannot hold alpha (the picture is put on white), nor WebP IPTC-IIM; both have 8 bits.

    Args:
        path: its ending decides the type; its folder is created.
        pages: (H, W) or (H, W, 3); several only in a TIFF.
        metadata: of the original.
        output: how.
        disclosure: who made the colours, for a tag in the file; ``None`` writes none.

    Raises:
        InputError: no such type.
        OSError: it cannot be written there, or not as this type.
    """
    path = Path(path)
    metadata = metadata or Metadata()
    kind = check_type(path, [(1, 1)] * metadata.pages)
    if disclosure:
        with about(path):
            metadata = metadata_.disclosed(metadata, disclosure)
    try:
        with about(path), atomic_path(path) as temporary:
            if kind == "tiff":
                _write_tiff(temporary, pages, metadata)
            else:
                (page,) = pages
                check_type(path, [page.pixels.shape[1::-1]])
                with temporary.open("wb") as file:
                    file.writelines(_ENCODERS[kind](page, metadata, output))
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, shown(path)) from error  # not the name of the temporary file


def check_type(path: Path, sizes: Sequence[tuple[int, int]]) -> str:
    """Whether a file of this ending can hold pages of these sizes (width, height); returns its type.

    Raises:
        InputError: the type cannot be written.
        OSError: it cannot.
    """
    kind = next((k for k, suffixes in TYPES.items() if path.suffix.lower() in suffixes), None)
    if kind is None:
        raise InputError(f"{shown(path)}: pictures can be written as {', '.join(TYPES)}")
    if len(sizes) > 1 and kind != "tiff":
        raise OSError(f"{kind} holds one page, and this file has {len(sizes)}; write tiff")
    for width, height in sizes:
        if max(width, height) > _LARGEST_SIDE.get(kind, max(width, height)):
            larger = "tiff" if kind == "png" else "png or tiff"
            raise OSError(
                f"{kind} holds at most {_LARGEST_SIDE[kind]} pixels a side, and this picture has {width}x{height}; "
                f"write {larger}"
            )
    return kind


def _rgb(page: Page, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels (H, W, 3) and alpha as the type can hold them."""
    pixels, alpha = page.pixels, page.alpha
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, 2)
    if kind in ("jpeg", "webp") and pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
        alpha = None if alpha is None else cv2.convertScaleAbs(alpha, alpha=1 / 257)
    if kind == "jpeg" and alpha is not None:
        pixels, alpha = on_white(pixels, alpha), None
    return np.ascontiguousarray(pixels), alpha


def _with_alpha(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    return pixels if alpha is None else np.dstack((pixels, alpha))


def _tiny(kind: str, **options: Any) -> bytes:
    """A one-pixel file with the metadata that Pillow writes: it has the header of the real one."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, kind, icc_profile=srgb_profile(), **options)
    return buffer.getvalue()


_SEGMENT = 65533  # bytes that a segment of a JPEG holds


def _jpeg(page: Page, metadata: Metadata, output: Output) -> list[Buffer]:
    import imagecodecs

    pixels, _ = _rgb(page, "jpeg")
    exif = metadata_.exif_block(metadata, _SEGMENT - 6)
    options: dict[str, Any] = {"exif": b"Exif\0\0" + exif} if exif else {}
    if metadata.xmp:
        if len(metadata.xmp) <= 65504:
            options["xmp"] = metadata.xmp
        else:
            warn(f"XMP of {len(metadata.xmp)} bytes does not fit into a JPEG and is left out")
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if metadata.iptc:
        content = b"Photoshop 3.0\0" + metadata_.photoshop_block(metadata.iptc)
        if len(content) <= _SEGMENT:
            options["extra"] = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
        else:
            warn(f"IPTC of {len(metadata.iptc)} bytes does not fit into a JPEG and is left out")
    tiny = _tiny("JPEG", **options)
    data = memoryview(imagecodecs.jpeg8_encode(pixels, level=output.quality, subsampling="444"))
    return [tiny[: _end_of_applications(tiny)], data[_end_of_applications(data) :]]


def _end_of_applications(data: Buffer) -> int:
    """Where a JPEG's application segments (JFIF, EXIF, ...) and comments end, which come first."""
    place = 2
    while 0xE0 <= data[place + 1] <= 0xEF or data[place + 1] == 0xFE:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place


def _png(page: Page, metadata: Metadata, output: Output) -> list[Buffer]:
    import imagecodecs

    options: dict[str, Any] = {"exif": metadata_.exif_block(metadata), "pnginfo": PngImagePlugin.PngInfo()}
    if metadata.xmp:
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    if metadata.iptc:
        options["pnginfo"].add_text(*metadata_.png_iptc(metadata.iptc), zip=True)
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    tiny = _tiny("PNG", **options)
    pixels = _with_alpha(*_rgb(page, "png"))
    # Nearly as small as at the highest level, in a fifth of the time.
    fast = {"level": 1, "strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.SUB}
    data = memoryview(imagecodecs.png_encode(pixels, **fast))
    end_of_header = 8 + 12 + 13  # signature, IHDR
    return [data[:end_of_header], tiny[end_of_header : tiny.index(b"IDAT") - 4], data[end_of_header:]]


def _webp(page: Page, metadata: Metadata, output: Output) -> list[Buffer]:
    options: dict[str, Any] = {"exif": metadata_.exif_block(metadata), "icc_profile": srgb_profile()}
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    buffer = io.BytesIO()
    pixels = _with_alpha(*_rgb(page, "webp"))
    Image.fromarray(pixels).save(buffer, "WEBP", quality=output.quality, exact=True, **options)
    return [buffer.getbuffer()]


_ENCODERS = {"jpeg": _jpeg, "png": _png, "webp": _webp}


def _write_tiff(path: Path, pages: Iterable[Page], metadata: Metadata) -> None:
    import tifffile

    writer: Any = None
    try:
        for page in pages:
            pixels = _with_alpha(*_rgb(page, "tiff"))
            if writer is None:
                big = metadata.pages * pixels.nbytes > 2**32 - 2**25
                writer = tifffile.TiffWriter(path, bigtiff=big, byteorder=metadata.order)  # type: ignore[arg-type]
            writer.write(
                pixels,
                photometric="rgb",
                planarconfig="contig",
                extrasamples=None if page.alpha is None else ["unassalpha"],
                compression="zlib",
                predictor=True,
                rowsperstrip=max(1, (1 << 18) // pixels.shape[1]),
                resolution=metadata.dpi,
                resolutionunit="INCH" if metadata.dpi else None,
                iccprofile=srgb_profile(),
                subfiletype=2 if metadata.pages > 1 else 0,
                software=False,
                metadata=None,
            )
    finally:
        if writer is not None:
            writer.close()
    metadata_.describe_tiff(path, metadata)
