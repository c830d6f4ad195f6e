"""The colour module against scikit-image, the published CIEDE2000 pairs and formulas written out here."""

import subprocess
import sys
import tracemalloc
import warnings

import cv2
import numpy as np
import pytest
import torch
from conftest import PATIENCE
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from colorization.core import color


def image(pixels: np.ndarray) -> np.ndarray:
    """A list of colours (N, 3) as a picture (3, 1, N)."""
    return np.ascontiguousarray(pixels.T[:, None, :])


def pixels(picture: np.ndarray | torch.Tensor) -> np.ndarray:
    """The inverse of :func:`image`, in float64."""
    return np.asarray(picture, dtype=np.float64)[:, 0, :].T


def reference_rgb(lab: np.ndarray) -> np.ndarray:
    """scikit-image's lab2rgb of (N, 3), without its warning about colours that do not exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lab2rgb(np.asarray(lab, dtype=np.float64))


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    """Every fifth 8-bit colour of the cube, and all 256 codes along each axis and along the greys: (N, 3) uint8."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    axes = [np.eye(3, dtype=int)[i] * np.arange(256)[:, None] for i in range(3)]
    offset = [a + (1 - np.eye(3, dtype=int)[i]) * np.array([97, 31, 203]) for i, a in enumerate(axes)]
    grey = np.repeat(np.arange(256)[:, None], 3, axis=1)
    return np.concatenate([grid, *axes, *offset, grey]).astype(np.uint8)


@pytest.fixture(scope="module")
def surface_lab() -> np.ndarray:
    """scikit-image's Lab of all 8-bit colours on the faces of the RGB cube, (N, 3).

    The gradient of a* (of b*) is a combination of two rows of the RGB-to-XYZ matrix that are not collinear, with
    factors that are never zero; so it has no extremum inside the cube, and the faces decide the box.
    """
    u, v = (x.ravel() for x in np.meshgrid(np.arange(256), np.arange(256)))
    faces = [np.insert(np.stack((u, v), 1), axis, edge, axis=1) for axis in range(3) for edge in (0, 255)]
    return rgb2lab(np.concatenate(faces).astype(np.uint8))


@pytest.fixture
def wild_lab() -> np.ndarray:
    """Random Lab colours, most of which sRGB does not have, (N, 3) float32."""
    rng = np.random.default_rng(1)
    return rng.uniform((0, -128, -128), (100, 128, 128), (20000, 3)).astype(np.float32)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_rgb_to_lab_is_that_of_scikit_image(codes: np.ndarray, library: str, kind: str) -> None:
    rgb = image(codes) if kind == "uint8" else (image(codes) / 255).astype(np.float32)
    lab = color.rgb_to_lab(rgb if library == "numpy" else torch.from_numpy(rgb))
    assert isinstance(lab, np.ndarray if library == "numpy" else torch.Tensor)
    assert str(lab.dtype).removeprefix("torch.") == "float32"
    assert np.abs(pixels(lab) - rgb2lab(codes)).max() <= 2e-4


def test_rgb_to_lab_takes_batches_pixel_by_pixel() -> None:
    """(B, 3, H, W) in torch gives what scikit-image gives for each picture with the channels last."""
    rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7), dtype=np.uint8)
    lab = color.rgb_to_lab(torch.from_numpy(rgb)).numpy()
    assert np.abs(lab.transpose(0, 2, 3, 1) - rgb2lab(rgb.transpose(0, 2, 3, 1))).max() <= 2e-4


def test_lists_are_refused() -> None:
    with pytest.raises(TypeError, match="list"):
        color.rgb_to_lab([[0.0]])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_round_trip_of_8_bit_colours(codes: np.ndarray, library: str) -> None:
    """RGB to Lab and back is the same colour, far within one 8-bit step."""
    rgb = image(codes) if library == "numpy" else torch.from_numpy(image(codes))
    back = pixels(color.lab_to_rgb(color.rgb_to_lab(rgb)))
    assert np.abs(back - codes / 255).max() < 1 / 255
    assert np.array_equal(np.rint(back * 255), codes)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lab_to_rgb_is_that_of_scikit_image_in_gamut_and_out(wild_lab: np.ndarray, library: str) -> None:
    lab = image(wild_lab)
    rgb = pixels(color.lab_to_rgb(lab if library == "numpy" else torch.from_numpy(lab)))
    assert rgb.min() == 0 and rgb.max() == 1  # the clip was at work
    assert np.abs(rgb - reference_rgb(wild_lab)).max() < 1e-3


def test_a_gradient_goes_through_the_conversions() -> None:
    """A loss on what is shown (a perceptual one, say) can be trained with; against finite differences."""
    lab = torch.tensor([[60.0, 20, -30], [3, 2, 1], [90, -40, 60]], dtype=torch.float32).T[:, None].requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        rgb = color.lab_to_rgb(x)
        return (rgb.square().sum() + color.rgb_to_lab(rgb).sum() / 100).double()

    (found,) = torch.autograd.grad(loss(lab), lab)
    for i in range(9):
        step = torch.zeros(9).index_fill(0, torch.tensor(i), 0.05).reshape(lab.shape)
        expected = (loss(lab.detach() + step) - loss(lab.detach() - step)) / 0.1
        assert abs(found.reshape(-1)[i] - expected) < 2e-3


def test_box_contains_every_8_bit_colour_and_is_tight(surface_lab: np.ndarray) -> None:
    for i, plane in enumerate(surface_lab.T[1:]):
        assert color.AB_MIN[i] <= plane.min() <= color.AB_MIN[i] + 0.1
        assert color.AB_MAX[i] - 0.1 <= plane.max() <= color.AB_MAX[i]


def test_inside_of_the_cube_is_in_the_box(codes: np.ndarray) -> None:
    lab = rgb2lab(codes)
    assert (lab[:, 1:] >= color.AB_MIN).all() and (lab[:, 1:] <= color.AB_MAX).all()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_squash_ab_stays_in_the_box_and_reaches_it(library: str) -> None:
    x = np.linspace(-50, 50, 2001, dtype=np.float32)[None, None].repeat(2, 0)
    ab = np.asarray(color.squash_ab(x if library == "numpy" else torch.from_numpy(x)))[:, 0] * 110
    for i in range(2):
        assert ab[i].min() == pytest.approx(color.AB_MIN[i], abs=1e-3)
        assert ab[i].max() == pytest.approx(color.AB_MAX[i], abs=1e-3)
        assert (np.diff(ab[i]) >= 0).all()
        assert ab[i][1000] == 0  # grey stays grey


def test_squash_ab_has_a_gradient_on_both_sides_of_grey() -> None:
    x = torch.tensor([-0.5, 0.0, 0.5]).expand(2, 1, 3).clone().requires_grad_()
    color.squash_ab(x).sum().backward()
    assert x.grad is not None and (x.grad > 0).all()


def test_in_gamut_agrees_with_scikit_image(wild_lab: np.ndarray) -> None:
    """A colour is in gamut where scikit-image's clipped RGB still has that colour; but for the border."""
    clipped = np.abs(rgb2lab(reference_rgb(wild_lab)) - wild_lab).max(-1)
    inside = color.in_gamut(image(wild_lab))[0]
    assert 0.05 < inside.mean() < 0.95
    assert clipped[inside].max() < 0.5
    assert clipped[~inside].min() > 1e-3


def test_fit_to_gamut_keeps_lightness_and_hue(wild_lab: np.ndarray) -> None:
    fitted = pixels(color.fit_to_gamut(image(wild_lab)))
    assert np.array_equal(fitted[:, 0], wild_lab[:, 0])
    # The colour exists: scikit-image's RGB of it still has its lightness and is the same colour.
    shown = rgb2lab(reference_rgb(fitted))
    assert np.abs(shown[:, 0] - wild_lab[:, 0]).max() < 0.2
    # Clipping, which this is instead of, does not keep it.
    assert np.abs(rgb2lab(reference_rgb(wild_lab))[:, 0] - wild_lab[:, 0]).max() > 10
    chroma = np.hypot(fitted[:, 1], fitted[:, 2])
    assert (chroma <= np.hypot(wild_lab[:, 1], wild_lab[:, 2]) + 1e-4).all()
    cross = fitted[:, 1] * wild_lab[:, 2] - fitted[:, 2] * wild_lab[:, 1]
    assert np.abs(cross / np.hypot(wild_lab[:, 1], wild_lab[:, 2])).max() < 1e-3
    assert (fitted[:, 1] * wild_lab[:, 1] + fitted[:, 2] * wild_lab[:, 2] >= 0).all()


def test_fit_to_gamut_takes_no_more_chroma_than_it_must(wild_lab: np.ndarray) -> None:
    """One hundredth more of the original chroma would be visibly outside for scikit-image."""
    lab = wild_lab[(wild_lab[:, 0] > 5) & (wild_lab[:, 0] < 95)]
    outside = ~color.in_gamut(image(lab))[0]
    fitted = pixels(color.fit_to_gamut(image(lab)))
    more = fitted.copy()
    more[:, 1:] += 0.01 * lab[:, 1:]
    lost = np.abs(rgb2lab(reference_rgb(more)) - more).max(-1)[outside]
    assert (lost > 1e-3).all()


def test_fit_to_gamut_leaves_colours_alone_that_exist(codes: np.ndarray, wild_lab: np.ndarray) -> None:
    """Alone, and beside colours that do not exist."""
    lab = rgb2lab(codes[::50]).astype(np.float32)
    assert np.array_equal(pixels(color.fit_to_gamut(image(lab))), lab)
    mixed = pixels(color.fit_to_gamut(image(np.concatenate((lab, wild_lab)))))
    assert np.array_equal(mixed[: len(lab)], lab)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lightness_of_grey_is_that_of_scikit_image(library: str) -> None:
    grey = np.arange(256, dtype=np.uint8)
    expected = rgb2lab(np.repeat(grey[:, None], 3, 1))[:, 0] / 100
    for values in (grey, (grey / 255).astype(np.float32)):
        L = color.lightness_of_grey(values if library == "numpy" else torch.from_numpy(values))
        assert np.abs(np.asarray(L) - expected).max() < 1e-4


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_grey_of_lightness_is_that_of_scikit_image(library: str) -> None:
    L = np.linspace(0, 1, 501, dtype=np.float32)
    expected = reference_rgb(np.stack((L * 100, 0 * L, 0 * L), -1)).mean(-1)
    grey = np.asarray(color.grey_of_lightness(L if library == "numpy" else torch.from_numpy(L)))
    assert np.abs(grey - expected).max() < 1e-3


def test_grey_of_lightness_undoes_lightness_of_grey() -> None:
    grey = np.arange(256, dtype=np.uint8)
    assert np.abs(color.grey_of_lightness(color.lightness_of_grey(grey)) * 255 - grey).max() < 0.01


def test_grey_codes_have_the_lightness_of_the_colours(codes: np.ndarray) -> None:
    L = rgb2lab(codes)[:, 0] / 100
    expected = reference_rgb(np.stack((L * 100, 0 * L, 0 * L), -1)).mean(-1)  # the grey of that L*
    found = color.grey_codes(image(codes)).ravel()
    difference = np.abs(found - np.rint(expected * 255))
    assert difference.max() <= 1 and (difference == 0).mean() > 0.98


# Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula: implementation notes, supplementary test data, and
# mathematical observations", table 1: L1 a1 b1 L2 a2 b2 ΔE00.
SHARMA = [
    (50.0000, 2.6772, -79.7751, 50.0000, 0.0000, -82.7485, 2.0425),
    (50.0000, 3.1571, -77.2803, 50.0000, 0.0000, -82.7485, 2.8615),
    (50.0000, 2.8361, -74.0200, 50.0000, 0.0000, -82.7485, 3.4412),
    (50.0000, -1.3802, -84.2814, 50.0000, 0.0000, -82.7485, 1.0000),
    (50.0000, -1.1848, -84.8006, 50.0000, 0.0000, -82.7485, 1.0000),
    (50.0000, -0.9009, -85.5211, 50.0000, 0.0000, -82.7485, 1.0000),
    (50.0000, 0.0000, 0.0000, 50.0000, -1.0000, 2.0000, 2.3669),
    (50.0000, -1.0000, 2.0000, 50.0000, 0.0000, 0.0000, 2.3669),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0009, 7.1792),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0011, 7.2195),
    (50.0000, 2.4900, -0.0010, 50.0000, -2.4900, 0.0012, 7.2195),
    (50.0000, -0.0010, 2.4900, 50.0000, 0.0009, -2.4900, 4.8045),
    (50.0000, -0.0010, 2.4900, 50.0000, 0.0011, -2.4900, 4.7461),
    (50.0000, 2.5000, 0.0000, 50.0000, 0.0000, -2.5000, 4.3065),
    (50.0000, 2.5000, 0.0000, 73.0000, 25.0000, -18.0000, 27.1492),
    (50.0000, 2.5000, 0.0000, 61.0000, -5.0000, 29.0000, 22.8977),
    (50.0000, 2.5000, 0.0000, 56.0000, -27.0000, -3.0000, 31.9030),
    (50.0000, 2.5000, 0.0000, 58.0000, 24.0000, 15.0000, 19.4535),
    (50.0000, 2.5000, 0.0000, 50.0000, 3.1736, 0.5854, 1.0000),
    (50.0000, 2.5000, 0.0000, 50.0000, 3.2972, 0.0000, 1.0000),
    (50.0000, 2.5000, 0.0000, 50.0000, 1.8634, 0.5757, 1.0000),
    (50.0000, 2.5000, 0.0000, 50.0000, 3.2592, 0.3350, 1.0000),
    (60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644),
    (63.0109, -31.0961, -5.8663, 62.8187, -29.7946, -4.0864, 1.2630),
    (61.2901, 3.7196, -5.3901, 61.4292, 2.2480, -4.9620, 1.8731),
    (35.0831, -44.1164, 3.7933, 35.0232, -40.0716, 1.5901, 1.8645),
    (22.7233, 20.0904, -46.6940, 23.0331, 14.9730, -42.5619, 2.0373),
    (36.4612, 47.8580, 18.3852, 36.2715, 50.5065, 21.2231, 1.4146),
    (90.8027, -2.0831, 1.4410, 91.1528, -1.6435, 0.0447, 1.4441),
    (90.9257, -0.5406, -0.9208, 88.6381, -0.8985, -0.7239, 1.5381),
    (6.7747, -0.2908, -2.4247, 5.8714, -0.0985, -2.2286, 0.6377),
    (2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082),
]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_delta_e2000_of_the_published_pairs(library: str) -> None:
    """32 of the 34; the other two lie exactly on the formula's discontinuity, where float32 may fall on either side."""
    table = np.array(SHARMA, dtype=np.float32)
    pair = [image(table[:, :3]), image(table[:, 3:6])]
    values = color.delta_e2000(*(pair if library == "numpy" else [torch.from_numpy(x) for x in pair]))
    assert np.abs(np.asarray(values)[0] - table[:, 6]).max() < 2e-4


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_delta_e2000_is_that_of_scikit_image(codes: np.ndarray, library: str) -> None:
    """Random 8-bit colours, small differences, greys against colours, greys against greys, equal colours."""
    rng = np.random.default_rng(2)
    lab = rgb2lab(codes[rng.integers(0, len(codes), 20000)]).astype(np.float32)
    other = lab[rng.permutation(len(lab))]
    other[:5000] = lab[:5000] + rng.normal(0, 1, (5000, 3)).astype(np.float32)
    lab[5000:8000, 1:] = 0
    other[7000:9000, 1:] = 0
    other[9000:9100] = lab[9000:9100]
    pair = [image(lab), image(other)]
    values = color.delta_e2000(*(pair if library == "numpy" else [torch.from_numpy(x) for x in pair]))
    expected = deltaE_ciede2000(lab.astype(np.float64), other.astype(np.float64))
    assert expected.max() > 80
    assert np.abs(np.asarray(values)[0] - expected).max() < 1e-2
    assert (np.asarray(values)[0][9000:9100] == 0).all()


def hasler_suesstrunk(rgb: np.ndarray) -> float:
    """M3 of one picture (3, H, W) with values to 255, as in the paper."""
    r, g, b = rgb.astype(np.float64)
    rg, yb = r - g, (r + g) / 2 - b
    sigma = np.sqrt(np.std(rg) ** 2 + np.std(yb) ** 2)
    mu = np.sqrt(np.mean(rg) ** 2 + np.mean(yb) ** 2)
    return float(sigma + 0.3 * mu)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_colorfulness_of_each_picture_is_the_formula(library: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (4, 3, 16, 24), dtype=np.uint8)
    rgb[0] = rgb[0, :1]  # grey
    rgb[1] //= 4
    rgb[2, 0] = 255
    expected = [hasler_suesstrunk(x) for x in rgb]
    given = rgb if kind == "uint8" else (rgb / 255).astype(np.float32)
    values = np.asarray(color.colorfulness(given if library == "numpy" else torch.from_numpy(given)))
    assert values.shape == (4,) and values[0] == 0
    assert values == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_split_scales_to_the_networks_and_join_undoes_it(library: str) -> None:
    lab = np.array([50.0, 55.0, -110.0], dtype=np.float32).reshape(1, 3, 1, 1) * np.ones((2, 1, 4, 5), np.float32)
    given = lab if library == "numpy" else torch.from_numpy(lab)
    L, ab = color.split(given)
    assert L.shape == (2, 1, 4, 5) and ab.shape == (2, 2, 4, 5)
    assert float(L[0, 0, 0, 0]) == 0.5
    assert [float(x) for x in ab[0, :, 0, 0]] == [0.5, -1.0]
    assert np.abs(np.asarray(color.join(L, ab)) - lab).max() < 1e-5


@pytest.mark.parametrize("module", ["colorization", "colorization.core.color"])
def test_import_brings_no_torch(module: str) -> None:
    """In a fresh interpreter."""
    code = f"import sys, {module}; sys.exit(int(any(m.split('.')[0] == 'torch' for m in sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0


# Recoloring a photo


def recolor_plainly(photo: np.ndarray, ab: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """:func:`color.recolor` of whole arrays, without a table, with the gamut found by bisection; not yet rounded."""
    height, width = photo.shape[:2]
    top = np.iinfo(photo.dtype).max
    rgb = np.repeat(photo[..., None], 3, 2) if photo.ndim == 2 else photo
    lab = color.rgb_to_lab((rgb / top).astype(np.float32).transpose(2, 0, 1))
    lab[1:] = [110 * cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in ab]
    low, high = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    for _ in range(20):
        middle = (low + high) / 2
        fits = color.in_gamut(lab * np.stack((np.ones_like(middle), middle, middle)))
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    lab[1:] *= strength * np.where(color.in_gamut(lab), 1, low)
    return color.lab_to_rgb(lab).transpose(1, 2, 0) * top


def random_photo(shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """Noise, with pure black and white in it and, where there is room, every 8-bit grey."""
    photo = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    if photo.size > 3000:
        photo[0, :256] = np.linspace(0, np.iinfo(dtype).max, 256)[(...,) + (None,) * (photo.ndim - 2)]
        photo[1, :50], photo[2, :50] = 0, np.iinfo(dtype).max
    return photo


def random_ab(chroma: float, shape: tuple[int, int] = (33, 47)) -> np.ndarray:
    return np.random.default_rng(1).uniform(-chroma, chroma, (2, *shape)).astype(np.float32)


SHAPES = [(1, 1), (1, 1, 3), (1, 300), (300, 1, 3), (2, 3, 3), (40, 290), (290, 270, 3)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chroma", [0.1, 1.0])
def test_recolor_keeps_the_lightness_of_every_pixel(shape, dtype, chroma) -> None:
    """For scikit-image, with the rounding to codes; in and far out of gamut."""
    photo = random_photo(shape, dtype)
    result = color.recolor(photo, random_ab(chroma))
    assert (result.shape, result.dtype) == ((*shape[:2], 3), photo.dtype)
    before = rgb2lab(np.repeat(photo[..., None], 3, 2) if photo.ndim == 2 else photo)
    assert np.abs(rgb2lab(result) - before)[..., 0].max() < (0.3 if dtype == np.uint8 else 0.1)


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_recolor_is_the_plain_formula(shape, strength) -> None:
    photo, ab = random_photo(shape, np.uint8), random_ab(0.3)
    assert np.abs(color.recolor(photo, ab, strength) - recolor_plainly(photo, ab, strength)).max() <= 1


@pytest.mark.parametrize("shape", [(300, 400), (300, 400, 3)])
def test_recolor_has_the_precision_of_16_bits(shape) -> None:
    """No steps: of a colour that exists every code is that of the formula, to the last of 65536."""
    photo = np.linspace(15000, 50000, np.prod(shape)).reshape(shape).astype(np.uint16)
    ab = random_ab(0.1, (8, 9))
    assert np.abs(color.recolor(photo, ab) - recolor_plainly(photo, ab)).max() <= 1.5


@pytest.mark.parametrize("shape", [(97, 211), (211, 97, 3), (3, 900, 3)])
def test_recolor_shows_no_seam(shape, monkeypatch) -> None:
    """In strips of a few rows, on its side where a row is longer than a strip; enlarged as OpenCV does it at once."""
    monkeypatch.setattr(color, "_TILE", 700)
    photo, ab = np.full(shape, 150, np.uint8), random_ab(0.3, (13, 8))
    result = [color.recolor(photo, ab, threads=n) for n in (1, 3)]
    assert np.array_equal(*result) and result[0].flags.c_contiguous
    assert np.abs(result[0] - recolor_plainly(photo, ab)).max() < 0.51  # rounded to the nearest, but for ties


def test_recolor_needs_no_array_of_floats_at_full_size() -> None:
    photo, ab = random_photo((3000, 4000), np.uint8), random_ab(0.3)
    tracemalloc.start()
    result = color.recolor(photo, ab, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < result.nbytes + 4 * photo.size
