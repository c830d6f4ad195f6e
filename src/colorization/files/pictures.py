"""Picture files in and out: every kind of photograph that an archive has, with nothing lost on the way.

Who does what:

- Pillow: finds out the true type, reads headers, palettes, transparency, GIF, BMP, PNM, WebP, AVIF, JPEG 2000, and TIFF
  pages of 2 to 7 bits a channel or subsampled colours; writes WebP, and the headers of JPEG and PNG
- simplejpeg: JPEG pixels (libjpeg-turbo in less of Pillow's time and memory, and its warnings of damage)
- imagecodecs: 16-bit PNG, written JPEG, and colour profiles (Little CMS at 16 bits, which Pillow's binding has not)
- tifffile: TIFF pages, and all TIFF writing (Pillow's libtiff prints of damaged ones)
- pi-heif (the extra ``heif``): HEIF, at 8 bits
- :mod:`colorization.files.metadata`: EXIF, XMP and IPTC

Pages come upright and in sRGB, grey or RGB, 8 bits a channel, or 16 where the file has more. An embedded profile is
applied (relative colorimetric with black point compensation, at the page's depth); one that is sRGB's own within a code
changes nothing. Pictures without a profile count as sRGB, PNG with a gamma of its own as of that, CMYK as plainly
subtractive. The result has sRGB's profile.

An animation's first frame is read. Of a TIFF every page but those that are marked as a reduced copy or a mask.

Training, evaluation and the colorizer all read with this: :func:`read_rgb` is what :class:`Picture` gives, at 8 bits.
What is wrong with a file and costs no picture is told by :func:`colorization.core.errors.warn`.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
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
    PngImagePlugin,
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError, about, warn
from colorization.files import metadata as metadata_
from colorization.files.metadata import Metadata
from colorization.files.photofiles import READ_ONLY, TYPES

# What is wrong with a file is said in its Unreadable, or by warn() with its name.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

Buffer = bytes | memoryview

# What decoders raise for files that are cut short, lie about their type, or are damaged in any other way.
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
# Of a page. A 200-megapixel photo is real, a file of some bytes that claims 2,500 megapixels is a bomb.
MAX_PIXELS = 300_000_000
# Pillow would refuse from 179 megapixels on; every header is checked against MAX_PIXELS here.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
MAX_PAGES = 1000  # of a TIFF that identify() takes
_MOST_PAGES = 100_000  # of any TIFF
_TOO_LARGE = f"claims more than {MAX_PIXELS // 1_000_000} megapixels"

_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STRIP = 1 << 20  # pixels that are converted at once, where the steps between need more room than the result
_LARGEST_SIDE = {"jpeg": 65500, "png": 1_000_000, "webp": 16383}  # of the formats' encoders, pixels
# TIFF's kinds of colours, and how many channels they have.
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
_MINISWHITE, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 3, 5, 6, 8, 9
_SIDEWAYS = (5, 6, 7, 8)  # EXIF's orientations
_REDUCED_OR_MASK = 0b101  # of TIFF's NewSubfileType
# Little CMS: without its optimization, whose tables are off by up to 5,000 of 65,535 at 16 bits.
_INTENT, _BLACK_POINT, _EXACT = 1, 0x2000, 0x0100


class Unreadable(InputError):
    """A file that is no picture, or a damaged one; in one sentence."""


class UnknownType(Unreadable):
    """A file that is no picture of a type that is read."""


class TooLarge(Unreadable):
    """A file that claims more than :data:`MAX_PIXELS`."""


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
        if not 1 <= self.quality <= 100:
            raise InputError(f"quality={self.quality}: should be a number from 1 to 100")


@dataclass
class Page:
    """One picture of a file, upright, in sRGB.

    Attributes:
        pixels: (H, W) grey or (H, W, 3), uint8 or uint16.
        alpha: (H, W) of the same dtype, or ``None``.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None


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


def shown(path: object) -> str:
    """A path or URL for a message: on one line, whatever its name holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


# Reading


class Picture:
    """An open picture file, see :func:`open_picture`: iterating, once, decodes its pages one by one.

    Attributes:
        format: Pillow's name of the file's true type, e.g. ``JPEG``.
        sizes: width and height of each page as it is stored, from the header.
    """

    def __init__(self, path: str | os.PathLike[str], content: bytes | None = None, whole: bool = False) -> None:
        self._path, self._content, self._whole = Path(path), content, whole
        self._image: Image.Image | None = None
        self._tiff: Any = None
        self._deep = self._sideways = False
        try:
            with _reading(self._path):
                self._open()
        except Unreadable:
            self.close()
            raise

    def _open(self) -> None:
        head = _head(self._path, self._content)
        if head[:4] in _TIFF:
            self.format = "TIFF"
            self._open_tiff()
            return
        self._image = _open_image(self._path, head, self._source())
        self.format, self.sizes = str(self._image.format), [self._image.size]
        _check_size(*self._image.size)
        if self.format == "PNG":
            self._deep = len(head) > 24 and head[24] == 16  # bits a channel, of which Pillow keeps 8 in colour pictures
            self._image.load()  # and what it tells after the pixels
        self._sideways = _orientation(self._image) in _SIDEWAYS
        if (frames := _frames(self._image)) > 1:
            warn(f"first of {frames} frames")

    def _open_tiff(self) -> None:
        import tifffile

        count = _count_pages(self._source())
        self._tiff = tifffile.TiffFile(self._source())
        pages = list(enumerate(self._tiff.pages))
        if not pages or len(pages) < count:
            raise ValueError("pages are missing")
        self._pages = [(i, p) for i, p in pages if not int(p.subfiletype) & _REDUCED_OR_MASK] or pages
        self.sizes = [(int(p.imagewidth), int(p.imagelength)) for _, p in self._pages]
        tag = self._pages[0][1].tags.get(ExifTags.Base.Orientation)
        self._sideways = tag is not None and tag.value in _SIDEWAYS

    @cached_property
    def metadata(self) -> Metadata:
        """What goes over to the result, for :func:`save`."""
        info = {} if self._image is None else self._image.info
        with _reading(self._path):
            return metadata_.read(self._path, self.format, info, len(self.sizes))

    def __iter__(self) -> Iterator[Page]:
        for number in range(len(self.sizes)):
            yield self._decode(number)  # no name holds the page while it is used

    def overview(self, side: int) -> tuple[tuple[int, int], np.ndarray]:
        """The first page's height and width, and its picture, (h, w, 3) uint8, in place of iterating.

        A JPEG is decoded as small as its short side has ``side`` pixels or more, in an eighth of the time at best.
        """
        with _reading(self._path):
            page = self._decode(0, side)
        width, height = self.sizes[0]
        if self._sideways:
            width, height = height, width
        return (height, width), rgb8(page)

    def _decode(self, number: int, side: int = 0) -> Page:
        with _reading(self._path):
            if self._tiff is not None:
                return self._tiff_page(*self._pages[number])
            assert self._image is not None
            with closing(self._image) as image:  # whose pixels would take as much room as the page's
                if self.format in ("JPEG", "MPO") and image.mode in ("L", "RGB", "CMYK"):
                    return self._jpeg_page(image, side)
                return self._deep_png(image) if self._deep else page_of(image)

    def _jpeg_page(self, image: Image.Image, side: int) -> Page:
        import simplejpeg

        data = self._bytes()
        space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[image.mode]
        factor = max(f for f in (1, 2, 4, 8) if f == 1 or (side and min(image.size) // f >= side))
        options = {"min_width": -(-image.width // factor), "min_height": -(-image.height // factor)}
        try:
            pixels = simplejpeg.decode_jpeg(data, space, **options)
        except ValueError as damage:
            if self._whole:
                raise
            pixels = simplejpeg.decode_jpeg(data, space, **options, strict=False)
            warn(f"damaged or cut short ({damage}); the missing part is grey or wrong")
        if image.mode == "CMYK":
            return _finished_cmyk(image, ~pixels)  # as all programs write it
        return _finished(image, pixels[..., 0] if image.mode == "L" else pixels)

    def _deep_png(self, image: Image.Image) -> Page:
        import imagecodecs

        pixels = imagecodecs.png_decode(self._bytes())
        return _finished(image, *_split_alpha(pixels, pixels.ndim == 3 and pixels.shape[2] % 2 == 0))

    def _tiff_page(self, index: int, page: Any) -> Page:
        _check_size(page.imagewidth, page.imagelength)
        _check_segments(page)
        if not _is_for_pillow(page):
            return _tifffile_page(page)
        with Image.open(self._source(), formats=["TIFF"]) as image:
            image.seek(index)
            return page_of(image)

    def _source(self) -> Path | io.BytesIO:
        return self._path if self._content is None else io.BytesIO(self._content)

    def _bytes(self) -> bytes:
        return self._path.read_bytes() if self._content is None else self._content

    def close(self) -> None:
        """Close the file."""
        if self._image is not None:
            self._image.close()
        if self._tiff is not None:
            self._tiff.close()


def _frames(image: Image.Image) -> int:
    """How many pictures the file has; reduced copies for screens do not count."""
    try:
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1 and image.format == "MPO":
            kinds = [entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002]]  # type: ignore[attr-defined]
            frames -= sum(kind.startswith("Large Thumbnail") for kind in kinds)
        return frames
    except UNREADABLE:  # a damaged one later is no reason to refuse the first
        image.seek(0)
        return 1


def _head(path: Path, content: bytes | None = None) -> bytes:
    """The first bytes of a file."""
    if content is None:
        if path.is_dir():
            raise Unreadable(f"{shown(path)}: is a folder")
        with path.open("rb") as file:
            content = file.read(32)
    if not content:
        raise Unreadable(f"{shown(path)}: is empty")
    return content[:32]


def _open_image(path: Path, head: bytes, source: Path | io.BytesIO) -> Image.Image:
    if head[4:8] == b"ftyp" and not head[8:12].startswith(b"avi"):
        _register_heif(path)
    return Image.open(source, formats=[f for f in _FORMATS if f in Image.OPEN])


def _count_pages(source: Path | io.BytesIO) -> int:
    """Of a TIFF; first of all, because tifffile and Pillow would follow a circle for ever."""
    with source.open("rb") if isinstance(source, Path) else source as file:
        return metadata_.count_pages(file, _MOST_PAGES)


def identify(path: Path) -> tuple[str, list[tuple[int, int]]]:
    """The true type (Pillow's name) and each page's width and height, from the headers alone.

    Raises:
        UnknownType: no picture of a type that is read.
        TooLarge: a page claims more than :data:`MAX_PIXELS`.
        Unreadable: its headers are damaged.
    """
    with _reading(path):
        head = _head(path)
        if head[:4] in _TIFF:
            import tifffile

            if (pages := _count_pages(path)) > MAX_PAGES:
                raise TooLarge(f"{shown(path)}: has {pages} pages, more than {MAX_PAGES}")
            with tifffile.TiffFile(path) as tiff:
                sizes = [(int(page.imagewidth), int(page.imagelength)) for page in tiff.pages]
            format = "TIFF"
        else:
            with _open_image(path, head, path) as image:
                format, sizes = str(image.format), [image.size]
        for size in sizes:
            _check_size(*size)
        return format, sizes


# The usual endings of Pillow's types where they are not the type's name.
_ENDINGS = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "PPM": ".pnm"}
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")  # brands


def ending_of(path: Any) -> str | None:
    """The usual ending for a picture file, here or elsewhere, by its first bytes; ``None`` if it seems to be none."""
    try:
        if isinstance(path, Path) and not path.is_file():  # reading a pipe would wait forever
            return None
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        return None
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return ".heic"
    if head[:2] == b"BM" and head[6:10] != bytes(4):  # two letters may begin any text
        return None
    if head[:1] == b"P" and not (head[2:3].isspace() and (head[3:4].isdigit() or head[3:4] == b"#")):
        return None
    for format in _FORMATS:
        _, accept = Image.OPEN.get(format, (None, None))
        if accept is not None and accept(head) is True:
            return _ENDINGS.get(format, f".{format.lower()}")
    return None


@contextmanager
def open_picture(path: str | os.PathLike[str], content: bytes | None = None, whole: bool = False) -> Iterator[Picture]:
    """The picture in a file, whatever its ending says.

    Args:
        path: the file.
        content: its bytes, where they have been read already.
        whole: refuse a JPEG that is damaged or cut short, too; else what there is of it is read, with a warning.

    Raises:
        Unreadable: it cannot be read; so do the picture's own methods.
    """
    with about(path):
        picture = Picture(path, content, whole)
        try:
            yield picture
        finally:
            picture.close()


def read_rgb(
    picture: str | os.PathLike[str] | Image.Image, content: bytes | None = None, whole: bool = False
) -> np.ndarray:
    """The first page of a file, or a Pillow image of any mode, upright, in sRGB, without alpha: (H, W, 3) uint8.

    Args:
        picture: the file, or the image.
        content, whole: of a file, see :func:`open_picture`.

    Raises:
        Unreadable: it cannot be read, or has no pixels.
    """
    if isinstance(picture, Image.Image):
        name = getattr(picture, "filename", "") or "the picture"
        with about(name), _reading(name):
            return rgb8(page_of(picture))
    with open_picture(picture, content, whole) as opened:
        return rgb8(next(iter(opened)))


def rgb8(page: Page) -> np.ndarray:
    """A page's colours as (H, W, 3) uint8."""
    pixels = page.pixels
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns whatever a decoder raises into :class:`Unreadable`."""
    try:
        yield
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise UnknownType(f"{shown(path)}: is no picture of a known type") from error
    except FileNotFoundError as error:
        raise Unreadable(f"{shown(path)}: no such file") from error
    except PermissionError as error:
        raise Unreadable(f"{shown(path)}: may not be read (permission denied)") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{shown(path)}: {_TOO_LARGE}") from error
    except MemoryError as error:
        raise Unreadable(f"{shown(path)}: needs more memory than there is") from error
    except UNREADABLE as error:
        reason = shown(str(error) or type(error).__name__)
        raise Unreadable(f"{shown(path)}: is damaged or cut short ({reason})") from error


@lru_cache(1)
def _heif() -> bool:
    """Whether HEIF can be read; registers its reader."""
    try:
        import pi_heif
    except ImportError:
        return False
    pi_heif.register_heif_opener(thumbnails=False)
    return True


def _register_heif(path: Path) -> None:
    if not _heif() and path.suffix.lower() in (".heic", ".heif"):
        raise Unreadable(f"{shown(path)}: HEIF needs pi-heif; install lab-colorization[heif]")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def page_of(image: Image.Image) -> Page:
    """A Pillow image of any mode as a page.

    Raises:
        ValueError: a mode that is no picture's.
        Unreadable: it has no pixels.
    """
    if not image.width or not image.height:
        raise Unreadable("the picture has no pixels")
    image.load()
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _finished(image, _to_uint16(np.asarray(image), 32 if mode == "I" else 16))
    if mode == "CMYK":
        return _finished_cmyk(image, np.asarray(image))
    if mode == "LAB":  # a profile with it is that of Lab
        return Page(_upright(np.asarray(image.convert("RGB")), _orientation(image)))
    grey = mode in ("1", "L", "LA", "La")
    transparent = image.has_transparency_data
    wanted = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(image if mode == wanted else image.convert(wanted))
    return _finished(image, *_split_alpha(pixels, transparent))


def _finished(image: Image.Image, pixels: np.ndarray, alpha: np.ndarray | None = None) -> Page:
    """The page of decoded pixels: in sRGB, upright."""
    orientation = _orientation(image)
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if gamma and not profile and "srgb" not in image.info:
        pixels = _of_gamma(pixels, gamma)
    pixels = _to_srgb(pixels, profile)
    return Page(_upright(pixels, orientation), None if alpha is None else _upright(alpha, orientation))


def _finished_cmyk(image: Image.Image, inks: np.ndarray) -> Page:
    return Page(_upright(_rgb_of_cmyk(inks, image.info.get("icc_profile")), _orientation(image)))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)  # or XMP's
    except UNREADABLE:  # damaged EXIF is no reason to refuse the picture
        return 1


def _split_alpha(pixels: np.ndarray, has_alpha: bool) -> tuple[np.ndarray, np.ndarray | None]:
    if not has_alpha:
        return pixels, None
    colour, alpha = pixels[..., :-1], np.ascontiguousarray(pixels[..., -1])
    return np.ascontiguousarray(colour[..., 0] if colour.shape[-1] == 1 else colour), alpha


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, 3) as EXIF's orientation (1 to 8) says that it is to be seen."""
    if orientation in (2, 3, 4):
        return cv2.flip(pixels, {2: 1, 3: -1, 4: 0}[orientation])
    if orientation in (5, 7):
        transposed = cv2.transpose(pixels)
        return transposed if orientation == 5 else cv2.flip(transposed, -1)
    if orientation in (6, 8):
        return cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE if orientation == 6 else cv2.ROTATE_90_COUNTERCLOCKWISE)
    return pixels


def _to_uint16(values: np.ndarray, bits: int = 16) -> np.ndarray:
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

    return _by_strips(scale, values.shape, np.uint16, values)


def _check_segments(page: Any) -> None:
    """Raises for a TIFF page that is cut short, and for a damaged one that is for Pillow, whose libtiff only prints."""
    import tifffile

    file, segments = page.parent.filehandle, (page.dataoffsets, page.databytecounts)
    if max(start + size for start, size in zip(*segments, strict=True)) > file.size:
        raise ValueError("its end is missing")
    if _is_for_pillow(page) and page.compression in tifffile.TIFF.DECOMPRESSORS:
        decompress = tifffile.TIFF.DECOMPRESSORS[page.compression]
        for content, _ in file.read_segments(*segments):
            decompress(content)


def _is_for_pillow(page: Any) -> bool:
    """Whether tifffile does not read this TIFF page, or would leave too much to do."""
    import tifffile

    if page.sampleformat != 1 or page.bitspersample > 8:
        return False
    subsampled = page.photometric == _YCBCR and page.compression != tifffile.COMPRESSION.JPEG
    return 1 < page.bitspersample < 8 or subsampled or page.compression not in tifffile.TIFF.DECOMPRESSORS


def _tifffile_page(page: Any) -> Page:
    """A TIFF page as tifffile reads it: uint8 if it has 8 bits a channel or fewer, else uint16."""
    values = page.asarray()
    if page.axes.startswith("S"):  # planes one after the other
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3):
        raise ValueError(f"has the axes {page.axes}")
    photometric = int(page.photometric)
    colours, channels = _CHANNELS.get(photometric, 0), values.shape[2] if values.ndim == 3 else 1
    if not 0 < colours <= channels:
        raise ValueError(f"has {channels} channels of the kind {page.photometric!r}")
    if photometric in (_CIELAB, _ICCLAB):
        values = _of_lab(values, page.bitspersample, photometric == _ICCLAB)
    elif values.dtype == bool:
        values = values.astype(np.uint8) * 255
    elif page.bitspersample == 8 and values.dtype.itemsize == 1:
        values = values.view(np.uint8)  # signed ones, too, as Pillow shows them
    else:
        values = _to_uint16(values, page.bitspersample)
    extra = [int(e) for e in page.extrasamples]
    alpha = None
    if values.ndim == 3:
        if channels > colours and extra and extra[0] in (1, 2):
            alpha = np.ascontiguousarray(values[..., colours])
        values = np.ascontiguousarray(values[..., 0] if colours == 1 else values[..., :colours])
    if alpha is not None and extra[0] == 1:  # colours are stored multiplied by alpha
        values = _by_strips(_unassociated, values.shape, values.dtype, values, alpha)
    profile = bytes(page.iccprofile) if page.iccprofile else None
    if photometric == _MINISWHITE:
        values = ~values
    elif photometric == _PALETTE:
        table = np.moveaxis(page.colormap, 0, -1)  # 16 bits
        values = (table >> 8).astype(np.uint8)[values] if values.dtype == np.uint8 else table[values]
    if photometric == _CMYK:
        values = _rgb_of_cmyk(values, profile)
    elif photometric not in (_CIELAB, _ICCLAB):  # 6: YCbCr, which tifffile has converted
        values = _to_srgb(values, profile)
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    return Page(_upright(values, orientation), None if alpha is None else _upright(alpha, orientation))


def _of_lab(values: np.ndarray, bits: int, icc: bool) -> np.ndarray:
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

    return _by_strips(convert, values.shape, values.dtype, values)


def _unassociated(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    top = np.iinfo(values.dtype).max
    factor = top / np.maximum(alpha, 1).astype(np.float32)
    return np.rint(values * (factor if values.ndim == 2 else factor[..., None])).clip(0, top)


# Colour


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


def _to_srgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Grey (H, W), RGB (H, W, 3) or CMYK (H, W, 4) through a profile; the same array where nothing changes.

    A profile that is damaged, or of other colours than the picture's, is left out with a warning.
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
        return _by_strips(lambda strip: _transform(strip, profile, exact), (*pixels.shape[:2], 3), pixels.dtype, pixels)
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


def _by_strips(
    function: Callable[..., np.ndarray], shape: tuple[int, ...], dtype: Any, *arrays: np.ndarray
) -> np.ndarray:
    """An array of this shape and dtype that ``function`` makes of the same rows of ``arrays``, some rows at a time."""
    result = np.empty(shape, dtype)
    rows = max(1, _STRIP // shape[1])
    for top in range(0, shape[0], rows):
        result[top : top + rows] = function(*(np.ascontiguousarray(a[top : top + rows]) for a in arrays))
    return result


def _rgb_of_cmyk(inks: np.ndarray, profile: bytes | None) -> np.ndarray:
    """(H, W, 4), all bits of ink set is full ink, as (H, W, 3). Without a profile (1 - C)(1 - K) and so on."""
    rgb = _to_srgb(inks, profile)
    if rgb is not inks:
        return rgb
    top = np.iinfo(inks.dtype).max

    def multiply(strip: np.ndarray) -> np.ndarray:
        light = (top - strip).astype(np.uint32)
        return (light[..., :3] * light[..., 3:] + top // 2) // top

    return _by_strips(multiply, (*inks.shape[:2], 3), inks.dtype, inks)


def _on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) with the paper's white where it is transparent."""
    top = np.iinfo(pixels.dtype).max

    def blend(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        cover = alpha[..., None].astype(np.uint32)
        return (colour * cover + top * (top - cover) + top // 2) // top

    return _by_strips(blend, pixels.shape, pixels.dtype, pixels, alpha)


# Writing


def save(path: Path, pages: Iterable[Page], metadata: Metadata | None, output: Output, disclosure: str | None) -> None:
    """Write pages as one file beside ``path``, then rename it.

    JPEG is written at 4:4:4, because its colours were just painted; PNG and TIFF lossless and at the pages' depth. JPEG
    cannot hold alpha (the picture is put on white), nor WebP IPTC-IIM; both have 8 bits.

    Args:
        path: where to, its ending is the type; its folder is made.
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
        InputError: no type that is written.
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
        pixels, alpha = _on_white(pixels, alpha), None
    return np.ascontiguousarray(pixels), alpha


def _with_alpha(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    return pixels if alpha is None else np.dstack((pixels, alpha))


def _tiny(kind: str, **options: Any) -> bytes:
    """A file of one pixel with the metadata that Pillow writes: its header is that of the real one."""
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
