"""Evaluation: the protocol, the trivial rows, the intervals, the files."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import scipy.stats
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.image.kid import KernelInceptionDistance

from colorization import eval as evaluation
from colorization import train
from colorization.core.runs import Run
from colorization.data.datamodules import sample_photo
from colorization.data.splits import split_hash
from colorization.evaluation import judge, rows, statistics
from colorization.evaluation.report import summarize
from colorization.evaluation.rows import Row, model_row
from colorization.models import checkpoint, descriptions
from colorization.models.weights import resolve_weights
from colorization.networks.baseline import BaselineCNN


@pytest.fixture
def command(run_main: Callable[..., int]) -> Callable[..., int]:
    """``command(*overrides)``: the evaluation command in this process, in ``tmp_path``; returns its exit code."""
    return lambda *overrides: run_main(evaluation.main, "datamodule.num_workers=0", "accelerator=cpu", *overrides)


def weights(path: Path, stage: str = "baseline", seed: int = 0, **facts: object) -> Path:
    """A weights file of a small untrained network that answers with some colour."""
    torch.manual_seed(seed)
    network = BaselineCNN(width=4)
    torch.nn.init.normal_(network.head.bias, 0.0, 0.3)
    spec = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}
    description = descriptions.describe(stage, spec, {}, {"name": "test", "image_size": 64, **facts})
    checkpoint.save_weights(path, network, description)
    return path


def crop(file: Path, size: int) -> np.ndarray:
    """The centre crop as a reader of the protocol would make it, with Pillow."""
    image = Image.open(file).convert("RGB")
    scale = size / min(image.size)
    image = image.resize([round(n * scale) for n in image.size], Image.Resampling.BOX)
    left, top = ((n - size) // 2 for n in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def report(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_a_run_is_evaluated_on_the_photos_that_it_has_not_seen(
    command, run_main, tmp_path, photo_folder, capsys
) -> None:
    """With its own split, whatever today's seed; its training photos are refused, under other names, too."""
    data = ["datamodule.data_dir=photos", "datamodule.image_size=32"]
    small = ["model=baseline", "model.network.width=4", "trainer.max_epochs=1", "logger=csv", "test=false"]
    machine = ["accelerator=cpu", "datamodule.num_workers=0", "datamodule.test_fraction=0.3"]
    assert run_main(train.main, *data, *small, *machine, "run_id=s1", "seed=3") == 0
    run = Run(tmp_path / "outputs" / "runs" / "s1")
    split = {p["path"]: p["split"] for p in run.split()["photos"]}
    assert command("weights=s1", *data, "seed=7", "eval_dir=out") == 0
    assert "the photos are split as in outputs/runs/s1/split.json" in capsys.readouterr().err
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        assert {row["photo"] for row in csv.DictReader(file)} == {p for p, s in split.items() if s == "test"}
    assert descriptions.read(run.weights_file)["training_data"]["split"] == split_hash(run.split())

    (tmp_path / "renamed").mkdir()
    for i, photo in enumerate(split):
        shutil.copy(photo_folder / photo, tmp_path / "renamed" / f"{i}.jpg")
    others = ["datamodule.test_dir=renamed", "datamodule.image_size=32", "eval_dir=others"]
    trained = list(split.values()).count("train")
    assert command("weights=s1", *others) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{trained} of the 12 test photos were trained on by" in error and "allow_train_photos=true" in error
    assert command("weights=s1", *others, "allow_train_photos=true") == 0
    assert f"Not a fair test: {trained} of these photos" in (tmp_path / "others" / "table.md").read_text()


def test_the_grey_row_is_what_scikit_image_says(command, tmp_path, photo_folder) -> None:
    """The same photos, cropped by Pillow and scored by scikit-image: every colour replaced by its own grey."""
    file = weights(tmp_path / "w.safetensors")
    assert (
        command(f"weights={file}", f"datamodule.test_dir={photo_folder}", "datamodule.image_size=64", "eval_dir=out")
        == 0
    )
    expected: dict[str, list[float]] = {"psnr": [], "delta_e2000": []}
    for photo in sorted(photo_folder.rglob("*.jpg")):
        truth = crop(photo, 64) / 255
        lab = rgb2lab(truth)
        grey = lab2rgb(lab * [1, 0, 0])
        expected["psnr"].append(peak_signal_noise_ratio(truth, grey, data_range=1))
        expected["delta_e2000"].append(deltaE_ciede2000(rgb2lab(grey), lab).mean())
    (row,) = [r for r in report(tmp_path)["rows"] if r["name"] == "grey"]
    assert row["psnr"]["mean"] == pytest.approx(np.mean(expected["psnr"]), abs=0.15)
    assert row["psnr"]["median"] == pytest.approx(np.median(expected["psnr"]), abs=0.3)
    assert row["delta_e2000"]["mean"] == pytest.approx(np.mean(expected["delta_e2000"]), abs=0.1)
    assert row["colorfulness"]["mean"] == pytest.approx(0, abs=0.1)


def test_the_folder_is_complete_and_consistent(command, tmp_path, photo_folder) -> None:
    files = [
        weights(tmp_path / "a.safetensors", "unet", 1, mean_ab=[10.0, 20.0]),
        weights(tmp_path / "b.safetensors", "gan", 2),
    ]
    arguments = [f"weights=[{files[0]},{files[1]}]", f"datamodule.test_dir={photo_folder}", "datamodule.image_size=64"]
    assert command(*arguments, "eval_dir=out", "strips=3") == 0
    out = tmp_path / "out"
    content = report(tmp_path)
    assert [r["name"] for r in content["rows"]] == ["grey", "mean colour", "unet", "gan"]
    assert content["protocol"]["n"] == 12
    assert content["protocol"]["size"] == 64
    assert content["rows"][1]["mean_ab"] == [10.0, 20.0]

    with (out / "per_image.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * 12
    for row in content["rows"]:
        mine = [x for x in lines if x["model"] == row["name"]]
        for metric in ("psnr", "ssim", "delta_e2000", "colorfulness"):
            values = np.array([float(x[metric]) for x in mine])
            assert row[metric]["mean"] == pytest.approx(values.mean(), abs=1e-4)
            low, high = row[metric]["ci95"]
            assert low <= row[metric]["mean"] <= high
        predicted, true = (np.mean([float(x[c]) for x in mine]) for c in ("colorfulness", "true_colorfulness"))
        assert row["delta_colorfulness"]["mean"] == pytest.approx(abs(predicted - true), abs=1e-3)
        coloured = [float(x["psnr"]) for x in mine if float(x["true_colorfulness"]) >= 15]
        assert row["without_near_grey"]["n"] == len(coloured)
        assert row["without_near_grey"]["psnr"]["mean"] == pytest.approx(np.mean(coloured), abs=1e-4)

    strips = sorted((out / "strips").glob("*.png"))
    assert len(strips) == 2 * 3
    picture = np.asarray(Image.open(strips[0]))
    assert picture.shape == (64, 3 * 64, 3)
    assert np.ptp(picture[:, :64], axis=2).max() == 0  # the first panel is grey
    first = sorted(photo_folder.rglob("*.jpg"))[0]
    assert np.abs(picture[:, 128:].astype(int) - crop(first, 64)).mean() < 6  # the last is the truth
    assert Image.open(out / "distributions.png").size[0] > 300
    width, height = Image.open(out / "comparison.png").size  # 6 photos; input, two models, truth
    assert height > width
    table = (out / "table.md").read_text()
    assert table.count("| grey |") == 1  # all photos have colours, and a second table would be the same
    assert "Not better than grey" in table


def test_a_judge_says_what_it_sees_where_the_path_says_what_is_there(command, tmp_path, capsys) -> None:
    """A cup of espresso, a cat that is called a moped, and a flower of which nothing is said."""
    for name, photo in (("n07920052/a", "skimage/coffee"), ("n03785016/b", "skimage/chelsea"), ("c", "sklearn/flower")):
        file = tmp_path / "photos" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample_photo(photo)).save(file)
    arguments = ["weights=[]", "datamodule.test_dir=photos", "datamodule.image_size=128", "eval_dir=out"]
    assert command(*arguments, "judge=tf_efficientnet_lite0") == 0
    content = report(tmp_path)
    assert (content["true_top1"], content["judged"]) == (50, 2)
    assert all(row["top1"]["mean"] in (0, 50) for row in content["rows"])
    with (tmp_path / "out" / "per_image.csv").open() as file:
        found = {x["photo"]: x["top1"] for x in csv.DictReader(file) if x["model"] == "grey"}
    assert found["n03785016/b.png"] == "0.00000" and found["c.png"] == ""
    table = (tmp_path / "out" / "table.md").read_text()
    assert "top-1 ↑ (%)" in table and "of the truths 50.0 %, of 2 photos" in table and "KID x 1000" in table
    assert command(*arguments, "judge=a-net-of-mine") == 2
    assert "judge=a-net-of-mine" in capsys.readouterr().err


def test_the_judges_distance_is_torchmetrics_kid_of_all_photos() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(40, 16, generator=generator), 0.5 + torch.randn(40, 16, generator=generator)
    kid = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=2, subset_size=40, normalize=False)
    kid.update(a, real=True)
    kid.update(b, real=False)
    assert judge.kernel_distance(a, b) == pytest.approx(1000 * float(kid.compute()[0]), rel=1e-4)
    assert abs(judge.kernel_distance(a, torch.randn(400, 16, generator=generator))) < 100 < judge.kernel_distance(a, b)


def test_near_grey_photos_are_left_out_of_the_second_table(command, tmp_path, photo_folder) -> None:
    for i in range(4):
        Image.fromarray(crop(photo_folder / f"0{i}.jpg", 64)).convert("L").save(photo_folder / f"grey{i}.png")
    file = weights(tmp_path / "w.safetensors")
    assert (
        command(f"weights={file}", f"datamodule.test_dir={photo_folder}", "datamodule.image_size=64", "eval_dir=out")
        == 0
    )
    grey = report(tmp_path)["rows"][0]
    assert grey["n"] == 16
    assert grey["without_near_grey"]["n"] == 12
    # What grey photographs do to the mean, and the limit that keeps it finite.
    assert grey["psnr"]["mean"] == pytest.approx(
        (12 * grey["without_near_grey"]["psnr"]["mean"] + 4 * 58.92) / 16, abs=0.01
    )


def test_paired_comparisons_decide_what_beats_grey() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(10, 4, 50)

    def row(name: str, values: np.ndarray) -> Row:
        figures = {m: list(values) for m in ("psnr", "ssim", "delta_e2000")}
        figures |= {"colorfulness": [30.0] * 50, "true_colorfulness": [40.0] * 50}
        return Row(name, lambda L: L, values=figures)

    # Far smaller than the spread between photos, but the same on each: only a paired interval sees it.
    shifts = {"grey": 0.0, "better": -0.3, "worse": 0.3, "same": -0.01}
    rows = [row(name, base + shift + (name != "grey") * rng.normal(0, 0.2, 50)) for name, shift in shifts.items()]
    content = summarize(rows, True, 2000, 0)
    assert [r.get("beats_grey") for r in content["rows"]] == [None, "yes", "no", "undecided"]
    (pair,) = [
        c for c in content["comparisons"]
        if (c["a"], c["b"], c["metric"], c["subset"]) == ("better", "grey", "delta_e2000", "all")
    ]  # fmt: skip
    assert pair["mean"] == pytest.approx(np.mean(np.array(rows[1].values["delta_e2000"]) - base))
    assert content["rows"][1]["delta_colorfulness"]["mean"] == pytest.approx(10)


def test_the_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(3).gamma(2.0, 5.0, 60)
    ours = statistics.bootstrap(lambda i: values[i].mean(1), 60, 5000, 0)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", random_state=1)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.12)


def test_no_interval_is_claimed_on_a_handful(command, tmp_path) -> None:
    file = weights(tmp_path / "w.safetensors")
    assert command(f"weights={file}", "datamodule=sample", "datamodule.image_size=32", "eval_dir=out") == 0
    for row in report(tmp_path)["rows"]:
        assert row["psnr"]["ci95"] is None
        assert row.get("beats_grey") in (None, "undecided")
    assert "No confidence intervals" in (tmp_path / "out/table.md").read_text()
    assert statistics.bootstrap(lambda i: i.mean(1), 9, 100, 0) is None


def test_missing_metrics_are_null_with_their_reason(command, tmp_path, monkeypatch) -> None:
    from colorization.evaluation import metrics

    monkeypatch.setattr(metrics, "lpips_network", lambda: (None, "no AlexNet here"))
    file = weights(tmp_path / "w.safetensors")
    assert command(f"weights={file}", "datamodule=sample", "datamodule.image_size=32", "eval_dir=out", "fid=true") == 0
    row = report(tmp_path)["rows"][0]
    assert row["lpips"] == {"mean": None, "ci95": None, "reason": "no AlexNet here"}
    assert row["fid"]["mean"] is None
    assert row["fid"]["reason"]
    assert "No LPIPS: no AlexNet here" in (tmp_path / "out/table.md").read_text()


def test_by_default_the_newest_finished_run_of_each_model_is_evaluated(command, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rows, "shipped_weights", dict)
    for run_id, model, state, started in [
        ("old", "unet", "finished", "2026-01-01"),
        ("new", "unet", "finished", "2026-01-02"),
        ("dead", "unet", "failed", "2026-01-03"),
        ("other", "gan", "finished", "2026-01-01"),
    ]:
        run = Run(tmp_path / "outputs" / "runs" / run_id)
        run.path.mkdir(parents=True)
        run.update_status(model=model, state=state, started=started)
        weights(run.weights_file, model)
    assert command("datamodule=sample", "datamodule.image_size=32", "eval_dir=out") == 0
    used = [Path(r["weights"]).parent.name for r in report(tmp_path)["rows"] if "weights" in r]
    assert sorted(used) == ["new", "other"]


def test_a_random_resnet_shows_in_the_table(tmp_path) -> None:
    spec = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}
    description = descriptions.describe("fusion", spec, {"resnet": "random"})
    checkpoint.save_weights(tmp_path / "w.safetensors", BaselineCNN(4), description)
    assert model_row(tmp_path / "w.safetensors", "cpu").name == "fusion (random resnet)"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["weights=nothing"], ["weights=nothing", "neither a file nor a run"]),
        (["weights=w.safetensors", "datamodule.test_dir=nowhere"], ["datamodule.test_dir=nowhere"]),
        (["weights=text.safetensors"], ["text.safetensors", "safetensors"]),
        (["weights={grey: w.safetensors}", "datamodule=sample"], ["two rows would have one name"]),
    ],
)
def test_a_mistake_is_one_sentence(overrides, words, command, capsys, tmp_path) -> None:
    weights(tmp_path / "w.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    assert command("datamodule=folder", *overrides) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert all(w in error for w in words), error


CROP = ["datamodule.image_size=64", "eval_dir=out"]


def outputs_of(file: Path, photos: Path, folder: Path, size: int) -> None:
    """What the network in ``file`` makes of the centre crops, written as PNG with scikit-image."""
    network, _ = checkpoint.load_weights(file)
    for photo in sorted(photos.rglob("*.jpg")):
        lab = rgb2lab(cut(photo, size) / 255)
        with torch.inference_mode():
            ab = network(torch.from_numpy(lab[..., 0] / 100).float()[None, None])[0].permute(1, 2, 0).double().numpy()
        rgb = lab2rgb(np.dstack((lab[..., :1], 110 * ab)))
        target = (folder / photo.relative_to(photos)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rgb * 255).round().astype(np.uint8)).save(target)


def cut(file: Path, size: int) -> np.ndarray:
    """The crop to the pixel: area averaging by OpenCV."""
    photo = np.asarray(Image.open(file).convert("RGB"))
    scale = size / min(photo.shape[:2])
    height, width = (round(n * scale) for n in photo.shape[:2])
    photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    top, left = (height - size) // 2, (width - size) // 2
    return photo[top : top + size, left : left + size]


def test_pictures_in_a_folder_score_as_the_model_that_made_them(command, tmp_path, photo_folder) -> None:
    """Within 8-bit rounding, also in the paired comparison; and so does the model in ONNX."""
    file = resolve_weights("shipped-unet")
    outputs_of(file, photo_folder, tmp_path / "theirs", 64)
    given = [
        f"weights={{own: {file}, onnx: {file.with_suffix('.onnx')}}}",
        f"predictions={{other system:{tmp_path}/theirs}}",
    ]
    assert command(*given, f"datamodule.test_dir={photo_folder}", *CROP, "ensemble=mean") == 0
    content = report(tmp_path)
    rows = {r["name"]: r for r in content["rows"]}
    assert rows["other system"]["predictions"] == f"{tmp_path}/theirs" and rows["other system"]["remarks"] == []
    assert list(rows) == ["grey", "mean colour", "own", "onnx", "mean of all", "other system"]
    own, onnx = rows["own"], rows["onnx"]
    tolerance = {"psnr": 0.1, "ssim": 1e-3, "delta_e2000": 0.05, "colorfulness": 0.1, "mae": 0.05, "bleeding": 0.3}
    for metric, by in {**tolerance, "accuracy_2": 1.0, "accuracy_5": 1.0}.items():
        for subset in ("all", "without_near_grey"):
            a, b, c = (r if subset == "all" else r[subset] for r in (own, onnx, rows["other system"]))
            assert b[metric]["mean"] == pytest.approx(a[metric]["mean"], abs=1e-3)
            assert c[metric]["mean"] == pytest.approx(a[metric]["mean"], abs=by), metric
    pair = next(
        c for c in content["comparisons"]
        if c["a"] == "other system" and c["b"] == "own" and c["metric"] == "delta_e2000"
    )  # fmt: skip
    assert abs(pair["mean"]) < 0.05
    table = (tmp_path / "out" / "table.md").read_text()
    assert table.count("| other system |") == 1 and "bleeding (%)" in table and "ε5" not in table


def test_pictures_of_the_photos_shape_are_cropped_as_the_photos(command, tmp_path, photo_folder) -> None:
    """The photos themselves, enlarged: no error is left but that of the resizing. Grey ones are counted."""
    for i, photo in enumerate(sorted(photo_folder.rglob("*.jpg"))):
        image = Image.open(photo).convert("L" if i < 2 else "RGB")
        target = tmp_path / "large" / photo.relative_to(photo_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        image.resize([2 * n + i % 2 for n in image.size], Image.Resampling.BICUBIC).save(target, quality=98)
    given = ["weights=[]", f"predictions=[{tmp_path}/large]", f"datamodule.test_dir={photo_folder}"]
    assert command(*given, *CROP, "columns=[mae,accuracy_2,accuracy_5]") == 0
    grey, row = report(tmp_path)["rows"]
    assert row["name"] == "large" and row["remarks"] == ["2 of 12 pictures are grey"]
    with (tmp_path / "out" / "per_image.csv").open() as file:
        lines = [x for x in csv.DictReader(file) if x["model"] == "large"]
    assert all(float(x["delta_e2000"]) < 2 for x in lines[2:])
    assert float(lines[0]["delta_e2000"]) > 5 and row["delta_e2000"]["mean"] < grey["delta_e2000"]["mean"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "ε5 ↑ (%)" in table and "PSNR ↑" not in table and "large: 2 of 12 pictures are grey." in table


def test_pictures_that_do_not_fit_are_refused_in_a_sentence(command, tmp_path, photo_folder, capsys) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(photo_folder, theirs)
    given = ["weights=[]", f"predictions={theirs}", f"datamodule.test_dir={photo_folder}", *CROP]

    def said() -> str:
        assert command(*given) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    Image.open(theirs / "03.jpg").resize((64, 40)).save(theirs / "03.jpg")
    assert f"error: predictions={theirs}: another shape than the photo in 1 of 12 (03.jpg 64x40, not " in said()
    (theirs / "03.jpg").write_bytes(b"torn")
    assert "unreadable 1 of 12 (03.jpg)" in said()
    (theirs / "03.jpg").unlink()
    (theirs / "more" / "10.jpg").unlink()
    assert "no picture for 2 of 12 (03.jpg, more/10.jpg)" in said()


def test_lightness_of_other_systems_is_not_scored_but_told(command, tmp_path, photo_folder) -> None:
    for photo in photo_folder.rglob("*.jpg"):
        target = (tmp_path / "dark" / photo.relative_to(photo_folder)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(Image.open(photo)) * 0.7).astype(np.uint8)).save(target)
    assert command("weights=[]", f"predictions={tmp_path}/dark", f"datamodule.test_dir={photo_folder}", *CROP) == 0
    (remark,) = report(tmp_path)["rows"][1]["remarks"]
    assert "their L* differs from the photos' by 1" in remark and "was not used" in remark


def foreign_onnx(path: Path, channels: int = 2) -> Path:
    """A model that nothing here made: a* = b* = L*, for one photo at a time."""
    node = onnx.helper.make_node("Concat", ["grey"] * channels, ["colours"], axis=1)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, c, "h", "w"])
        for name, c in (("grey", 1), ("colours", channels))
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


def test_an_onnx_model_of_another_system_is_a_row(command, tmp_path, photo_folder, capsys) -> None:
    given = [f"datamodule.test_dir={photo_folder}", *CROP]
    assert command(f"weights={foreign_onnx(tmp_path / 'theirs.onnx')}", *given) == 0
    row = report(tmp_path)["rows"][-1]
    assert row["name"] == "theirs"
    photo = sorted(photo_folder.rglob("*.jpg"))[0]
    lab = rgb2lab(cut(photo, 64) / 255)
    lab[..., 1:] = lab[..., :1] * 1.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colours that do not exist
        expected = deltaE_ciede2000(rgb2lab(lab2rgb(lab)), rgb2lab(cut(photo, 64) / 255)).mean()
    with (tmp_path / "out" / "per_image.csv").open() as file:
        line = next(x for x in csv.DictReader(file) if x["model"] == "theirs")
    assert float(line["delta_e2000"]) == pytest.approx(expected, abs=0.02)
    assert command(f"weights={foreign_onnx(tmp_path / 'rgb.onnx', 3)}", *given) == 2
    assert "rgb.onnx: answers [1, 3, 64, 64], should answer a*b*/110 as [1, 2, 64, 64]" in capsys.readouterr().err


def test_the_curve_of_chroma(command, tmp_path, photo_folder) -> None:
    """At factor 0 it is the grey row, at 1 the model's, and the interval is that of the paired comparison."""
    file = weights(tmp_path / "w.safetensors")
    assert command(f"weights={file}", f"datamodule.test_dir={photo_folder}", *CROP, "curve=true") == 0
    grey, row = report(tmp_path)["rows"]
    with (tmp_path / "out" / "curve.csv").open() as lines:
        points = {float(x["factor"]): x for x in csv.DictReader(lines)}
    assert sorted(points) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6])
    for factor, expected in ((0.0, grey), (1.0, row)):
        for metric in ("delta_e2000", "colorfulness"):
            assert float(points[factor][metric]) == pytest.approx(expected[metric]["mean"], abs=2e-3)
    pair = next(c for c in report(tmp_path)["comparisons"] if c["metric"] == "delta_e2000" and c["subset"] == "all")
    found = [-float(points[1.0][k]) for k in ("gain_high", "gain", "gain_low")]
    assert found == pytest.approx([pair["ci95"][0], pair["mean"], pair["ci95"][1]], abs=1e-3)
    assert float(points[1.6]["colorfulness"]) > float(points[1.0]["colorfulness"])
    assert Image.open(tmp_path / "out" / "curve.png").size[0] > 300


def test_stability_is_measured_where_it_is_asked_for(command, tmp_path, photo_folder) -> None:
    file = weights(tmp_path / "w.safetensors")
    shutil.copytree(photo_folder, tmp_path / "theirs")
    given = [f"weights={file}", f"datamodule.test_dir={photo_folder}", *CROP, f"predictions={tmp_path}/theirs"]
    assert command(*given, "stability=[48,64]") == 0
    grey, row, pictures = report(tmp_path)["rows"]
    assert grey["stability"]["mean"] == 0 and 0 < row["stability"]["mean"] < 10
    assert pictures["stability"] == {"mean": None, "ci95": None, "reason": "pictures, not a model"}
    assert "size ΔE" in (tmp_path / "out" / "table.md").read_text()
    assert command(*given, "stability=[48]") == 2
    assert command(*given, "columns=[psnr,nonsense]") == 2
