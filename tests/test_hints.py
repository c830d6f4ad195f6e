"""Colours that a person gives: where they stand, how they spread, and the file that repeats them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from colorization import Colorizer, Hint
from colorization.colorize import hints
from colorization.colorize.cli import colorize
from colorization.colorize.colorizer import Settings
from colorization.core.errors import InputError
from colorization.data.datamodules import sample_photo


@pytest.fixture(scope="module")
def colorizer() -> Colorizer:
    return Colorizer.load(backend="onnx")


def grey_photo() -> Image.Image:
    return Image.fromarray(sample_photo("skimage/astronaut")).convert("L")


def test_a_hint_has_its_colour_at_its_place_and_little_elsewhere(colorizer: Colorizer) -> None:
    photo = grey_photo().resize((1200, 1200))
    given = [Hint(0.4, 0.85, "#4a5aa0"), Hint(150.5 / 512, 300.5 / 512, "rgb(160, 70, 70)"), Hint(0.8, 0.1, "tan")]
    alone, told = (np.asarray(colorizer.colorize(photo, hints=h)) for h in ((), given))
    for hint in given:
        x, y = int(hint.x * 1200), int(hint.y * 1200)
        lab = rgb2lab(told[y, x])
        a, b = rgb2lab(np.array([int(hint.colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8) / 255.0)[1:]
        # The colour as far as a screen has it at the photo's lightness.
        wanted = rgb2lab(lab2rgb(np.array([lab[0], a, b])))
        assert deltaE_ciede2000(lab, wanted) <= 3, hint
    face = (slice(200, 350), slice(500, 650))
    assert np.abs(alone[face].astype(int) - told[face]).mean() < 3


@pytest.mark.parametrize("size", [(80, 200), (200, 80), (90, 90)])
def test_places_in_the_middle_square_are_those_of_the_same_pixels(size: tuple[int, int]) -> None:
    height, width = size
    photo = np.arange(height * width).reshape(size)
    side = min(size)
    top, left = (height - side) // 2, (width - side) // 2
    square = photo[top : top + side, left : left + side]
    places = [(y, x) for y in range(5, height, 10) for x in range(5, width, 10)]
    given = [Hint((x + 0.5) / width, (y + 0.5) / height, "red", 0.1) for y, x in places]
    moved = hints.in_centre(given, height, width)
    seen = [square[int(h.y * side), int(h.x * side)] for h in moved]
    assert seen == [photo[y, x] for y, x in places if photo[y, x] in square]
    assert {(h.colour, h.radius) for h in moved} == {("#ff0000", 0.1)}


def test_a_colour_spreads_over_an_even_object_and_stops_at_its_edge() -> None:
    L = np.full((96, 128), 0.3, np.float32)
    L[:, 64:] = 0.7
    L += np.random.default_rng(0).normal(0, 0.004, L.shape).astype(np.float32)  # grain
    ab = np.zeros((2, 96, 128), np.float32)
    a, b = hints.ab_of("#3050a0") / 110
    (hint,) = given = [Hint(0.2, 0.5, "#3050a0")]
    spread = hints.spread(ab, L, given)
    rows, columns, inside = hint.disc(96, 128)
    np.testing.assert_allclose(spread[:, rows, columns][:, inside].T, [[a, b]] * inside.sum(), atol=1e-3)
    chroma = np.linalg.norm(spread, axis=0) / np.hypot(a, b)
    assert chroma[:, :60].min() > 0.2 and chroma[36:60, 12:44].min() > 0.7
    assert chroma[:, 66:].max() < 0.05
    # A second one of another colour has its own surroundings, on its side of the middle between them.
    both = hints.spread(ab, L, [*given, Hint(0.2, 0.95, "#a05030")])
    assert both[0, 88, 26] > 0 > both[1, 48, 26]


def test_the_command_takes_hints_says_so_and_repeats_them_to_the_byte(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    grey_photo().save("a.png")
    hint = ["--hint", "0.4,0.85,navy", "--hint", "150,300,#a04040"]
    assert colorize(["a.png", "-o", "one.jpg", *hint, "--vividness", "0.4"]) == 0
    assert colorize(["a.png", "-o", "two.jpg", "--hints", "one.hints.json"]) == 0
    assert Path("one.jpg").read_bytes() == Path("two.jpg").read_bytes()
    assert Path("one.hints.json").read_bytes() == Path("two.hints.json").read_bytes()
    assert colorize(["a.png", "-o", "three.jpg", "--hints", "one.hints.json", "--vividness", "0"]) == 0
    assert Path("one.jpg").read_bytes() != Path("three.jpg").read_bytes()
    said = json.loads(Path("one.hints.json").read_text())
    assert [(h["colour"], round(h["x"] * 512)) for h in said["hints"]] == [("#000080", 205), ("#a04040", 150)]
    assert said["settings"]["vividness"] == 0.4
    software = Image.open("one.jpg").getexif()[305]
    assert "a person gave colours at 2 places" in software and "#a04040 at 0.294 0.587" in software
    assert colorize(["a.png", "-o", "one.jpg", "--overwrite"]) == 0
    assert "person" not in Image.open("one.jpg").getexif()[305]
    # What is there is not replaced.
    capsys.readouterr()
    Path("new.hints.json").write_text("mine")
    assert colorize(["a.png", "-o", "new.jpg", *hint]) == 2
    assert "new.hints.json already exists" in capsys.readouterr().err
    assert Path("new.hints.json").read_text() == "mine" and not Path("new.jpg").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--hint", "0.4,0.85,navyblu"], "colour 'navyblu': should be like #3b5a8c"),
        (["--hint", "0.4,0.85,rgb(300, 0, 0)"], "colour 'rgb(300, 0, 0)': should be like #3b5a8c"),
        (["--hint", "0.4,0.85,hsl(0, 300%, 50%)"], "colour 'hsl(0, 300%, 50%)': should be like #3b5a8c"),
        (["--hint", "600,3,navy"], "lies outside of the photo, which has 512x512 pixels"),
        (["--hint", "navy"], "hint 'navy': should be like 120,340,#3b5a8c or 0.4,0.2,navy"),
        (["--hint", "1.2.3,0.1,navy"], "hint '1.2.3,0.1,navy': should be like"),
        (["--hints", "a.png"], "a.png: not a file of hints"),
        (["--hints", "old.json"], "old.json: not a file of hints of format 1"),
        (["--hints", "odd.json"], "odd.json: not a file of hints"),
        (["--hints", "other.json"], "--hints other.json: its settings cannot be used"),
        (["--palette", "navy,tan"], "palette: weights of a baseline have no such setting"),
    ],
)
def test_what_cannot_work_is_one_sentence(wrong, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    grey_photo().save("a.png")
    Path("old.json").write_text('{"format_version": 0}')
    outside = {"x": 2, "y": 0, "colour": "red"}
    odd = {"format_version": 1, "hints": [outside], "palette": [], "settings": {}, "weights": []}
    Path("odd.json").write_text(json.dumps(odd))
    Path("other.json").write_text(json.dumps({**odd, "hints": [], "settings": {"brightness": 2}}))
    assert colorize(["a.png", "-o", "b.png", "--weights", "shipped-baseline", *wrong]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not Path("b.png").exists()


def test_hints_are_for_one_photo_and_a_palette_of_none_is_no_setting(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    grey_photo().save("in/a.png")
    assert colorize(["in", "-o", "out", "--hint", "0.4,0.2,navy"]) == 2
    assert "--hint: is for one photo, not for folders" in capsys.readouterr().err
    assert "hints" not in Settings().recipe() and "palette" not in Settings().recipe()
    assert Settings(hints=(Hint(0, 0, "red"),)).recipe()["hints"] == (
        {"x": 0, "y": 0, "colour": "#ff0000", "radius": 0.02},
    )
    with pytest.raises(InputError, match=r"hint: x=1\.5: should be a number from 0 to 1"):
        Hint(1.5, 0, "red")
