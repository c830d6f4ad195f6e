"""Decoded pixels to upright sRGB pages: orientation, profiles, inks, transparency, bit depths."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import (  # the types that are read: importing a plugin makes Pillow know it
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from colorization.core.errors import InputError, warn

_STRIP = 1 << 20  # pixels converted at once, if intermediate steps need more memory than the result
SIDEWAYS = (5, 6, 7, 8)  # EXIF's orientations
# Little CMS: without its optimization, whose tables are off by up to 5,000 of 65,535 at 16 bits.
_INTENT, _BLACK_POINT, _EXACT = 1, 0x2000, 0x0100


@dataclass
class Page:
    """One picture of a file, upright, in sRGB.

    Attributes:
        pixels: (H, W) grey or (H, W, 3), uint8 or uint16.
        alpha: (H, W) of the same dtype, or ``None``.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None


def page_of(image: Image.Image) -> Page:
    """A Pillow image of any mode as a page.

    Raises:
        ValueError: the mode is not a picture's.
        Unreadable: it has no pixels.
    """
    if not image.width or not image.height:
        raise Unreadable("the picture has no pixels")
    image.load()
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return finished(image, to_uint16(np.asarray(image), 32 if mode == "I" else 16))
    if mode == "CMYK":
        return finished_cmyk(image, np.asarray(image))
    if mode == "LAB":  # a profile with it is that of Lab
        return Page(make_upright(np.asarray(image.convert("RGB")), orientation_of(image)))
    grey = mode in ("1", "L", "LA", "La")
    transparent = image.has_transparency_data
    wanted = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(image if mode == wanted else image.convert(wanted))
    return finished(image, *split_alpha(pixels, transparent))


def finished(image: Image.Image, pixels: np.ndarray, alpha: np.ndarray | None = None) -> Page:
    """The page of decoded pixels: in sRGB, upright."""
    orientation = orientation_of(image)
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if gamma and not profile and "srgb" not in image.info:
        pixels = _of_gamma(pixels, gamma)
    pixels = to_srgb(pixels, profile)
    return Page(make_upright(pixels, orientation), None if alpha is None else make_upright(alpha, orientation))


def finished_cmyk(image: Image.Image, inks: np.ndarray) -> Page:
    return Page(make_upright(rgb_of_cmyk(inks, image.info.get("icc_profile")), orientation_of(image)))


def orientation_of(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)  # or XMP's
    except UNREADABLE:  # damaged EXIF is no reason to refuse the picture
        return 1


def split_alpha(pixels: np.ndarray, has_alpha: bool) -> tuple[np.ndarray, np.ndarray | None]:
    if not has_alpha:
        return pixels, None
    colour, alpha = pixels[..., :-1], np.ascontiguousarray(pixels[..., -1])
    return np.ascontiguousarray(colour[..., 0] if colour.shape[-1] == 1 else colour), alpha


def make_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, 3), turned as EXIF's orientation (1 to 8) says."""
    if orientation in (2, 3, 4):
        return cv2.flip(pixels, {2: 1, 3: -1, 4: 0}[orientation])
    if orientation in (5, 7):
        transposed = cv2.transpose(pixels)
        return transposed if orientation == 5 else cv2.flip(transposed, -1)
    if orientation in (6, 8):
        return cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE if orientation == 6 else cv2.ROTATE_90_COUNTERCLOCKWISE)
    return pixels


def to_uint16(values: np.ndarray, bits: int = 16) -> np.ndarray:
    """Samples of any depth as uint16.

    Integers of ``bits`` bits are scaled by their range, negative ones count as zero. Floats are sRGB-encoded in [0, 1];
    if they go beyond it, the range that holds them all and [0, 1] is reduced to it. What is not finite is black.
    """
    if values.dtype == np.uint16 and bits == 16:
        return values
    low, high = 0.0, float(2**bits - 1)
    if values.dtype.kind == "f":
        high = 1.0
        for row in values:
            finite = row[np.isfinite(row)]
            low, high = float(finite.min(initial=low)), float(finite.max(initial=high))
    elif values.dtype.kind == "i":
        # Pillow's 32-bit mode also holds pictures of 8 and 16 bits.
        top = values.max() if bits == 32 else 2**31
        high = 255.0 if top <= 255 else 65535.0 if top <= 65535 else 2.0 ** (bits - 1) - 1

    def scale(strip: np.ndarray) -> np.ndarray:
        strip = np.nan_to_num(strip.astype(np.float64), nan=low, posinf=low, neginf=low)
        return np.rint((strip.clip(low, high) - low) * (65535 / (high - low)))

    return by_strips(scale, values.shape, np.uint16, values)


def of_lab(values: np.ndarray, bits: int, icc: bool) -> np.ndarray:
    """(H, W, 3 or more) CIELAB (D50) as TIFF stores it, 8 or 16 bits, as sRGB of the same dtype; alpha as it was.

    Args:
        icc: a* and b* are shifted by half of their range, as in ICC's profiles; else they are signed.
    """
    import imagecodecs

    if bits not in (8, 16) or values.dtype.kind not in "iu":
        raise ValueError(f"is CIELAB of {bits} bits")
    values = values.view(f"u{bits // 8}")
    half = 1 << (bits - 1)
    steps = values[..., 1:3]
    # Some programs shift them without saying so: a photograph's colours are near grey, not at the ends of the range.
    sample = steps[:: max(1, len(steps) // 64), :: max(1, steps.shape[1] // 64)].astype(np.int64)
    signed = np.where(sample >= half, sample - 2 * half, sample)
    shifted = icc or np.abs(sample - half).mean() < np.abs(signed).mean()

    def convert(strip: np.ndarray) -> np.ndarray:
        lab = np.empty((*strip.shape[:2], 3), np.uint16)  # as ICC's version 4: 65535 is L* 100, 128 * 257 is a* 0
        lab[..., 0] = strip[..., 0].astype(np.uint16) * (257 if bits == 8 else 1)
        ab = strip[..., 1:3].astype(np.int32)
        ab = ab - half if shifted else np.where(ab >= half, ab - 2 * half, ab)
        lab[..., 1:] = np.rint((ab / (half / 128) + 128) * 257).clip(0, 65535)
        rgb = imagecodecs.cms_transform(
            lab, _lab_profile(), srgb_profile(), colorspace="lab", outcolorspace="rgb", intent=_INTENT, flags=_EXACT
        )
        strip[..., :3] = rgb if bits == 16 else cv2.convertScaleAbs(rgb, alpha=1 / 257)
        return strip

    return by_strips(convert, values.shape, values.dtype, values)


def unassociated(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    top = np.iinfo(values.dtype).max
    factor = top / np.maximum(alpha, 1).astype(np.float32)
    return np.rint(values * (factor if values.ndim == 2 else factor[..., None])).clip(0, top)


@lru_cache(1)
def srgb_profile() -> bytes:
    """sRGB's ICC profile, always the same bytes."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # Little CMS writes the time of its making
    return bytes(made)


@lru_cache(1)
def _lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def _transform(pixels: np.ndarray, profile: bytes, exact: bool) -> np.ndarray:
    """(H, W) or (H, W, C) in the profile's colours as (H, W, 3) sRGB of the same dtype."""
    import imagecodecs

    flags = _BLACK_POINT | (_EXACT if exact else 0)
    space = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}[profile[16:20]]
    return imagecodecs.cms_transform(
        pixels, profile, srgb_profile(), colorspace=space, outcolorspace="rgb", intent=_INTENT, flags=flags
    )


@lru_cache(16)
def _is_srgb(profile: bytes) -> bool:
    """Whether the RGB profile moves no colour of a lattice by more than a code."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    return int(np.abs(_transform(lattice, profile, exact=True).astype(int) - lattice).max()) <= 1


def to_srgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Grey (H, W), RGB (H, W, 3) or CMYK (H, W, 4) through a profile; the same array if nothing changes.

    A profile that is damaged or does not fit the picture's mode is ignored with a warning.
    """
    if not profile:
        return pixels
    import imagecodecs

    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    space = profile[16:20]
    if space not in {1: (b"GRAY", b"RGB "), 3: (b"RGB ",), 4: (b"CMYK",)}[channels]:
        kind = space.strip().decode("latin-1")
        fault = f"is for {kind}, not for this picture" if kind.isalnum() and kind.isupper() else "is damaged"
        warn(f"the colour profile {fault}, and is left out")
        return pixels
    try:
        if space == b"RGB " and _is_srgb(profile):
            return pixels
        if channels == 1:  # by table: exact, and the answer of a neutral colour is neutral
            codes = np.arange(np.iinfo(pixels.dtype).max + 1, dtype=pixels.dtype)[None]
            table = _transform(codes if space == b"GRAY" else np.stack([codes] * 3, -1), profile, exact=True)[0, :, 1]
            return cv2.LUT(pixels, table) if pixels.dtype == np.uint8 else table[pixels]
        exact = pixels.dtype == np.uint16
        return by_strips(lambda strip: _transform(strip, profile, exact), (*pixels.shape[:2], 3), pixels.dtype, pixels)
    except imagecodecs.CmsError as error:
        warn(f"the colour profile is damaged and left out ({error})")
        return pixels


def _of_gamma(pixels: np.ndarray, gamma: float) -> np.ndarray:
    """Grey or RGB whose code is its light to the power of ``gamma``, as PNG's gAMA says, in sRGB.

    PNG's value for sRGB, 0.45455, means just that.
    """
    if abs(gamma - 0.45455) < 0.001 or not 0.05 < gamma < 20:
        return pixels
    top = np.iinfo(pixels.dtype).max
    light = np.linspace(0, 1, top + 1) ** (1 / gamma)
    codes = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = np.rint(codes * top).astype(pixels.dtype)
    return cv2.LUT(pixels, table) if pixels.dtype == np.uint8 else table[pixels]


def by_strips(
    function: Callable[..., np.ndarray], shape: tuple[int, ...], dtype: Any, *arrays: np.ndarray
) -> np.ndarray:
    """An array of this shape and dtype that ``function`` makes of the same rows of ``arrays``, some rows at a time."""
    result = np.empty(shape, dtype)
    rows = max(1, _STRIP // shape[1])
    for top in range(0, shape[0], rows):
        result[top : top + rows] = function(*(np.ascontiguousarray(a[top : top + rows]) for a in arrays))
    return result


def rgb_of_cmyk(inks: np.ndarray, profile: bytes | None) -> np.ndarray:
    """(H, W, 4), all bits of ink set is full ink, as (H, W, 3). Without a profile (1 - C)(1 - K) and so on."""
    rgb = to_srgb(inks, profile)
    if rgb is not inks:
        return rgb
    top = np.iinfo(inks.dtype).max

    def multiply(strip: np.ndarray) -> np.ndarray:
        light = (top - strip).astype(np.uint32)
        return (light[..., :3] * light[..., 3:] + top // 2) // top

    return by_strips(multiply, (*inks.shape[:2], 3), inks.dtype, inks)


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) with paper white behind transparent pixels."""
    top = np.iinfo(pixels.dtype).max

    def blend(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        cover = alpha[..., None].astype(np.uint32)
        return (colour * cover + top * (top - cover) + top // 2) // top

    return by_strips(blend, pixels.shape, pixels.dtype, pixels, alpha)


# Errors of decoders for files that are truncated, damaged, or of another type than they claim.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Unreadable(InputError):
    """A file that is not a picture or is damaged, in one sentence."""
