"""Picture files in and out, each checked by another library than the one that reads or writes it."""

from __future__ import annotations

import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import pyexiv2
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from skimage.color import rgb2lab

from colorization import Colorizer
from colorization.core.errors import InputError
from colorization.data.datamodules import sample_photo
from colorization.data.photos import read_rgb
from colorization.files import photofiles, pictures, writing
from colorization.files.metadata import Metadata
from colorization.files.pixels import Page, Unreadable
from colorization.files.writing import Output

DISCLOSURE = "colorized by software, weights 0123abcd"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(60, 84, 3) uint8."""
    return np.ascontiguousarray(sample_photo("skimage/astronaut")[60:120, 190:274])


@pytest.fixture(scope="module")
def deep(photo: np.ndarray) -> np.ndarray:
    """(60, 84, 3) uint16 with all bits in use."""
    noise = np.random.default_rng(0).integers(0, 256, photo.shape, np.uint16)
    return photo.astype(np.uint16) * 256 + noise


def read(path: Path) -> Page:
    with pictures.open_picture(path) as picture:
        (page,) = picture
    return page


def through(source: Path, target: Path, disclosure: str | None = None, output: Output = Output()) -> Path:  # noqa: B008
    """A file, read and written again."""
    with pictures.open_picture(source) as picture:
        writing.save(target, picture, picture.metadata, output, disclosure)
    return target


def deviation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).mean())


# What is read


def pillow(mode: str, **options: object) -> Callable:
    return lambda path, photo, deep: Image.fromarray(photo).convert(mode).save(path, **options)


def tiff(values: Callable, **options: object) -> Callable:
    return lambda path, photo, deep: tifffile.imwrite(path, values(photo, deep), metadata=None, **options)


def rgb(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return photo


def rgb16(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return deep


def grey(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).convert("L"))


def grey16(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return deep[..., 1]


def bilevel(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).convert("1")).astype(np.uint8) * 255


def palette(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).convert("P").convert("RGB"))


def cmyk(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).convert("CMYK").convert("RGB"))


def planes(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return deep.transpose(2, 0, 1)


def twelve_bits(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return (deep[..., 1] >> 4) * (65535 / 4095)


def inks(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return np.dstack((65535 - deep, 0 * deep[..., :1]))


def to_255(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    return (deep / 257).astype(np.float32)


def linear_png(path: Path, photo: np.ndarray, deep: np.ndarray) -> None:
    """PNG whose codes are the light itself, as its gAMA chunk says."""
    light = np.where(deep <= 0.04045 * 65535, deep / 65535 / 12.92, ((deep / 65535 + 0.055) / 1.055) ** 2.4)
    cv2.imwrite(str(path), np.rint(light * 65535).astype(np.uint16)[..., ::-1])
    content, chunk = path.read_bytes(), b"gAMA" + struct.pack(">I", 100_000)
    chunk = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])  # after IHDR


def lab(bits: int, shifted: bool) -> Callable:
    """CIELAB by Pillow (Little CMS), stored as TIFF 6 says, or shifted by half of the range as some programs do."""

    def make(path: Path, photo: np.ndarray, deep: np.ndarray) -> None:
        values = np.asarray(Image.fromarray(photo).convert("LAB")).astype(np.int32)  # L* of 255, a* + 128, b* + 128
        values[..., 1:] -= 0 if shifted else 128
        values[..., 0] *= 257 if bits == 16 else 1
        values[..., 1:] *= 256 if bits == 16 else 1
        stored = values.astype(np.int32).astype(f"u{bits // 8}")
        tifffile.imwrite(path, stored, photometric="cielab", metadata=None)

    return make


def thumbnail_first(path: Path, photo: np.ndarray, deep: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(photo[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(photo, photometric="rgb", compression="lzw", metadata=None)


def with_profile(suffix: str) -> Callable:
    def make(path: Path, photo: np.ndarray, deep: np.ndarray) -> None:
        options = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
        Image.fromarray(photo).save(path, icc_profile=bytes(imagecodecs.cms_profile("adobergb")), **options)

    return make


def from_adobe(photo: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """Little CMS by Pillow."""
    adobe = ImageCms.ImageCmsProfile(io.BytesIO(bytes(imagecodecs.cms_profile("adobergb"))))
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    made = ImageCms.profileToProfile(
        Image.fromarray(photo), adobe, ImageCms.createProfile("sRGB"), renderingIntent=1, flags=flags
    )
    return np.asarray(made)


def sideways(path: Path, photo: np.ndarray, deep: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save(path, exif=exif, quality=98, subsampling=0)


def heif(quality: int) -> Callable:
    return lambda path, photo, deep: pillow_heif.from_bytes("RGB", photo.shape[1::-1], photo.tobytes()).save(
        path, quality=quality
    )


def opencv(values: Callable) -> Callable:
    return lambda path, photo, deep: cv2.imwrite(str(path), values(photo, deep)[..., ::-1])


# name: how it is made, what is to be read, mean deviation that is allowed (of the codes; 0 is to the bit)
INPUTS: dict[str, tuple[str, Callable, Callable, float]] = {
    "1": ("a.png", pillow("1"), bilevel, 0),
    "1, fax": ("a.tif", pillow("1", compression="group4"), bilevel, 0),
    "L": ("a.png", pillow("L"), grey, 0),
    "L, jpeg": ("a.jpg", pillow("L", quality=98), grey, 1),
    "P": ("a.png", pillow("P"), palette, 0),
    "P, tiff": ("a.tif", pillow("P"), palette, 0),
    "RGB": ("a.png", pillow("RGB"), rgb, 0),
    "CMYK, tiff": ("a.tif", pillow("CMYK"), cmyk, 1),
    "CMYK, Adobe jpeg": ("a.jpg", pillow("CMYK", quality=98), cmyk, 3),
    "jpeg": ("a.jpg", pillow("RGB", quality=98), rgb, 3),
    "progressive jpeg": ("a.jpg", pillow("RGB", quality=98, progressive=True), rgb, 3),
    "jpeg without YCbCr": ("a.jpg", pillow("RGB", quality=98, keep_rgb=True), rgb, 2),
    "webp": ("a.webp", pillow("RGB", lossless=True), rgb, 0),
    "bmp": ("a.bmp", pillow("RGB"), rgb, 0),
    "gif": ("a.gif", pillow("P"), palette, 0),
    "jpeg 2000": ("a.jp2", pillow("RGB"), rgb, 0),
    "avif": ("a.avif", pillow("RGB", quality=98), rgb, 4),
    "heif": ("a.heic", heif(98), rgb, 4),
    "I;16": ("a.png", lambda path, photo, deep: cv2.imwrite(str(path), deep[..., 1]), grey16, 0),
    "16-bit RGB png": ("a.png", opencv(rgb16), rgb16, 0),
    "I;16 tiff": ("a.tif", tiff(grey16), grey16, 0),
    "I;16B tiff": ("a.tif", tiff(grey16, byteorder=">"), grey16, 0),
    "16-bit tiff": ("a.tif", tiff(rgb16, photometric="rgb"), rgb16, 0),
    "16-bit tiff, OpenCV": ("a.tif", opencv(rgb16), rgb16, 0),
    "16-bit tiff, LZW": ("a.tif", tiff(rgb16, photometric="rgb", compression="lzw", predictor=True), rgb16, 0),
    "16-bit tiff, tiles": ("a.tif", tiff(rgb16, photometric="rgb", compression="zlib", tile=(16, 32)), rgb16, 0),
    "16-bit tiff, planes": ("a.tif", tiff(planes, photometric="rgb", planarconfig="separate"), rgb16, 0),
    "16-bit BigTIFF": ("a.tif", tiff(rgb16, photometric="rgb", bigtiff=True), rgb16, 0),
    "WebP in TIFF": ("a.tif", tiff(rgb, photometric="rgb", compression="webp", compressionargs={"level": -1}), rgb, 0),
    "JPEG 2000 in TIFF": ("a.tif", tiff(rgb, photometric="rgb", compression="jpeg2000"), rgb, 0),
    "white is zero, 8 bits": ("a.tif", tiff(lambda p, d: 255 - grey(p, d), photometric="miniswhite"), grey, 0),
    "white is zero": ("a.tif", tiff(lambda p, d: 65535 - d[..., 1], photometric="miniswhite"), grey16, 0),
    "signed, as Pillow shows it": ("a.tif", tiff(lambda p, d: grey(p, d).view(np.int8)), grey, 0),
    "8-bit CIELAB": ("a.tif", lab(8, shifted=False), rgb, 2),
    "16-bit CIELAB": ("a.tif", lab(16, shifted=False), rgb16, 600),
    "16-bit CIELAB, shifted": ("a.tif", lab(16, shifted=True), rgb16, 600),
    "a thumbnail first": ("a.tif", thumbnail_first, rgb, 0),
    "linear png": ("a.png", linear_png, rgb16, 8),
    "Adobe RGB": ("a.png", with_profile("png"), from_adobe, 0.5),
    "Adobe RGB, jpeg": ("a.jpg", with_profile("jpg"), from_adobe, 3),
    "held upright": ("a.jpg", sideways, lambda p, d: np.rot90(p, -1), 3),
    "12 bits": ("a.tif", tiff(lambda p, d: d[..., 1] >> 4, bitspersample=12), twelve_bits, 0.5),
    "16-bit CMYK": ("a.tif", tiff(inks, photometric="separated"), rgb16, 0),
    "float": ("a.tif", tiff(lambda p, d: (d / 65535).astype(np.float32), photometric="rgb"), rgb16, 0),
    "float, grey": ("a.tif", tiff(lambda p, d: d[..., 1] / 65535), grey16, 0),
    "float to 255": ("a.tif", tiff(to_255, photometric="rgb"), lambda p, d: d / d.max() * 65535.0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_every_kind_of_file_is_read(name: str, photo: np.ndarray, deep: np.ndarray, tmp_path: Path) -> None:
    file, make, expected, allowed = INPUTS[name]
    make(tmp_path / file, photo, deep)
    page, truth = read(tmp_path / file), np.asarray(expected(photo, deep))
    assert page.pixels.shape == truth.shape
    assert page.pixels.dtype == (np.uint8 if truth.dtype == np.uint8 else np.uint16)
    assert page.alpha is None
    assert deviation(page.pixels, truth) <= allowed
    assert np.abs(page.pixels.astype(float) - truth).max() <= 40 * allowed
    # Training and evaluation see the same at 8 bits; so does their scan, but for its size.
    seen = np.rint(page.pixels / 257) if page.pixels.dtype == np.uint16 else page.pixels
    seen = seen if seen.ndim == 3 else np.stack([seen] * 3, -1)
    assert np.array_equal(read_rgb(tmp_path / file), seen)
    assert np.array_equal(read_rgb("elsewhere", (tmp_path / file).read_bytes()), seen)
    with pictures.open_picture(tmp_path / file) as picture:
        size, small = picture.overview(24)
    assert size == truth.shape[:2]
    assert small.mean((0, 1)) == pytest.approx(seen.mean((0, 1)), abs=3)


def circle(photo: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    return ((np.hypot(y - 30, x - 40) * 8).clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize(
    "kind", ["LA.png", "RGBA.png", "RGBA.webp", "RGBA.tif", "LA.tif", "RGBA16.png", "RGBA16.tif", "LA16.tif"]
)
def test_alpha_is_read_and_kept(kind: str, photo: np.ndarray, deep: np.ndarray, tmp_path: Path) -> None:
    mode, suffix = kind.split(".")
    source, alpha = tmp_path / f"a.{suffix}", circle(photo)
    if mode.endswith("16"):
        alpha = alpha.astype(np.uint16) * 257
        colour = deep if mode.startswith("RGB") else deep[..., 1:2]
        values = np.dstack((colour, alpha))
        if suffix == "png":
            cv2.imwrite(str(source), values[..., [2, 1, 0, 3]])
        else:
            photometric = "rgb" if mode.startswith("RGB") else "minisblack"
            tifffile.imwrite(
                source, values, photometric=photometric, planarconfig="contig", extrasamples=["unassalpha"]
            )
    else:
        colour = photo if mode == "RGBA" else grey(photo, deep)[..., None]
        Image.fromarray(np.dstack((colour, alpha)), mode).save(
            source, **({"lossless": True, "exact": True} if suffix == "webp" else {})
        )
    page = read(source)
    assert page.alpha is not None
    assert np.array_equal(page.alpha, alpha)
    assert np.array_equal(page.pixels, colour.squeeze())
    target = through(source, tmp_path / f"b.{suffix}")
    again = tifffile.imread(target) if suffix == "tif" else cv2.imread(str(target), cv2.IMREAD_UNCHANGED)
    assert again.dtype == alpha.dtype
    assert np.array_equal(again[..., 3], alpha)
    on_white = np.asarray(Image.open(through(source, tmp_path / "c.jpg", output=Output(quality=100))))
    cover = alpha[..., None] / np.iinfo(alpha.dtype).max
    truth = cover * (colour / (257 if mode.endswith("16") else 1)) + (1 - cover) * 255
    assert deviation(on_white, np.broadcast_to(truth, photo.shape)) < 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1", "I;16"])
def test_a_transparent_colour_of_png_becomes_alpha(
    mode: str, photo: np.ndarray, deep: np.ndarray, tmp_path: Path
) -> None:
    values = np.zeros((8, 8, 3), np.uint8)
    values[2:5] = 255
    image = Image.fromarray(values).convert("P" if mode == "P" else "L" if mode == "I;16" else mode)
    transparency = {"P": image.convert("P").getpixel((0, 3)), "L": 255, "RGB": (255, 255, 255), "1": 1, "I;16": 65535}[
        mode
    ]
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    image.save(tmp_path / "a.png", transparency=transparency)
    # OpenCV, another reader: 4 channels where there is transparency
    reference = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    page = read(tmp_path / "a.png")
    assert page.alpha is not None
    assert not page.alpha[2:5].any()
    assert page.alpha[:2].all()
    assert page.alpha[5:].all()
    if reference.ndim == 3 and reference.shape[2] == 4:
        assert np.array_equal(page.alpha > 0, reference[..., 3] > 0)


def test_associated_alpha_is_undone(deep: np.ndarray, tmp_path: Path) -> None:
    alpha = np.full(deep.shape[:2], 32768, np.uint16)
    values = np.dstack(((deep * (32768 / 65535)).round().astype(np.uint16), alpha))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read(tmp_path / "a.tif").pixels.astype(int) - deep).max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_read_and_that_is_told(
    suffix: str, photo: np.ndarray, tmp_path: Path, caplog
) -> None:
    first, second = (Image.fromarray(p).convert("P").convert("RGB") for p in (photo, 255 - photo))
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second, first], **options)
    assert np.array_equal(read(tmp_path / f"a.{suffix}").pixels, np.asarray(first))
    assert caplog.messages == [f"{tmp_path}/a.{suffix}: first of 3 frames"]


def test_every_page_of_a_tiff_comes_one_by_one(photo: np.ndarray, deep: np.ndarray, tmp_path: Path) -> None:
    """8 and 16 bits, grey and colour, of several sizes; but no reduced copy."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(photo, photometric="rgb", compression="lzw", metadata=None)
        writer.write(photo[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(deep[:20], photometric="rgb", metadata=None)
        writer.write(photo[..., 0], metadata=None)
    with pictures.open_picture(tmp_path / "a.tif") as picture:
        assert picture.metadata.pages == 3
        pages = iter(picture)
        assert np.array_equal(next(pages).pixels, photo)
        assert np.array_equal(next(pages).pixels, deep[:20])
        assert np.array_equal(next(pages).pixels, photo[..., 0])
        assert next(pages, None) is None
    with tifffile.TiffFile(through(tmp_path / "a.tif", tmp_path / "b.tif")) as result:
        assert [(p.shape, p.dtype) for p in result.pages] == [
            (photo.shape, np.uint8),
            (deep[:20].shape, np.uint16),
            (photo.shape, np.uint8),
        ]
        assert np.array_equal(result.pages[1].asarray(), deep[:20])
    with pytest.raises(OSError, match="jpeg holds one page, and this file has 3"):
        through(tmp_path / "a.tif", tmp_path / "b.jpg")
    assert not (tmp_path / "b.jpg").exists()


def test_the_true_type_decides(photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    with pictures.open_picture(tmp_path / "a.jpg") as picture:
        assert picture.format == "PNG"
        assert np.array_equal(next(iter(picture)).pixels, photo)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.jpg", "a.png", "a.webp", "a.tif", "deep.tif", "xmp.jpg"])
def test_orientation_is_applied_once_and_reset(
    kind: str, orientation: int, photo: np.ndarray, deep: np.ndarray, tmp_path: Path
) -> None:
    source, target = tmp_path / kind, tmp_path / f"out{Path(kind).suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'  # noqa: E501
    if kind == "deep.tif":
        tifffile.imwrite(source, deep, photometric="rgb", metadata=None, extratags=[(274, 3, 1, orientation, True)])
    elif kind == "xmp.jpg":
        Image.fromarray(photo).save(source, quality=100, subsampling=0, xmp=xmp.encode())
    else:
        options = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}.get(kind, {})
        Image.fromarray(photo).save(source, exif=exif, **options)
    tagged = Image.fromarray(photo)
    tagged.getexif()[0x0112] = orientation
    truth = np.asarray(ImageOps.exif_transpose(tagged))
    if kind == "deep.tif":
        assert np.array_equal(read(source).pixels >> 8, truth)
    else:
        assert deviation(read(source).pixels, truth) < 1.5
    through(source, target, DISCLOSURE)
    with pyexiv2.Image(str(target)) as result:
        assert result.read_exif().get("Exif.Image.Orientation", "1") == "1"
        assert result.read_xmp().get("Xmp.tiff.Orientation", "1") == "1"
    assert deviation(read(target).pixels, read(source).pixels) < 4


# Colour profiles


def srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055)


def adobe_as_srgb(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adobe RGB (1998) in [0, 1] as sRGB in [0, 1], and where sRGB has the colour; by the standards' matrices."""
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    of_srgb = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    linear = values ** (563 / 256) @ to_xyz.T @ np.linalg.inv(of_srgb).T
    return srgb(linear.clip(0, 1)), ((linear >= 0) & (linear <= 1)).all(-1)


def test_a_wide_profile_is_converted(photo: np.ndarray, deep: np.ndarray, tmp_path: Path) -> None:
    profile = bytes(imagecodecs.cms_profile("adobergb"))
    Image.fromarray(photo).save(tmp_path / "a.png", icc_profile=profile)
    truth, inside = adobe_as_srgb(photo / 255)
    assert np.abs(read(tmp_path / "a.png").pixels / 255 - truth)[inside].max() < 1.5 / 255
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", iccprofile=profile)
    truth, inside = adobe_as_srgb(deep / 65535)
    assert np.abs(read(tmp_path / "a.tif").pixels / 65535 - truth)[inside].max() < 80 / 65535


def test_a_deep_ramp_has_no_bands_after_a_profile(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 4000).round().astype(np.uint16)[None, :, None], 3, 2).repeat(4, 0)
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="rgb", iccprofile=bytes(imagecodecs.cms_profile("adobergb")))
    steps = np.diff(read(tmp_path / "a.tif").pixels[0, 40:, 1].astype(int))
    assert steps.min() >= 0
    assert len(np.unique(read(tmp_path / "a.tif").pixels[0, :, 1])) > 3900
    target = through(tmp_path / "a.tif", tmp_path / "b.png")
    assert len(np.unique(cv2.imread(str(target), cv2.IMREAD_UNCHANGED)[0, :, 1])) > 3900


def cmyk_profile() -> bytes:
    """A printer's ICC profile (ICC.1:2001, lut8): Lab colours of the 16 full overprints, linear between them."""
    nodes = bytearray()
    for c, m, y, k in np.ndindex(2, 2, 2, 2):  # the last ink varies fastest
        paper = np.array([255, 128, 128]) - c * np.array([70, 30, 50]) - m * np.array([90, -70, 0])
        lab = (paper - y * np.array([15, 5, -80])) * (1 - k) + k * np.array([10, 128, 128])
        nodes += bytes(lab.clip(0, 255).astype(np.uint8))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(nodes) + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table += bytes(-len(table) % 4)
    tags = struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", 156, len(table))
    tags += b"wtpt" + struct.pack(">II", 156 + len(table), len(white))
    head = struct.pack(">I", 156 + len(table) + len(white)) + bytes(4) + bytes.fromhex("02400000") + b"prtrCMYKLab "
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + table + white


@pytest.mark.parametrize("kind", ["a.jpg", "a.tif", "deep.tif"])
def test_a_cmyk_profile_is_converted(kind: str, photo: np.ndarray, tmp_path: Path) -> None:
    inks = np.zeros((48, 64, 4), np.uint8)
    inks[:16], inks[16:32, :, 0], inks[32:, :, 3] = 0, 255, np.arange(0, 256, 4)
    image, profile = Image.fromarray(inks, "CMYK"), cmyk_profile()
    if kind == "deep.tif":
        values = inks.astype(np.uint16) * 257
        tifffile.imwrite(tmp_path / kind, values, photometric="separated", iccprofile=profile, metadata=None)
    else:
        image.save(tmp_path / kind, icc_profile=profile, **({"quality": 100} if kind == "a.jpg" else {}))
    pixels = read(tmp_path / kind).pixels / (257 if kind == "deep.tif" else 1)
    truth = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert np.abs(pixels - np.asarray(truth)).max() < (8 if kind == "a.jpg" else 2)
    white, cyan, black = pixels[4, 4], pixels[24, 4], pixels[44, 63]
    assert white.min() > 200
    assert cyan[2] > cyan[0] + 50
    assert black.max() < 20


@pytest.mark.parametrize("depth", [8, 16])
def test_a_grey_profile_is_converted_and_the_page_stays_grey(
    depth: int, photo: np.ndarray, deep: np.ndarray, tmp_path: Path
) -> None:
    values, top = (photo[..., 1], 255) if depth == 8 else (deep[..., 1], 65535)
    profile = bytes(imagecodecs.cms_profile("gray", gamma=1.8))
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", iccprofile=profile)
    page = read(tmp_path / "a.tif")
    assert page.pixels.shape == values.shape
    assert np.abs(page.pixels - srgb((values / top) ** 1.8) * top).max() <= (1 if depth == 8 else 40)


def test_an_rgb_profile_of_a_grey_jpeg_is_converted(photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo[..., 1]).save(tmp_path / "a.jpg", icc_profile=bytes(imagecodecs.cms_profile("adobergb")))
    before = np.asarray(Image.open(tmp_path / "a.jpg"))
    page = read(tmp_path / "a.jpg")
    assert page.pixels.ndim == 2
    assert np.abs(page.pixels - srgb((before / 255) ** (563 / 256)) * 255).max() <= 1


@pytest.mark.parametrize("name", ["srgb", "damaged", "of other colours"])
def test_a_profile_that_is_srgb_or_of_no_use_changes_nothing(
    name: str, photo: np.ndarray, tmp_path: Path, caplog
) -> None:
    profile = (
        bytes(imagecodecs.cms_profile("gray", gamma=2.2))
        if name == "of other colours"
        else bytes(imagecodecs.cms_profile("srgb"))
    )
    if name == "damaged":
        profile = profile[:200]
    Image.fromarray(photo).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(read(tmp_path / "a.png").pixels, photo)
    assert [str(tmp_path / "a.png") in message for message in caplog.messages] == [True] * (name != "srgb")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_result_has_the_profile_of_srgb(suffix: str, photo: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", photo[..., 1], iccprofile=bytes(imagecodecs.cms_profile("gray", gamma=1.8)))
    target = through(tmp_path / "a.tif", tmp_path / f"b.{suffix}")
    with Image.open(target) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        shown = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert np.abs(np.asarray(shown).astype(int) - np.asarray(image)).max() <= 1


# Metadata

EXIF = {
    "Exif.Image.ImageDescription": "Köln, Hauptbahnhof",
    "Exif.Image.Artist": "Zoë Åkesson",
    "Exif.Image.Copyright": "Stadtarchiv",
    "Exif.Image.Software": "ScanTool 3",
    "Exif.Photo.DateTimeOriginal": "1921:05:04 10:00:00",
    "Exif.Photo.ExposureTime": "1/60",
    "Exif.Photo.ExposureBiasValue": "-1/3",
    "Exif.Photo.LensModel": "Tessar",
    "Exif.GPSInfo.GPSLatitudeRef": "N",
    "Exif.GPSInfo.GPSLatitude": "50/1 56/1 35/1",
}
IPTC = {
    "Iptc.Envelope.CharacterSet": "\x1b%G",
    "Iptc.Application2.Caption": "Der Bahnhof, später zerstört",
    "Iptc.Application2.Keywords": ["Bahnhof", "Köln"],
    "Iptc.Application2.Byline": ["Zoë Åkesson"],
}
XMP = {
    "Xmp.dc.creator": ["Zoë Åkesson"],
    "Xmp.dc.subject": ["Bahnhof", "Köln"],
    "Xmp.xmp.CreatorTool": "ScanTool 3",
    "Xmp.iptcExt.DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/print",
    "Xmp.photoshop.City": "Köln",
}


def described(path: Path, photo: np.ndarray, iptc: bool = True) -> Path:
    """A file with everything, written by Exiv2."""
    Image.fromarray(photo).save(path, dpi=(300, 300))
    with pyexiv2.Image(str(path)) as image:
        image.modify_exif(EXIF)
        image.modify_xmp(XMP)
        if iptc:
            image.modify_iptc(IPTC)
    return path


@pytest.mark.parametrize("target", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("source", ["jpg", "png", "webp", "tif"])
def test_metadata_goes_over(source: str, target: str, photo: np.ndarray, tmp_path: Path) -> None:
    has_iptc = source != "webp"
    result = through(described(tmp_path / f"a.{source}", photo, has_iptc), tmp_path / f"b.{target}")
    with pyexiv2.Image(str(result)) as image:
        exif, xmp, iptc = image.read_exif(), image.read_xmp(), image.read_iptc()
    assert {k: exif.get(k) for k in EXIF} == EXIF
    assert {k: xmp.get(k) for k in XMP} == XMP
    if has_iptc and target != "webp":
        assert {k: iptc.get(k) for k in IPTC} == IPTC
    with Image.open(result) as image:
        if source != "webp" and target != "webp":
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        elif source != "webp":
            assert image.getexif()[0x011A] == pytest.approx(300, abs=0.1)


def test_metadata_of_a_deep_picture_goes_over(deep: np.ndarray, tmp_path: Path) -> None:
    """TIFF to PNG to BigEndian TIFF, at 16 bits."""
    tifffile.imwrite(
        tmp_path / "a.tif",
        deep,
        photometric="rgb",
        resolution=(600, 600),
        resolutionunit="INCH",
        byteorder=">",
        metadata=None,
        software="ScanTool 3",
    )
    with pyexiv2.Image(str(tmp_path / "a.tif")) as image:
        image.modify_exif(EXIF)
        image.modify_iptc(IPTC)
    for name in ("b.png", "c.tif"):
        through(tmp_path / "a.tif", tmp_path / name)
        with pyexiv2.Image(str(tmp_path / name)) as image:
            exif, iptc = image.read_exif(), image.read_iptc()
        assert {k: exif.get(k) for k in EXIF} == EXIF
        assert {k: iptc.get(k) for k in IPTC} == IPTC
        with Image.open(tmp_path / name) as opened:
            assert opened.info["dpi"] == pytest.approx((600, 600), abs=0.1)
        written = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(written[..., ::-1], deep)


def test_a_resolution_that_is_not_known_is_not_invented(photo: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "no resolution"
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(through(tmp_path / "a.jpg", tmp_path / "b.png")) as image:
        assert "dpi" not in image.info


def test_the_size_in_exif_turns_with_the_picture_and_the_thumbnail_goes(photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.jpg")
    thumbnail = io.BytesIO()
    Image.fromarray(photo[::4, ::4]).save(thumbnail, "JPEG")
    with pyexiv2.Image(str(tmp_path / "a.jpg")) as image:
        image.modify_exif(
            {"Exif.Image.Orientation": "6", "Exif.Photo.PixelXDimension": "84", "Exif.Photo.PixelYDimension": "60"}
        )
        image.modify_thumbnail(thumbnail.getvalue())
        assert image.read_thumbnail()
    assert read(tmp_path / "a.jpg").pixels.shape == (84, 60, 3)  # and the thumbnail's end is not the file's
    with pyexiv2.Image(str(through(tmp_path / "a.jpg", tmp_path / "b.jpg"))) as image:
        exif = image.read_exif()
        assert (exif["Exif.Photo.PixelXDimension"], exif["Exif.Photo.PixelYDimension"]) == ("60", "84")
        assert not image.read_thumbnail()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_disclosure_is_added_to_what_is_there(suffix: str, photo: np.ndarray, tmp_path: Path) -> None:
    source = described(tmp_path / f"a.{suffix}", photo, suffix != "webp")
    result = through(source, tmp_path / f"b.{suffix}", DISCLOSURE)
    with pyexiv2.Image(str(result)) as image:
        exif, xmp = image.read_exif(), image.read_xmp()
    assert exif["Exif.Image.Software"] == f"ScanTool 3; {DISCLOSURE}"
    assert xmp["Xmp.iptcExt.DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert xmp["Xmp.iptcExt.AISystemUsed"] == DISCLOSURE
    assert xmp["Xmp.xmpMM.History[1]/stEvt:softwareAgent"] == DISCLOSURE
    assert xmp["Xmp.xmpMM.History[1]/stEvt:parameters"].endswith("/digitalsourcetype/print")
    kept = set(XMP) - {"Xmp.iptcExt.DigitalSourceType"}
    assert {k: xmp.get(k) for k in kept} == {k: XMP[k] for k in kept}
    assert {k: exif.get(k) for k in EXIF if k != "Exif.Image.Software"} == {
        k: v for k, v in EXIF.items() if k != "Exif.Image.Software"
    }


def test_a_history_goes_on_and_a_second_disclosure_does_not_double(photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "a.jpg")
    first = through(tmp_path / "a.jpg", tmp_path / "b.jpg", DISCLOSURE)
    with pyexiv2.Image(str(through(first, tmp_path / "c.jpg", DISCLOSURE))) as image:
        exif, xmp = image.read_exif(), image.read_xmp()
    assert exif["Exif.Image.Software"] == DISCLOSURE
    assert [k for k in xmp if k.endswith("softwareAgent")] == [
        f"Xmp.xmpMM.History[{i}]/stEvt:softwareAgent" for i in (1, 2)
    ]
    with pyexiv2.Image(str(through(tmp_path / "a.jpg", tmp_path / "d.jpg"))) as image:
        assert not image.read_xmp()


def test_what_a_jpeg_cannot_hold_is_left_out_with_a_warning(photo: np.ndarray, tmp_path: Path, caplog) -> None:
    exif = Image.Exif()
    exif[0x010E] = "kept"
    exif.get_ifd(0x8769)[0x927C] = b"x" * 70_000  # a maker note
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    with pyexiv2.Image(str(through(tmp_path / "a.png", tmp_path / "b.jpg"))) as image:
        assert image.read_exif()["Exif.Image.ImageDescription"] == "kept"
        assert "Exif.Photo.MakerNote" not in image.read_exif()
    assert "65527" in caplog.text


# Deeper than a parser goes that calls itself for each element.
DEEP_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">%s%s</x:xmpmeta>' % (b"<Orientation>" * 2000, b"</Orientation>" * 2000)


@pytest.mark.parametrize(
    ("exif", "xmp"),
    [
        (b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b""),
        (b"", b"<x:xmpmeta><broken"),
        (b"", DEEP_XMP),
        (b"", DEEP_XMP.replace(b"Orientation", b"o")),
    ],
)
def test_damaged_metadata_does_not_cost_the_picture(
    exif: bytes, xmp: bytes, photo: np.ndarray, tmp_path: Path, caplog
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif, xmp=xmp)
    with pyexiv2.Image(str(through(tmp_path / "a.jpg", tmp_path / "b.jpg", DISCLOSURE))) as image:
        assert image.read_xmp()["Xmp.iptcExt.AISystemUsed"] == DISCLOSURE
    assert all(str(tmp_path) in m and "damaged and left out" in m for m in caplog.messages) and caplog.messages


# What is written


def test_jpeg_keeps_the_full_resolution_of_the_colours(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = 200
    stripes[:, 1::2, 2] = 200
    writing.save(tmp_path / "a.jpg", [Page(stripes)], None, Output(quality=95), None)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)  # type: ignore[attr-defined]
        assert deviation(np.asarray(image), stripes) < 6


def test_quality_makes_a_difference(photo: np.ndarray, tmp_path: Path) -> None:
    for suffix in ("jpg", "webp"):
        for quality in (40, 95):
            writing.save(tmp_path / f"{quality}.{suffix}", [Page(photo)], None, Output(quality=quality), None)
        assert (tmp_path / f"40.{suffix}").stat().st_size < 0.6 * (tmp_path / f"95.{suffix}").stat().st_size


@pytest.mark.parametrize(("source", "kind", "suffix"), [
    ("a.JPG", "same", ".JPG"), ("a.tif", "same", ".tif"), ("a.gif", "same", ".png"), ("a.BMP", "same", ".png"),
    ("a.heic", "same", ".jpg"), ("a.jp2", "same", ".png"), ("a.jpeg", "jpeg", ".jpeg"), ("a.tif", "png", ".png"),
    ("a.b.png", "tiff", ".tif"),
])  # fmt: skip
def test_the_ending_of_a_result(source: str, kind: str, suffix: str) -> None:
    assert writing.target_suffix(source, kind) == suffix


def test_every_ending_that_a_folder_run_takes_has_a_result() -> None:
    written = {s for suffixes in photofiles.TYPES.values() for s in suffixes}
    assert {writing.target_suffix(f"a{e}") for e in photofiles.EXTENSIONS} <= written


def test_writing_twice_gives_the_same_bytes(deep: np.ndarray, photo: np.ndarray, tmp_path: Path) -> None:
    """Also in another process, at another time."""
    source = described(tmp_path / "a.tif", photo)
    for suffix in ("jpg", "png", "webp", "tif"):
        through(source, tmp_path / f"b.{suffix}", DISCLOSURE)
    program = f"""
import sys
from pathlib import Path
from colorization import Colorizer
from colorization.files import pictures, writing
for suffix in ("jpg", "png", "webp", "tif"):
    with pictures.open_picture(sys.argv[1]) as picture:
        writing.save(Path(sys.argv[2] + suffix), picture, picture.metadata, writing.Output(), {DISCLOSURE!r})
"""
    subprocess.run([sys.executable, "-c", program, source, f"{tmp_path}/c."], check=True)
    for suffix in ("jpg", "png", "webp", "tif"):
        assert (tmp_path / f"b.{suffix}").read_bytes() == (tmp_path / f"c.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("a.webp", (1, 16384), "16383"),
        ("a.jpg", (1, 65501), "65500"),
        ("a.png", (1, 1_000_001), "1000000.*write tiff$"),
    ],
)
def test_a_picture_that_the_type_cannot_hold(name: str, shape: tuple[int, int], words: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=words):
        writing.save(tmp_path / name, [Page(np.zeros((*shape, 3), np.uint8))], None, Output(), None)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_how_to_write_is_one_sentence(photo: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quality=0"):
        Output(quality=0)
    with pytest.raises(InputError, match="type=gif"):
        Output(type="gif")
    with pytest.raises(InputError, match="jpeg, png, webp, tiff"):
        writing.save(tmp_path / "a.gif", [Page(photo)], None, Output(), None)


# Odd files


def png_of(width: int, height: int) -> bytes:
    """A small valid PNG file that claims this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


ODD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"This is no photograph.\n" * 40, "no picture of a known type"),
    "bomb": (png_of(50_000, 50_000), "claims more than 300 megapixels"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no picture of a known type"),
    "only a beginning": (b"\xff\xd8\xff\xe0", "no picture of a known type"),
    "empty tiff": (b"II*\0\0\0\0\0", "damaged"),
    "a page after itself": (b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0", "go round in a circle"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_is_no_picture(name: str, tmp_path: Path) -> None:
    content, words = ODD[name]
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(Unreadable, match=words) as error:
        read(tmp_path / "x.jpg")
    assert "x.jpg" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tiff_bomb(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16), metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff_:
        for tag in (256, 257):
            tiff_.pages[0].tags[tag].overwrite(50_000)
    with pytest.raises(Unreadable, match="claims more than"):
        read(tmp_path / "a.tif")


def test_a_folder_a_missing_and_a_forbidden_file(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(Unreadable, match="is a folder"):
        read(tmp_path / "x.jpg")
    with pytest.raises(Unreadable, match="no such file"):
        read(tmp_path / "y.jpg")
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "z.jpg").touch(0o000)
    with pytest.raises(Unreadable, match="permission denied"):
        read(tmp_path / "z.jpg")


@pytest.mark.parametrize("name", ["two\nlines.jpg", "🎞️ café.jpg", "a\x1b[31mred.jpg", "x" * 240 + ".jpg"])
def test_strange_names(name: str, photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / name)
    through(tmp_path / name, tmp_path / "out" / name)
    assert read(tmp_path / "out" / name).pixels.shape == photo.shape
    (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(Unreadable) as error:
        read(tmp_path / name)
    assert all(c.isprintable() for c in str(error.value).replace("\ufe0f", ""))


FILES = [
    "a.jpg",
    "p.jpg",
    "g.jpg",
    "c.jpg",
    "a.png",
    "d.png",
    "a.webp",
    "a.bmp",
    "a.gif",
    "a.jp2",
    "a.avif",
    "a.heic",
    "a.tif",
    "l.tif",
    "d.tif",
    "z.tif",
]


def make(path: Path, photo: np.ndarray, deep: np.ndarray) -> None:
    if path.name.startswith("d") and path.suffix == ".png":
        cv2.imwrite(str(path), deep)
    elif path.name[0] in "dz" and path.suffix == ".tif":
        tifffile.imwrite(
            path, deep, photometric="rgb", metadata=None, compression="zlib" if path.name[0] == "z" else None
        )
    elif path.suffix == ".heic":
        heif(90)(path, photo, deep)
    else:
        mode = {"g": "L", "c": "CMYK"}.get(path.name[0], "RGB")
        options = {"p": {"progressive": True}, "l": {"compression": "tiff_lzw"}}.get(path.name[0], {})
        Image.fromarray(photo).convert(mode).save(path, **options)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_is_refused_and_of_a_jpeg_the_rest_is_read(
    name: str, photo: np.ndarray, deep: np.ndarray, tmp_path: Path, capfd, caplog
) -> None:
    make(tmp_path / name, photo, deep)
    whole = (tmp_path / name).read_bytes()
    assert read(tmp_path / name).pixels.shape[:2] == photo.shape[:2]
    for part in (0.02, 0.1, 0.3, 0.6, 0.9, 0.97):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(Unreadable) as error:
            read_rgb(tmp_path / name)
        assert "\n" not in str(error.value)
        try:
            read(tmp_path / name)
        except Unreadable:
            continue
        assert name.endswith(".jpg") and str(tmp_path / name) in caplog.messages.pop()
    assert capfd.readouterr().err == ""  # libtiff, for one, prints


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    name: str, photo: np.ndarray, deep: np.ndarray, tmp_path: Path
) -> None:
    make(tmp_path / name, photo, deep)
    whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for round_ in range(40):
        damaged = whole.copy()
        where = rng.integers(0, len(whole) if round_ % 2 else min(400, len(whole)), 4)
        damaged[where] = rng.integers(0, 256, 4)
        (tmp_path / name).write_bytes(damaged.tobytes())
        try:
            through(tmp_path / name, tmp_path / f"out{round_}.png")
        except Unreadable as error:
            assert "\n" not in str(error)
            assert not (tmp_path / f"out{round_}.png").exists()


def test_a_page_that_cannot_be_read_leaves_no_result(photo: np.ndarray, tmp_path: Path, capfd) -> None:
    """Also where some pages of the file are written already."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(3):
            writer.write(photo, photometric="rgb", compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff_:
        start = tiff_.pages[2].dataoffsets[0]
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(start + 100)
        file.write(bytes(200))
    with pytest.raises(Unreadable):
        through(tmp_path / "a.tif", tmp_path / "out" / "a.tif")
    assert capfd.readouterr().err == ""
    assert list((tmp_path / "out").iterdir()) == []


# Places that cannot be written


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_full_disk_leaves_nothing(suffix: str, tmp_path: Path) -> None:
    """A real file system that fills up, where one can be mounted; else a limit on the size of a file."""
    noise = Page(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    small = tmp_path / "small"
    small.mkdir()
    mounted = (
        shutil.which("mount")
        and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", small], capture_output=True).returncode
        == 0
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"No space left on device|File too large") as error:
            writing.save(small / f"a.{suffix}", [noise], Metadata(), Output(), None)
        assert str(small / f"a.{suffix}") in str(error.value)
        assert list(small.iterdir()) == []
    finally:
        if mounted:
            subprocess.run(["umount", small], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_target_that_cannot_be_written_is_an_error_of_the_system(photo: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        writing.save(tmp_path / "file" / "a.jpg", [Page(photo)], None, Output(), None)
    (tmp_path / "taken.jpg").mkdir()
    with pytest.raises(OSError, match=r"taken\.jpg"):
        writing.save(tmp_path / "taken.jpg", [Page(photo)], None, Output(), None)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "taken.jpg"]


def test_a_read_only_folder(photo: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    folder.mkdir(mode=0o555)
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only a file system can stop root, and none may be mounted here")
    try:
        with pytest.raises(OSError, match=r"(Read-only file system|Permission denied): .*a\.jpg"):
            writing.save(folder / "a.jpg", [Page(photo)], None, Output(), None)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", folder], check=True)


def test_what_was_there_stays_when_writing_fails(photo: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"before")

    def pages():
        yield Page(photo)
        raise Unreadable("the second page is damaged")

    with pytest.raises(Unreadable):
        writing.save(tmp_path / "a.tif", pages(), Metadata(pages=2), Output(), None)
    assert (tmp_path / "a.tif").read_bytes() == b"before"
    assert [f.name for f in tmp_path.iterdir()] == ["a.tif"]


def test_importing_pictures_imports_no_torch() -> None:
    program = "import sys, colorization.files.pictures, colorization.files.writing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_deep_file_of_several_pages_is_colorized(deep: np.ndarray, tmp_path: Path) -> None:
    """The whole way: depth, pages, alpha, lightness and metadata are there; the colours are new."""
    alpha = circle(deep).astype(np.uint16) * 257
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(deep[..., 1], photometric="minisblack", metadata=None, resolution=(400, 400), resolutionunit=2)
        writer.write(np.dstack((deep, alpha)), photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    facts = Colorizer.load(device="cpu").colorize_file(tmp_path / "a.tif", tmp_path / "b.tif")
    assert facts["pages"] == 2
    with tifffile.TiffFile(tmp_path / "b.tif") as result:
        first, second = (page.asarray() for page in result.pages)
        assert [page.tags["XResolution"].value for page in result.pages] == [(400, 1), (400, 1)]
    assert first.dtype == second.dtype == np.uint16
    assert np.array_equal(second[..., 3], alpha)
    for before, after in ((np.repeat(deep[..., 1:2], 3, 2), first), (deep, second[..., :3])):
        assert np.abs(rgb2lab(before / 65535)[..., 0] - rgb2lab(after / 65535)[..., 0]).max() < 1
        assert np.abs(rgb2lab(after / 65535)[..., 1:]).mean() > 0.5
        assert len(np.unique(after & 255)) > 250  # the lower bits are in use
