"""The Colorizer and its console script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from colorization import Colorizer
from colorization.colorize.cli import colorize
from colorization.colorize.colorizer import Settings, find_weights
from colorization.core.errors import InputError
from colorization.data.datamodules import sample_photo
from colorization.models import checkpoint, descriptions
from colorization.models.weights import shipped_weights
from colorization.networks.baseline import BaselineCNN


def save(path: Path, bias: tuple[float, float], **facts: object) -> Path:
    """Weights that answer with nearly one colour everywhere; the same file for the same arguments, which a session
    exports and measures once."""
    if (made := _made.get(key := repr((bias, facts)))) is None:
        torch.manual_seed(0)
        network = BaselineCNN(width=4)
        torch.nn.init.normal_(network.head.weight, 0.0, 0.01)
        network.head.bias.data = torch.tensor(bias)
        spec = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}
        checkpoint.save_weights(path, network, descriptions.describe("baseline", spec, {}, facts))
        _made[key] = path.read_bytes()
    else:
        path.write_bytes(made)
    return path


_made: dict[str, bytes] = {}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(tmp_path / "w.safetensors", (0.2, 0.3))


@pytest.fixture
def grey() -> Image.Image:
    return Image.fromarray(sample_photo("skimage/coffee")).convert("L")


@pytest.mark.parametrize("size", [(1, 1), (31, 200), (400, 600), (50, 1000), (33, 33)])
def test_the_answer_has_the_size_of_the_photo_and_its_lightness(size, weights, grey) -> None:
    photo = grey.resize(size[::-1])
    result = Colorizer.load(weights).colorize(photo)
    assert result.size == photo.size
    assert result.mode == "RGB"
    before, after = rgb2lab(np.asarray(photo.convert("RGB"))), rgb2lab(np.asarray(result))
    assert np.abs(before[..., 0] - after[..., 0]).max() < 1
    if min(size) > 30:
        assert np.abs(after[..., 1:]).mean() > 5


def test_lightness_is_kept_where_the_colour_is_far_out_of_gamut(tmp_path, grey) -> None:
    """The strongest blue that a network can answer does not exist at most lightnesses."""
    result = Colorizer.load(save(tmp_path / "blue.safetensors", (3.0, -3.0))).colorize(grey)
    before, after = rgb2lab(np.asarray(grey.convert("RGB"))), rgb2lab(np.asarray(result))
    assert np.abs(before[..., 0] - after[..., 0]).max() < 1


def test_only_the_colour_is_enlarged(weights, grey) -> None:
    """Single pixels of the original are in the answer, however small the working size."""
    photo = np.asarray(grey).copy()
    photo[100, 100:200:2] = 255
    result = np.asarray(Colorizer.load(weights).colorize(Image.fromarray(photo), size=32))
    L = rgb2lab(result)[..., 0]
    assert L[100, 100:200:2] == pytest.approx(100, abs=1)
    assert np.abs(L[100, 101:200:2] - 100).min() > 2


def test_colour_comes_from_the_lightness_alone(weights) -> None:
    photo = Image.fromarray(sample_photo("skimage/coffee"))
    L = rgb2lab(np.asarray(photo))[..., 0]
    result = Colorizer.load(weights).colorize(photo)
    assert np.abs(rgb2lab(np.asarray(result))[..., 0] - L).max() < 1


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]


@pytest.mark.parametrize("mode", [*MODES, "I;16", "I;16L", "I;16B"])
def test_a_pillow_image_of_any_mode_is_colorized(mode, weights) -> None:
    photo = Image.fromarray(sample_photo("skimage/coffee")).resize((60, 40))
    if mode.startswith("I;16"):
        values = np.asarray(photo.convert("L")).astype(">u2" if mode == "I;16B" else "<u2") * 257
        image = Image.frombytes(mode, photo.size, values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
        photo = photo.convert("L")
    elif mode == "F":
        image, photo = Image.fromarray(np.asarray(photo.convert("L")) / np.float32(255)), photo.convert("L")
    else:
        steps = {"La": ["LA", "La"], "PA": ["P", "PA"], "RGBa": ["RGBA", "RGBa"], "HSV": ["HSV"], "I": ["L", "I"]}
        image = photo
        for step in steps.get(mode, [mode]):
            image = image.convert(step)
        back = {"L": "L", "LA": "L", "La": "L", "I": "L", "1": "1"}.get(mode, "RGB")
        photo = photo.convert("P") if mode in ("P", "PA") else photo.convert("CMYK") if mode == "CMYK" else photo
        photo = photo.convert(back)
    assert image.mode == mode
    result = Colorizer.load(weights).colorize(image)
    assert (result.mode, result.size) == ("RGB", (60, 40))
    before, after = rgb2lab(np.asarray(photo.convert("RGB"))), rgb2lab(np.asarray(result))
    assert np.abs(before[..., 0] - after[..., 0]).mean() < 1


def test_a_file_is_colorized_by_its_path_and_an_empty_picture_is_one_sentence(weights, grey, tmp_path) -> None:
    grey.resize((40, 30)).save(tmp_path / "a.png")
    colorizer = Colorizer.load(weights)
    expected = np.asarray(colorizer.colorize(Image.open(tmp_path / "a.png")))
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(np.asarray(colorizer.colorize(path)), expected)
    for wrong, words in ((Image.new("RGB", (0, 5)), "no pixels"), (tmp_path / "b.png", "no such file")):
        with pytest.raises(InputError, match=words):
            colorizer.colorize(wrong)


def test_a_picture_that_the_type_cannot_hold_is_refused_before_any_work(weights, tmp_path, monkeypatch, capsys) -> None:
    Image.new("L", (1_000_001, 1)).save(tmp_path / "wide.png")
    monkeypatch.setattr(Colorizer, "predict", lambda *_: pytest.fail("it was colorized"))
    arguments = [str(tmp_path / "wide.png"), "-o", str(tmp_path / "b.png"), "--weights", str(weights)]
    assert colorize(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "png holds at most 1000000 pixels a side" in line


def test_exif_orientation_is_applied(weights, grey, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    grey.save(tmp_path / "rotated.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "rotated.jpg") as image:
        result = Colorizer.load(weights).colorize(image)
    assert result.size == grey.size[::-1]


def test_the_working_size_defaults_to_that_of_training(tmp_path, grey) -> None:
    colorizer = Colorizer.load(save(tmp_path / "w.safetensors", (0.1, 0.1), image_size=96))
    assert colorizer.predict(np.asarray(grey)).ab.shape == (2, 96, 144)
    assert colorizer.predict(np.asarray(grey), Settings(64)).ab.shape == (2, 64, 96)
    small = np.asarray(grey.resize((75, 50)))
    assert colorizer.predict(small).ab.shape == (2, 50, 75)  # not enlarged
    assert colorizer.predict(small[:40, :30]).ab.shape == (2, 40, 32)  # but to what a network takes
    assert colorizer.working_size(50, 380, None) == (50, 380)
    assert colorizer.working_size(50, 3800, None) == (32, 384)


def test_find_weights_looks_at_the_argument_then_the_variable_then_what_ships(weights, monkeypatch, tmp_path) -> None:
    other = save(tmp_path / "other.safetensors", (0.0, 0.0))
    monkeypatch.setenv("COLORIZATION_WEIGHTS", str(other))
    assert find_weights(weights) == weights
    assert find_weights() == other
    monkeypatch.delenv("COLORIZATION_WEIGHTS")
    assert find_weights() == find_weights("shipped-classes")
    assert find_weights() in shipped_weights().values()


def test_what_ships_fits_in_what_is_allowed() -> None:
    assert find_weights() == shipped_weights()["shipped-classes"]
    files = list(shipped_weights().values())
    assert sum(f.stat().st_size for f in files[0].parent.iterdir() if f.is_file()) < 40_000_000


@pytest.mark.parametrize("stage", ["baseline", "unet", "classes", "hinted"])
def test_what_ships_colorizes_and_is_small(stage: str) -> None:
    assert find_weights(f"shipped-{stage}").stat().st_size < 10_000_000
    colorizer = Colorizer.load(f"shipped-{stage}")
    assert colorizer.description["stage"] == stage
    assert colorizer.description["training_data"]["photos"] == 48_705
    photo = Image.fromarray(sample_photo("sklearn/flower"))
    result = np.asarray(colorizer.colorize(photo))
    assert np.abs(rgb2lab(result)[..., 1:]).mean() > 1


@pytest.mark.parametrize(
    "damage", ["cut", "extra tensor", "lacking tensor", "format", "no description", "other network"]
)
def test_weights_that_do_not_fully_load_are_refused(damage, weights, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    tensors, description = load_file(weights), checkpoint.read_description(weights)
    bad = tmp_path / "bad.safetensors"
    if damage == "cut":
        bad.write_bytes(weights.read_bytes()[:-100])
    else:
        if damage == "extra tensor":
            tensors["extra"] = torch.zeros(1)
        elif damage == "lacking tensor":
            del tensors["head.bias"]
        elif damage == "format":
            description["format_version"] = 99
        elif damage == "other network":
            description["network"]["width"] = 8
        import json

        metadata = None if damage == "no description" else {"colorization": json.dumps(description)}
        save_file(tensors, bad, metadata=metadata)
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        Colorizer.load(bad)


MEASURE = """
import re, sys
from pathlib import Path
from colorization import Colorizer
colorizer = Colorizer.load(sys.argv[1], "cpu")
for photo in sys.argv[2:]:
    colorizer.colorize_file(Path(photo), Path("result.jpg"))
    print(re.findall(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_photo_takes_little_more_memory_than_its_pixels_and_the_answers(weights, grey, tmp_path) -> None:
    """File to file in a real process: 6 bytes a pixel and what the codecs need. A float plane more would be 10."""
    pixels = 5600 * 4300
    for name, size in (("small.jpg", (300, 200)), ("large.jpg", (5600, 4300))):
        grey.convert("RGB").resize(size).save(tmp_path / name)
    command = [sys.executable, "-c", MEASURE, weights, "small.jpg", "large.jpg"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = (1024 * int(kb) for kb in done.stdout.split())
    assert 6 * pixels < after - before < 9 * pixels


# The console script


@pytest.fixture
def photos(tmp_path: Path, grey: Image.Image) -> list[Path]:
    files = [tmp_path / "in" / f"{name}" for name in ("a.jpg", "b.png", "c.webp")]
    files[0].parent.mkdir()
    for file in files:
        grey.resize((90, 60)).save(file)
    return files


def test_one_photo_to_a_file_in_a_real_process(weights, photos, tmp_path) -> None:
    """With a name that the console's encoding does not have."""
    script = Path(sys.executable).parent / "colorize"
    photo = photos[0].rename(photos[0].with_name("Zürich → 日本.jpg"))
    done = subprocess.run(
        [script, photo, "-o", "out.png", "--weights", weights, "--size", "48"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0, done.stderr
    assert "Zürich \\u2192 \\u65e5\\u672c.jpg -> out.png" in done.stdout.decode("cp1252")
    with Image.open(tmp_path / "out.png") as image:
        assert (image.size, image.format) == ((90, 60), "PNG")


def test_several_photos_to_a_folder_keep_name_and_type(weights, photos, tmp_path) -> None:
    assert colorize([*map(str, photos), "-o", str(tmp_path / "out"), "--weights", str(weights)]) == 0
    assert sorted(f.name for f in (tmp_path / "out").glob("[abc].*")) == ["a.jpg", "b.png", "c.webp"]
    for file, kind in (("a.jpg", "JPEG"), ("b.png", "PNG"), ("c.webp", "WEBP")):
        with Image.open(tmp_path / "out" / file) as image:
            assert (image.size, image.format) == ((90, 60), kind)


def test_a_broken_photo_fails_alone(weights, photos, tmp_path, capsys) -> None:
    photos[1].write_bytes(photos[1].read_bytes()[:300])
    photos.append(tmp_path / "missing.jpg")
    assert colorize([*map(str, photos), "-o", str(tmp_path / "out"), "--weights", str(weights)]) == 1
    assert sorted(f.name for f in (tmp_path / "out").glob("[abc].*")) == ["a.jpg", "c.webp"]
    failures = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 2


def test_an_original_is_never_overwritten(weights, photos, capsys) -> None:
    before = photos[0].read_bytes()
    for output in (photos[0], photos[0].parent):
        assert colorize([str(photos[0]), "-o", str(output), "--weights", str(weights)]) == 2
    assert photos[0].read_bytes() == before
    assert "would replace" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--strip"], ["--uncertainty"]])
def test_what_is_there_already_is_replaced_only_if_asked(more, weights, photos, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / {"--strip": "b-strip.jpg", "--uncertainty": "b-uncertainty.png"}.get("".join(more), "b.png")
    there.write_bytes(b"of another origin")
    arguments = [str(photos[0]), "-o", "b.png", "--weights", str(weights), *more]
    assert colorize(arguments) == colorize([*arguments, "--dry-run"]) == 2
    assert f"{there.name} already exists; --overwrite replaces it" in capsys.readouterr().err
    assert there.read_bytes() == b"of another origin"
    assert colorize([*arguments, "--overwrite"]) == 0
    with Image.open(there) as image:
        assert image.height == 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.jpg", "-o", "out.xyz"], ["out.xyz"]),
        (["a.jpg", "-o", "out.png", "--weights", "nothing"], ["nothing"]),
        (["a.jpg", "-o", "out.png", "--size", "8"], ["size=8", "32"]),
        (["a.jpg", "x/a.jpg", "-o", "out"], ["a.jpg", "both"]),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, weights, photos, monkeypatch, capsys) -> None:
    monkeypatch.chdir(photos[0].parent)
    monkeypatch.setenv("COLORIZATION_WEIGHTS", str(weights))
    assert colorize(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert all(w in error for w in words)
    assert "\n" not in error
