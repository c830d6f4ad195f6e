"""The package of docs/extending.md, which nobody here knows: trained, evaluated, exported and colorized with."""

import csv
import importlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from conftest import SMALL_ENCODERS, SMALL_STAGES
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import Metric
from torchmetrics.image import PeakSignalNoiseRatio, UniversalImageQualityIndex

from colorization import Colorizer, ensemble, export, train
from colorization import eval as evaluation
from colorization.colorize.colorizer import Settings
from colorization.core import color, hydra_main, trusted
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.data.datamodules import SampleDataModule
from colorization.data.plain import PlainLoader
from colorization.evaluation.custom_metrics import configured
from colorization.models import checkpoint, descriptions, onnx_export
from colorization.models.checkpoint import load_weights, read_checkpoint
from colorization.networks.building import build_network

DOCUMENT = Path(__file__).parent.parent / "docs" / "extending.md"
SMALL = (
    *("datamodule=sample", "datamodule.image_size=32", "datamodule.crops=2", "datamodule.batch_size=2"),
    *("datamodule.num_workers=0", "accelerator=cpu", "logger=csv", "lpips=false"),
)


def blocks() -> dict[str, str]:
    """The files that the document shows, by the name in their first line."""
    found = {}
    for block in DOCUMENT.read_text(encoding="utf-8").split("```")[1::2]:
        head, _, body = block.partition("\n")
        first = body.split("\n", 1)[0]
        if head in ("python", "yaml") and first.startswith("# ") and first.endswith((".py", ".yaml")):
            found[first.removeprefix("# ")] = body
    return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the document, where Python finds it."""
    root = tmp_path / "site"
    for name, content in blocks().items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    for folder in (root / "tintlab", root / "tintlab" / "configs"):
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv(trusted.VARIABLE, "")
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "tintlab"]:
        del sys.modules[name]


@pytest.fixture
def run_id(run_main: Callable[..., int], package: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of the document's stage, with its loss and its schedule; nothing is trusted any more after it."""
    search = "hydra.searchpath=[pkg://tintlab.configs]"
    assert run_main(train.main, search, "model=tint", "run_id=t", "trainer.max_steps=3", "callbacks=tint", *SMALL) == 0
    monkeypatch.setenv(trusted.VARIABLE, "")
    return "t"


def test_a_package_is_trained_evaluated_exported_and_colorized_with(run_main, run_id, tmp_path, monkeypatch) -> None:
    run = Run(tmp_path / "outputs/runs" / run_id)
    rates = {row["step"]: row["value"] for row in run.metrics() if row["name"] == "lr"}
    assert rates == {step: pytest.approx(1e-3 * 0.5**step) for step in rates}  # the schedule of torch
    assert max(rates) == 2
    assert "3 steps of tint" in (run.path / "train.log").read_text()  # the callback
    assert run_main(train.main, f"run_id={run_id}", "ckpt_path=last", "trainer.max_steps=5") == 0

    trusted_now = "trust=[tintlab]"
    assert run_main(evaluation.main, f"weights={run_id}", *SMALL[:2], "lpips=false", "eval_dir=e", trusted_now) == 0
    assert "| tint |" in (tmp_path / "e/table.md").read_text()
    assert run_main(lambda: hydra_main.run(export.command, "export"), f"weights={run_id}", trusted_now) == 0
    # The ONNX model is the network itself: nothing of the package runs any more.
    monkeypatch.setenv(trusted.VARIABLE, "")
    Image.fromarray(np.full((40, 50), 128, np.uint8)).save(tmp_path / "grey.png")
    assert Colorizer.load(run.weights_file, backend="onnx").colorize(tmp_path / "grey.png").size == (50, 40)


UQI, SEARCH = "torchmetrics.image.UniversalImageQualityIndex", "hydra.searchpath=[pkg://tintlab.configs]"


def test_a_metric_is_torchmetrics_own_in_training_and_evaluation(run_main, run_id, tmp_path) -> None:
    run = Run(tmp_path / "outputs/runs" / run_id)
    asked = (f"run_id={run_id}", "ckpt_path=last", "trainer.max_steps=5", f"+metrics.uqi._target_={UQI}")
    assert run_main(train.main, *asked, "+metrics=tint") == 0  # a resumed run may have more metrics
    small = [*SMALL[:2], "datamodule.crops=8", *SMALL[3:6], "lpips=false"]  # 16 test photos
    asked = ("trust=[tintlab]", SEARCH, "+metrics=tint", f"+metrics.uqi={{_target_: {UQI}, label: UQI}}")
    assert run_main(evaluation.main, f"weights={run_id}", *small, "eval_dir=e", *asked) == 0

    def directly(metrics: list[Metric], crops: int) -> list[float]:
        data = SampleDataModule(crops=crops, image_size=32, batch_size=1, num_workers=0)
        data.setup()
        network, _ = load_weights(run.weights_file)
        for batch in data.test_dataloader():
            lab = color.rgb_to_lab(batch["rgb"])
            with torch.no_grad():
                predicted = color.lab_to_rgb(color.join(color.split(lab)[0], network(color.split(lab)[0])))
            for metric in metrics:
                metric.update(predicted, batch["rgb"] / 255)
        return [float(metric.compute()) for metric in metrics]

    metrics = [UniversalImageQualityIndex, lambda: PeakSignalNoiseRatio(data_range=1.0)]
    in_training = directly([metric() for metric in metrics], 2)
    in_evaluation = directly([metric() for metric in metrics], 8)
    logged = {row["name"]: row["value"] for row in run.metrics() if row["split"] == "test"}
    assert [logged["uqi"], logged["pooled"]] == pytest.approx(in_training, rel=1e-3)
    report = json.loads((tmp_path / "e/metrics.json").read_text())
    row = report["rows"][-1]
    assert [row["uqi"]["mean"], row["pooled"]["mean"]] == pytest.approx(in_evaluation, rel=1e-3)
    # UQI is a mean over photos, whose values are in per_image.csv; the PSNR of all pixels is not.
    with (tmp_path / "e/per_image.csv").open(newline="") as file:
        photos = [float(line["uqi"]) for line in csv.DictReader(file) if line["model"] == row["name"]]
    assert len(photos) == 16 and np.mean(photos) == pytest.approx(row["uqi"]["mean"], abs=1e-5)
    assert "pooled" not in (tmp_path / "e/per_image.csv").read_text()
    compared = {c["metric"] for c in report["comparisons"]}
    assert "uqi" in compared and "pooled" not in compared
    table = (tmp_path / "e/table.md").read_text()
    assert "| UQI ↑ | pooled PSNR ↑ |" in table or "| pooled PSNR ↑ | UQI ↑ |" in table
    assert f"| {row['pooled']['mean']:.2f} |" in table and "(data_range=1.0), over all photos at once." in table


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("psnr._target_=torchmetrics.image.UniversalImageQualityIndex", "metrics.psnr: the name is taken"),
        ("m._target_=torchmetrics.image.Missing", "metrics.m._target_=torchmetrics.image.Missing: cannot be imported"),
        ("m._target_=torch.nn.ReLU", "should be a class of torchmetrics.Metric"),
        ("m._target_=torchmetrics.image.PeakSignalNoiseRatio", "cannot be made with these settings"),
        ("m._target_=torchmetrics.image.QualityWithNoReference", r"takes \(preds, target\) and cannot be called as"),
        ("m={_target_: torchmetrics.image.PeakSignalNoiseRatio, data_range: 1.0, better: more}", "higher or lower"),
        ("m={_target_: torchmetrics.image.PeakSignalNoiseRatio, data_range: 1.0, digits: few}", "a whole number"),
        (f"m={{_target_: {UQI}, reduction: none}}", r"one number, not \(2, \d+"),
        ("m=3", "needs a _target_"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused(metric: str, said: str) -> None:
    config = OmegaConf.create({})
    name, _, value = metric.partition("=")
    OmegaConf.update(config, name, yaml.safe_load(value))
    with pytest.raises(InputError, match=said) as error:
        configured(config, 32)
    assert "\n" not in str(error.value)


DATA = (SEARCH, "datamodule=tint", "datamodule.size=32", "accelerator=cpu", "logger=csv", "lpips=false")


def test_a_plain_data_module_trains_resumes_and_evaluates(run_main, package, tmp_path) -> None:
    model = ("model=tint", "model.lr_schedule.gamma=0.9", "test=false", "trainer.log_every_n_steps=1", *DATA)
    assert run_main(train.main, *model, "run_id=whole", "trainer.max_steps=7") == 0  # 4 batches an epoch
    data = importlib.import_module("tintlab.data")
    read, reads = data.Crops.__getitem__, itertools.count()

    def stopped(photos: object, i: int) -> dict[str, torch.Tensor]:
        if next(reads) == 16:  # 12 were looked at before training; in its second batch
            signal.raise_signal(signal.SIGTERM)
        return read(photos, i)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Crops, "__getitem__", stopped)
        assert run_main(train.main, *model, "run_id=parts", "trainer.max_steps=7") == 143
    assert run_main(train.main, "run_id=parts", "ckpt_path=last", "trainer.max_steps=3") == 0  # within the epoch, too
    assert run_main(train.main, "run_id=parts", "ckpt_path=last", "trainer.max_steps=7", "test=true") == 0
    whole, parts = (Run(tmp_path / "outputs/runs" / name) for name in ("whole", "parts"))
    losses = [{r["step"]: r["value"] for r in run.metrics() if r["name"] == "loss"} for run in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 7
    last = [read_checkpoint(run.last_checkpoint)["state_dict"] for run in (whole, parts)]
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())
    description = read_checkpoint(whole.last_checkpoint)["colorization"]
    assert description["training_data"]["name"] == "Tints" and description["training_data"]["image_size"] == 32
    assert (parts.path / "samples/epoch_0000.png").is_file() and parts.split() is None

    assert run_main(evaluation.main, "weights=parts", "trust=[tintlab]", *DATA[:4], "lpips=false", "eval_dir=e") == 0
    report = json.loads((tmp_path / "e/metrics.json").read_text())
    tested = {r["name"]: r["value"] for r in parts.metrics() if r["split"] == "test"}  # the same photos in training
    for name in ("psnr", "ssim", "delta_e2000", "colorfulness"):
        assert report["rows"][-1][name]["mean"] == pytest.approx(tested[name], rel=1e-4)
    assert [row["name"] for row in report["rows"]] == ["grey", "mean colour", "tint"]
    assert "Tints, 12 photos at 32x32, as Tints gives them." in (tmp_path / "e/table.md").read_text()


class Flat(pl.LightningDataModule):
    """Photos of one colour."""

    def __init__(self, size: int, batch_size: int) -> None:
        super().__init__()
        photo = torch.tensor([180, 90, 60], dtype=torch.uint8).view(3, 1, 1).expand(3, size, size)
        self.loader = DataLoader([{"rgb": photo, "place": "elsewhere"}] * 4, batch_size)

    def train_dataloader(self) -> DataLoader:
        return self.loader

    val_dataloader = train_dataloader


@pytest.mark.parametrize("model", [SMALL_ENCODERS["classes"], SMALL_STAGES["gan"]], ids=["classes", "gan"])
def test_a_plain_data_module_trains_other_stages(model, run_main, package, tmp_path) -> None:
    target = "datamodule._target_=test_extending.Flat"
    assert run_main(train.main, *model, *DATA, target, "run_id=f", "trainer.max_steps=2", "samples=2") == 0
    run = Run(tmp_path / "outputs/runs/f")
    assert run.status()["state"] == "finished" and run.weights_file.is_file()
    if "model=classes" in model:
        assert "1 of " in (run.path / "train.log").read_text()  # classes of ab
    lab = color.rgb_to_lab(np.array([180, 90, 60], np.uint8).reshape(3, 1, 1)).ravel()
    description = read_checkpoint(run.last_checkpoint)["colorization"]
    assert description["training_data"]["mean_ab"] == pytest.approx(lab[1:], abs=0.01)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("datamodule._target_=torch.nn.Identity", "should be a LightningDataModule, of the package pytorch_lightning"),
        ("datamodule._target_=test_extending.OnlyTraining", "has no val_dataloader; add one, or set trainer.limit_val"),
        ("trainer.devices=2", "several processes need a subclass of colorization.data.datamodules.PhotoDataModule"),
        ("model=classifier/resnet18", "the photos of Tints have no labels"),
    ],
)
def test_what_a_plain_data_module_cannot_do_is_one_sentence(override, said, run_main, package, capsys) -> None:
    model = [] if override.startswith("model=") else ["model=tint"]
    assert run_main(train.main, *model, *DATA, override, "run_id=x") == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


class OnlyTraining(pl.LightningDataModule):
    def __init__(self, size: int, batch_size: int) -> None:
        super().__init__()

    def train_dataloader(self) -> DataLoader:
        return DataLoader([{"rgb": torch.zeros(3, 32, 32, dtype=torch.uint8)}])


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        (DataLoader([torch.zeros(3, 32, 32)] * 2), "a batch should be a mapping with rgb"),
        (DataLoader([{"image": torch.zeros(3, 32, 32)}] * 2), "with rgb.* not a dict of image"),
        (DataLoader([{"rgb": torch.zeros(3, 32, 32)}] * 2), r"uint8, not \(1, 3, 32, 32\) float32"),
        (DataLoader([{"rgb": torch.zeros(32, 32, 3, dtype=torch.uint8)}] * 2), r"not \(1, 32, 32, 3\) uint8"),
        (DataLoader(Endless()), "has no length"),
        ([DataLoader([1]), DataLoader([2])], "gives 2 loaders"),
    ],
)
def test_a_loader_that_cannot_be_used_is_one_sentence(loader, said) -> None:
    with pytest.raises(InputError, match=said):
        list(PlainLoader(loader, "datamodule._target_=x", 0))


def test_weights_of_an_unknown_package_are_refused_until_it_is_named(run_id, tmp_path) -> None:
    weights = Run(tmp_path / "outputs/runs" / run_id).weights_file
    with pytest.raises(InputError, match=r"tintlab.*trust=\[tintlab\].*colorize --trust tintlab"):
        Colorizer.load(weights, backend="torch")
    command = [sys.executable, "-m", "colorization.colorize.cli", "grey.png", "-o", "colour.png", "--backend", "torch"]
    Image.fromarray(np.full((40, 50), 128, np.uint8)).save(tmp_path / "grey.png")
    command += ["--weights", str(weights)]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "colour.png").exists()
    assert subprocess.run([*command, "--trust", "tintlab"], cwd=tmp_path).returncode == 0
    assert np.asarray(Image.open(tmp_path / "colour.png")).shape == (40, 50, 3)
    assert Colorizer.load(weights, backend="torch", trust=["tintlab"]).description["stage"] == "tint"


def test_trust_is_for_packages_that_are_named_alone(monkeypatch) -> None:
    monkeypatch.setenv(trusted.VARIABLE, "")
    trusted.trust(["torch.nn"])
    assert isinstance(build_network({"_target_": "torch.nn.Identity"}), torch.nn.Identity)
    for target in ("torch.hub.load", "torch.nnx.Identity", "os.system"):
        with pytest.raises(InputError, match="if you trust it"):
            build_network({"_target_": target})
    with pytest.raises(InputError, match="name of a package"):
        trusted.trust(["no package"])


def test_a_network_that_takes_more_than_L_is_given_it_wherever_it_runs(package: Path, tmp_path: Path) -> None:
    trusted.trust(["tintlab"])
    said = OmegaConf.to_container(OmegaConf.load(package / "tintlab" / "configs" / "model" / "told.yaml"))
    assert isinstance(said, dict)
    description = descriptions.describe("told", said["network"], {}, {"image_size": 32}, about=said["about"])
    file, whole = tmp_path / "told.safetensors", tmp_path / "told.onnx"
    checkpoint.save_weights(file, build_network(said["network"]), description)
    onnx_export.export(file, whole)
    grey = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
    marks = np.zeros((1, 3, 32, 43), np.float32)
    marks[0, :, 4:9, :20] = np.array([0.5, -0.25, 1])[:, None, None]
    for weights, backend in ((file, "torch"), (whole, "onnx"), (whole, "openvino")):
        colorizer = Colorizer.load(weights, backend=backend)
        alone, warm = colorizer.predict(grey), colorizer.predict(grey, warmth=np.float32(0.3))
        np.testing.assert_allclose(alone.ab, [0 * alone.L, 0.1 * alone.L], atol=1e-5)
        np.testing.assert_allclose(warm.ab, [0 * alone.L, 0.3 * alone.L], atol=1e-5)
        told = colorizer.predict(grey, Settings(flips=True), marks=marks)
        np.testing.assert_allclose(told.ab, np.where(marks[0, 2:] > 0, marks[0, :2], alone.ab), atol=1e-5)
        # The mirror image and the enlarged copy are told at the same places, so there is no doubt about these.
        assert colorizer.uncertainty(colorizer.predict(grey, marks=marks))[6, :17].max() < 0.1
        with pytest.raises(InputError, match=r"marks: is of shape \[1, 3, 9, 9\], should be \[1, 3, 32, 43\]"):
            colorizer.predict(grey, marks=marks[..., :9, :9])


def test_an_ensemble_gives_each_member_what_it_takes(package: Path, tmp_path: Path) -> None:
    trusted.trust(["tintlab"])
    told, inputs = "tintlab.told.Told", {"L": {}, "warmth": {}, "marks": {"channels": 3}}
    members = [
        descriptions.describe("told", {"_target_": told, "warmth": 0.1}, {}, about={"inputs": inputs}),
        descriptions.describe("told", {"_target_": told, "warmth": 0.2}, {}, about={"inputs": inputs}),
        descriptions.describe("tint", {"_target_": "tintlab.networks.Tint", "width": 4}, {}),
    ]
    networks = [build_network(m["network"]).eval() for m in members]
    description = ensemble.describe(members, "mean", 32, 9.0)
    # Of the warmth the members think differently, so that each keeps its own.
    assert list(descriptions.inputs(description)) == ["marks"]
    file = tmp_path / "together.safetensors"
    spec = description["network"]
    whole = ensemble.assemble(networks, spec["members"], "mean", spec["takes"])
    checkpoint.save_weights(file, whole, description)
    onnx_export.export(file, file.with_suffix(".onnx"))
    L = np.linspace(0, 1, 32 * 40, dtype=np.float32).reshape(1, 1, 32, 40)
    marks = np.zeros((1, 3, 32, 40), np.float32)
    marks[:, :, :10] = np.array([0.5, -0.25, 1])[:, None, None]
    with torch.no_grad():
        tint = networks[2](torch.from_numpy(L)).numpy()
    each = [np.concatenate((0 * L, warmth * L), 1) for warmth in (0.1, 0.2)]
    expected = np.stack([*(np.where(marks[:, 2:] > 0, marks[:, :2], ab) for ab in each), tint])
    for backend in ("torch", "onnx"):
        prediction = Colorizer.load(file, backend=backend).answer(L, marks=marks)
        np.testing.assert_allclose(prediction.members, expected[:, 0], atol=1e-5)
        np.testing.assert_allclose(prediction.ab, expected.mean(0)[0], atol=1e-5)
