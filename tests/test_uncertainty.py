"""Where the model was guessing: the map, its picture, and how well it tells the error."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from sklearn.metrics import auc
from test_eval import weights

from colorization import Colorizer
from colorization import eval as evaluation
from colorization.colorize import uncertainty
from colorization.colorize.cli import colorize
from colorization.colorize.colorizer import Settings
from colorization.core import color
from colorization.data.datamodules import sample_photo
from colorization.evaluation import sparsification
from colorization.models import checkpoint
from colorization.models.weights import resolve_weights


def grey() -> np.ndarray:
    return np.asarray(Image.fromarray(sample_photo("skimage/coffee")).convert("L"))[::4, ::4].copy()


# The map and its picture


def test_members_disagree_where_they_answer_differently(tmp_path: Path) -> None:
    files = [weights(tmp_path / f"{i}.safetensors", seed=i) for i in range(3)]
    colorizer = Colorizer.load(files)
    prediction = colorizer.predict(grey())
    L = torch.from_numpy(prediction.L)[None, None]
    with torch.no_grad():
        answers = np.stack([checkpoint.load_weights(f)[0](L)[0].numpy() for f in files])
    expected = 110 * np.sqrt(answers.var(0).sum(0))
    np.testing.assert_allclose(colorizer.uncertainty(prediction), expected, atol=1e-3)
    assert expected.mean() > 1


def test_one_model_is_asked_again_for_changed_copies() -> None:
    colorizer = Colorizer.load("shipped-unet")
    prediction = colorizer.predict(grey(), Settings(64))
    network, _ = checkpoint.load_weights(resolve_weights("shipped-unet"))
    L = torch.from_numpy(prediction.L)[None, None]
    height, width = prediction.L.shape
    larger = cv2.resize(prediction.L, (round(1.5 * width), round(1.5 * height)), interpolation=cv2.INTER_CUBIC).clip(
        0, 1
    )
    with torch.no_grad():
        answers = [network(L)[0], network(L.flip(-1)).flip(-1)[0]]
        enlarged = network(torch.from_numpy(larger)[None, None])[0].numpy()
    back = np.stack([cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in enlarged])
    expected = 110 * np.sqrt(np.stack([*(a.numpy() for a in answers), back]).var(0).sum(0))
    np.testing.assert_allclose(colorizer.uncertainty(prediction), expected, atol=1e-3)
    assert expected.max() > 0.1


def test_a_model_that_does_not_look_is_sure() -> None:
    """The same colour whatever it is shown: no disagreement, and a black picture."""
    L = np.random.default_rng(0).random((2, 1, 40, 60), np.float32)
    colour = np.array([0.2, -0.1], np.float32)[:, None, None]
    answers = uncertainty.augmented(lambda x: np.broadcast_to(colour, (1, len(x), 2, *x.shape[2:])).copy(), L)
    assert answers.shape == (3, 2, 2, 40, 60)
    assert color.disagreement(answers).max() < 1e-3
    assert uncertainty.heat_map(np.zeros((4, 6), np.float32), 40, 60).max() <= 4  # inferno begins with (0, 0, 4)


def test_the_heat_map_is_matplotlibs_inferno_on_a_logarithmic_scale() -> None:
    values = np.array([[0, 0.5, 2], [8, 32, 100]], np.float32)
    picture = uncertainty.heat_map(values, 2, 3)
    share = np.log(1 + values) / np.log(33)
    expected = matplotlib.colormaps["inferno"](share.clip(0, 1), bytes=True)[..., :3]
    assert np.abs(picture.astype(int) - expected).max() <= 3
    assert picture.dtype == np.uint8
    assert uncertainty.heat_map(values, 201, 301).shape == (201, 301, 3)


def test_colorizing_with_a_heat_map_needs_no_matplotlib() -> None:
    import subprocess
    import sys

    code = (
        "import sys, colorization.colorize.uncertainty; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_writes_it_beside_each_photo(tmp_path: Path) -> None:
    """At the photo's size; asking for it changes no colour."""
    files = [str(weights(tmp_path / f"{i}.safetensors", seed=i)) for i in range(3)]
    (tmp_path / "in").mkdir()
    Image.fromarray(grey()).save(tmp_path / "in" / "a.png")
    given = [str(tmp_path / "in"), "--weights", *files, "--merge", "median", "--size", "64", "-o"]
    assert colorize([*given, str(tmp_path / "plain")]) == 0
    assert colorize([*given, str(tmp_path / "out"), "--uncertainty"]) == 0
    assert (tmp_path / "plain/a.png").read_bytes() == (tmp_path / "out/a.png").read_bytes()
    prediction = Colorizer.load(files).predict(grey(), Settings(64, merge="median"))
    with Image.open(tmp_path / "out" / "a-uncertainty.png") as image:
        expected = uncertainty.heat_map(Colorizer.load(files).uncertainty(prediction), *grey().shape)
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3
    # One photo to a file.
    one = [str(tmp_path / "in/a.png"), "--weights", files[0], "-o", str(tmp_path / "b.jpg"), "--uncertainty"]
    assert colorize(one) == 0
    with Image.open(tmp_path / "b-uncertainty.png") as image:
        assert image.size == grey().shape[::-1]


# How well it tells the error


def plain_curve(error: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """As the paper words it: take out the most uncertain one after the other and average what is left."""
    left = list(error[np.argsort(-doubt)])
    curve = []
    while left:
        curve.append(np.mean(left) / error.mean())
        left.pop(0)
    return np.array(curve)


def test_the_sparsification_curve_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    error = rng.gamma(2, 5, 300)
    doubt = error + rng.normal(0, 8, 300)
    ours, oracle = sparsification.sparsification(error, doubt), plain_curve(error, error)
    np.testing.assert_allclose(ours, plain_curve(error, doubt), rtol=1e-9)
    share = np.arange(300) / 300
    by_trapezoids = auc(share, plain_curve(error, doubt)) - auc(share, oracle)
    assert sparsification.ause(error, doubt) == pytest.approx(by_trapezoids, abs=0.01)


def test_analytic_cases_of_the_area() -> None:
    n = 20_000
    error = (np.arange(n) + 0.5) / n  # uniform: without the share f of the largest, the mean falls as 1 - f
    shuffled = np.random.default_rng(0).permutation(error)
    assert sparsification.ause(shuffled, shuffled) == 0
    assert sparsification.ause(shuffled, shuffled**3) == pytest.approx(0, abs=1e-12)  # the order alone counts
    assert sparsification.ause(shuffled, np.ones(n)) == pytest.approx(1 / 2, abs=1e-3)  # 1 - (1 - f)
    assert sparsification.ause(shuffled, error) == pytest.approx(1 / 2, abs=0.02)  # a random order
    assert sparsification.ause(shuffled, -shuffled) == pytest.approx(1, abs=1e-3)  # (1 + f) - (1 - f)


def test_equal_values_are_left_out_in_any_order() -> None:
    error, doubt = np.array([8.0, 2.0, 5.0, 1.0]), np.array([1, 1, 1, 0])
    curves = [
        plain_curve(np.append(error[:3][list(order)], error[3]), np.array([4, 3, 2, 1]))
        for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    ]
    np.testing.assert_allclose(sparsification.sparsification(error, doubt), np.mean(curves, 0))


def test_correlations_of_a_constant_are_nothing() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    assert sparsification.correlations(np.ones(50), y) == (0, 0)
    assert sparsification.correlations(x, 3 * x + 1) == pytest.approx((1, 1))
    assert sparsification.correlations(x, -np.exp(x))[1] == pytest.approx(-1)


def test_the_correlation_of_photos_is_scipys() -> None:
    rng = np.random.default_rng(0)
    measure = sparsification.Measure("m", "chroma")
    means = []
    for _ in range(25):
        error = rng.gamma(2, rng.uniform(1, 6), 40)
        doubt = error * rng.uniform(0.3, 3) + rng.random(40)
        measure.add(error, doubt)
        means.append((doubt.mean(), error.mean()))
    measure.add(np.zeros(40), np.ones(40))  # no error, no curve
    found = measure.summary(True, 500, 0)
    expected = scipy.stats.spearmanr(*np.transpose(means)).statistic
    assert found["n"] == 25
    assert found["photos"]["mean"] == pytest.approx(expected)
    low, high = found["photos"]["ci95"]
    assert low < expected < high
    assert found["ause"]["mean"] == pytest.approx(np.mean(measure.values["ause"]))


def test_the_evaluation_reports_it(run_main, tmp_path, photo_folder) -> None:
    files = [weights(tmp_path / f"{i}.safetensors", f"stage{i}", seed=i) for i in range(2)]
    given = [f"weights=[{files[0]},{files[1]}]", "ensemble=median", "uncertainty=true", "strips=0", "eval_dir=out"]
    data = [f"datamodule.test_dir={photo_folder}", "datamodule.image_size=48", "datamodule.num_workers=0"]
    assert run_main(evaluation.main, "accelerator=cpu", *data, *given) == 0
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    found = {(r["model"], r["measure"]): r for r in report["uncertainty"]}
    one = ["augmentation", "chroma", "random"]
    assert list(found) == [
        *(("stage0", m) for m in one), *(("stage1", m) for m in one), *(("median of all", m) for m in ["members", *one])
    ]  # fmt: skip
    for (_, measure), row in found.items():
        assert row["n"] == 12
        if measure == "random":
            assert row["pearson"]["mean"] == row["spearman"]["mean"] == row["photos"]["mean"] == 0
        low, high = row["ause"]["ci95"]
        assert low <= row["ause"]["mean"] <= high

    # One figure again, from the weights and the photos themselves.
    from test_eval import crop

    errors, doubts = [], []
    networks = [checkpoint.load_weights(f)[0] for f in files]
    for photo in sorted(photo_folder.rglob("*.jpg")):
        lab = color.rgb_to_lab(crop(photo, 48).transpose(2, 0, 1))
        L = torch.from_numpy(lab[:1] / 100)[None]
        with torch.no_grad():
            ab = np.stack([n(L)[0].numpy() for n in networks])
        shown = color.as_shown(np.concatenate((lab[:1], np.median(ab, 0) * 110)))[1]
        errors.append(color.delta_e2000(shown, lab).ravel())
        doubts.append(np.sqrt(ab.var(0).sum(0)).ravel())
    expected = np.mean([scipy.stats.spearmanr(d, e).statistic for d, e in zip(doubts, errors, strict=True)])
    assert found["median of all", "members"]["spearman"]["mean"] == pytest.approx(expected, abs=0.05)
    for picture in ("sparsification.png", "uncertainty.png"):
        assert Image.open(tmp_path / "out" / picture).size[0] > 300
    assert "members' disagreement" in (tmp_path / "out" / "table.md").read_text()
