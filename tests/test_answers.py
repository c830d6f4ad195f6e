"""Colours that are suggested for a place, and other whole answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from colorization import Colorizer, Hint
from colorization.colorize import answers
from colorization.colorize.cli import colorize
from colorization.colorize.colorizer import Settings
from colorization.core import color
from colorization.core.errors import InputError
from colorization.data.datamodules import sample_photo


def test_suggestions_are_the_modes_with_their_shares() -> None:
    centres = color.ab_grid(10)
    shares = np.zeros(len(centres))
    for (a, b), share in {(20, 30): 0.5, (20, 40): 0.2, (-30, 20): 0.25, (0, -50): 0.04, (60, 60): 0.01}.items():
        shares[np.flatnonzero((centres == (a, b)).all(1))] = share
    found = answers.suggestions(shares, centres, 9)
    assert [round(s.share, 6) for s in found] == [0.7, 0.25, 0.04]  # the last is below the smallest share
    assert found[0].ab == pytest.approx((20, (30 * 0.5 + 40 * 0.2) / 0.7))
    assert found[1].ab == pytest.approx((-30, 20))
    assert [s.ab for s in answers.suggestions(shares, centres, 1)] == [found[0].ab]


def test_suggestions_have_the_lightness_of_the_photo_and_the_shares_of_the_default_weights() -> None:
    photo = sample_photo("skimage/coffee")
    colorizer = Colorizer.load(backend="onnx")
    found = colorizer.suggest(Image.fromarray(photo), 0.5, 0.9)
    shares = [share for _, share in found]
    assert 1 <= len(found) <= 5 and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.001
    height, width = photo.shape[:2]
    here = rgb2lab(photo[int(0.9 * height) - 6 : int(0.9 * height) + 6, width // 2 - 6 : width // 2 + 6])[..., 0].mean()
    for colour, _ in found:
        L = rgb2lab(np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8) / 255.0)[0]
        assert abs(L - here) < 4
    with pytest.raises(InputError, match="hint: x=2"):
        colorizer.suggest(Image.fromarray(photo), 2, 0)
    with pytest.raises(InputError, match="give no distribution"):
        Colorizer.load("shipped-unet", backend="onnx").suggest(Image.fromarray(photo), 0, 0)


def test_answers_differ_are_repeated_by_their_seed_and_keep_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colorizer = Colorizer.load("shipped-hinted", backend="torch")
    photo = Image.fromarray(sample_photo("skimage/astronaut")[::4, ::4].copy())
    lightness = ndimage.uniform_filter(rgb2lab(np.asarray(photo))[..., 0], 9)
    y, x = np.unravel_index(np.abs(lightness - 50)[8:-8, 8:-8].argmin(), lightness[8:-8, 8:-8].shape) + np.array([8, 8])
    hint = Hint((x + 0.5) / lightness.shape[1], (y + 0.5) / lightness.shape[0], "#806040")
    first, second, third = (np.asarray(i).astype(int) for i in colorizer.answers(photo, 3, seed=1, hints=[hint]))
    again = np.asarray(colorizer.answers(photo, 1, seed=1, hints=[hint])[0])
    assert np.array_equal(first, again)
    assert min(np.abs(first - second).max(), np.abs(first - third).max(), np.abs(second - third).max()) > 5
    for answer in (first, second, third):
        lab = rgb2lab(answer[y, x] / 255)
        # The colour as far as sRGB has it at the photo's lightness.
        wanted = rgb2lab(lab2rgb(np.array([lab[0], *rgb2lab(np.array([128, 96, 64]) / 255)[1:]])))
        assert deltaE_ciede2000(lab, wanted) <= 3
    # A seed is a setting like others: a file is repeated by it, and it stands in the recipe of a folder run.
    for seed in (1, -1):
        arguments = [
            "a.png",
            "-o",
            f"seed{seed}.png",
            "--weights",
            "shipped-hinted",
            "--backend",
            "torch",
            "--seed",
            str(seed),
        ]
        monkeypatch.chdir(tmp_path)
        photo.save("a.png")
        assert colorize(arguments) == (0 if seed == 1 else 2)
    assert np.array_equal(Image.open("seed1.png"), colorizer.answers(photo, 1, seed=1)[0])
    assert Settings(seed=0).recipe()["seed"] == 0 and "seed" not in Settings().recipe()
    with pytest.raises(InputError, match="other answers need one set of weights that takes hints"):
        Colorizer.load("shipped-unet", backend="onnx").answers(photo, 2)
