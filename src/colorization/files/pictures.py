"""Picture files in and out: every kind of photograph that an archive has, with nothing lost on the way.

Division of work:

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
Faults that cost no picture are reported by :func:`colorization.core.errors.warn`.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from colorization.core.errors import about, shown, warn
from colorization.files import metadata as metadata_
from colorization.files.metadata import Metadata
from colorization.files.pixels import (
    SIDEWAYS,
    UNREADABLE,
    Page,
    Unreadable,
    by_strips,
    finished,
    finished_cmyk,
    make_upright,
    of_lab,
    orientation_of,
    page_of,
    rgb_of_cmyk,
    split_alpha,
    to_srgb,
    to_uint16,
    unassociated,
)

# A file's fault is in its Unreadable, or reported by warn() with its name.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


# Of a page. A 200-megapixel photo is real, a file of some bytes that claims 2,500 megapixels is a bomb.
MAX_PIXELS = 300_000_000
# Pillow would refuse from 179 megapixels on; every header is checked against MAX_PIXELS here.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
MAX_PAGES = 1000  # of a TIFF that identify() takes
_MOST_PAGES = 100_000  # of any TIFF
_TOO_LARGE = f"claims more than {MAX_PIXELS // 1_000_000} megapixels"

_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# TIFF's kinds of colours, and how many channels they have.
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
_MINISWHITE, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 3, 5, 6, 8, 9
_REDUCED_OR_MASK = 0b101  # of TIFF's NewSubfileType


class UnknownType(Unreadable):
    """A file that is not a picture of a readable type."""


class TooLarge(Unreadable):
    """A file that claims more than :data:`MAX_PIXELS`."""


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
            self._image.load()  # and the chunks after the pixels
        self._sideways = orientation_of(self._image) in SIDEWAYS
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
        self._sideways = tag is not None and tag.value in SIDEWAYS

    @cached_property
    def metadata(self) -> Metadata:
        """The metadata for the result, for :func:`save`."""
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
            return finished_cmyk(image, ~pixels)  # as all programs write it
        return finished(image, pixels[..., 0] if image.mode == "L" else pixels)

    def _deep_png(self, image: Image.Image) -> Page:
        import imagecodecs

        pixels = imagecodecs.png_decode(self._bytes())
        return finished(image, *split_alpha(pixels, pixels.ndim == 3 and pixels.shape[2] % 2 == 0))

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
        UnknownType: not a picture of a readable type.
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


# The usual endings of Pillow's types, if they differ from the type's name.
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
    """The picture in a file, by its content and not its ending.

    Args:
        path: the file.
        content: its bytes, if they have been read already.
        whole: also refuse a damaged or truncated JPEG; otherwise its readable part is used, with a warning.

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
    """Turns all errors of decoders into :class:`Unreadable`."""
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
        values = of_lab(values, page.bitspersample, photometric == _ICCLAB)
    elif values.dtype == bool:
        values = values.astype(np.uint8) * 255
    elif page.bitspersample == 8 and values.dtype.itemsize == 1:
        values = values.view(np.uint8)  # signed ones, too, as Pillow shows them
    else:
        values = to_uint16(values, page.bitspersample)
    extra = [int(e) for e in page.extrasamples]
    alpha = None
    if values.ndim == 3:
        if channels > colours and extra and extra[0] in (1, 2):
            alpha = np.ascontiguousarray(values[..., colours])
        values = np.ascontiguousarray(values[..., 0] if colours == 1 else values[..., :colours])
    if alpha is not None and extra[0] == 1:  # colours are stored multiplied by alpha
        values = by_strips(unassociated, values.shape, values.dtype, values, alpha)
    profile = bytes(page.iccprofile) if page.iccprofile else None
    if photometric == _MINISWHITE:
        values = ~values
    elif photometric == _PALETTE:
        table = np.moveaxis(page.colormap, 0, -1)  # 16 bits
        values = (table >> 8).astype(np.uint8)[values] if values.dtype == np.uint8 else table[values]
    if photometric == _CMYK:
        values = rgb_of_cmyk(values, profile)
    elif photometric not in (_CIELAB, _ICCLAB):  # 6: YCbCr, which tifffile has converted
        values = to_srgb(values, profile)
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    return Page(make_upright(values, orientation), None if alpha is None else make_upright(alpha, orientation))


# Colour


# Writing
