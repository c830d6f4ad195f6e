"""The ResNet-18 for fusion: labels, its training as a run, and what fusion and the tables make of its file."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from colorization import eval as evaluation
from colorization import train
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.data.cifar10 import CIFAR10DataModule
from colorization.evaluation.rows import model_row
from colorization.models import checkpoint, descriptions, pretrained
from colorization.networks import building
from colorization.networks.fusion import FusionUNet
from colorization.networks.resnet import GreyResNet18
from colorization.training.losses import ClassLoss

CLASSES = {"cat": 40, "dog": 120, "ship": 210}  # and the lightness of its photos


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 training and 9 test photos in three classes, each of its own lightness."""
    path = tmp_path_factory.mktemp("data") / "cifar.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for i in range(45):
            label = list(CLASSES)[i % 3]
            content = io.BytesIO()
            pixels = CLASSES[label] + rng.integers(-20, 21, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(content, "PNG")
            member = tarfile.TarInfo(f"{'train' if i < 36 else 'test'}/{label}/{i:04d}.png")
            member.size = len(content.getvalue())
            content.seek(0)
            tar.addfile(member, content)
    return path


def overrides(archive: Path, *more: str) -> list[str]:
    data = [f"datamodule.archive={archive}", f"datamodule.data_dir={archive.parent}", "datamodule.val_photos=6"]
    small = ["datamodule.batch_size=8", "datamodule.num_workers=0", "accelerator=cpu", "logger=csv"]
    small += ["accelerator.compile=false"]  # a minute of g++ each; test_stages.py has it
    return ["experiment=cifar10/resnet18", *data, *small, "model.network.classes=3", "model.network.size=32", *more]


@pytest.fixture(scope="module")
def classifier(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as a run leaves it, of random weights."""
    path = tmp_path_factory.mktemp("classifier") / "resnet18.safetensors"
    spec = {"_target_": "colorization.networks.resnet.GreyResNet18", "size": 32, "classes": 3}
    torch.manual_seed(3)
    description = descriptions.describe("resnet18", spec, {}, {"name": "cifar10"}, about={"kind": "classifier"})
    checkpoint.save_weights(path, GreyResNet18(32, 3), description)
    return path


def test_labels_are_the_class_folders_and_follow_the_photos_into_each_split(archive: Path) -> None:
    module = CIFAR10DataModule(str(archive.parent), str(archive), val_photos=6, num_workers=0, image_size=32)
    module.setup()
    assert module.classes == ["cat", "dog", "ship"]
    for split, photos in module.photos.items():
        lightness = [int(photos.read(i).mean() // 80) for i in range(len(photos.names))]
        assert module.class_numbers(split) == lightness


def test_the_loss_is_cross_entropy_with_smoothed_labels() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    target = 0.9 * nn.functional.one_hot(labels, 3) + 0.1 / 3
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ClassLoss(label_smoothing=0.1)(logits, labels), expected)


@pytest.mark.slow
def test_it_learns_stops_and_goes_on_as_a_run_and_fusion_takes_its_file(
    archive: Path, run_main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steady = [
        "callbacks.ema.decay=0.3",
        "model.lr_schedule=constant",
        "model.lr_warmup=0",
        "datamodule.crop_scale=[1,1]",
    ]
    assert run_main(train.main, *overrides(archive, *steady, "run_id=r", "trainer.max_epochs=3")) == 0
    run = Run(tmp_path / "outputs" / "runs" / "r")
    assert run_main(train.main, "run_id=r", "ckpt_path=last", "trainer.max_epochs=6") == 0
    assert run.status()["state"] == "finished" and run.status()["best"]["name"] == "val/error"
    assert run.status()["weights"] == "resnet18.safetensors" and not run.weights_file.exists()
    errors = [r["value"] for r in run.metrics() if (r["split"], r["name"]) == ("val", "error")]
    assert len(errors) == 6 and run.status()["best"]["value"] == min(errors)
    (test,) = {r["value"] for r in run.metrics() if (r["split"], r["name"]) == ("test", "error")} or {None}
    file = run.path / "resnet18.safetensors"
    network, description = checkpoint.load_network(file)
    module = CIFAR10DataModule(str(archive.parent), str(archive), val_photos=6, num_workers=0, image_size=32)
    module.setup()
    photos = np.stack([module.photos["test"].read(i) for i in range(9)]).transpose(0, 3, 1, 2)
    from colorization.core import color

    with torch.no_grad():
        answers = network(color.split(color.rgb_to_lab(torch.from_numpy(photos)))[0]).argmax(1).tolist()
    wrong = np.mean(np.array(answers) != module.class_numbers("test"))
    assert wrong == pytest.approx(test) and wrong < 0.3  # three kinds of lightness are soon told apart
    assert description["metrics"]["val/error"] == pytest.approx(min(errors), abs=1e-5)

    # Another goes on from its weights, at another size.
    finer = ["run_id=finer", "init_weights=r", "model.network.size=64", "model.optimizer.lr=1e-12"]
    assert run_main(train.main, *overrides(archive, *finer, "trainer.max_epochs=1")) == 0
    taken, _ = checkpoint.load_network(tmp_path / "outputs" / "runs" / "finer" / "resnet18.safetensors")
    for (name, ours), theirs in zip(taken.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)

    # No colorizer, and nobody takes it for one.
    assert run_main(evaluation.main, f"weights={file}", "datamodule=sample", "datamodule.image_size=32") == 2
    assert "a classifier, not a colorizer" in capsys.readouterr().err
    assert run_main(train.main, *overrides(archive, "datamodule=sample", "run_id=x")) == 2

    # Fusion runs on it and says so, in its weights and in the table.
    fusion = FusionUNet(width=4, depth=2, resnet_size=32)
    assert pretrained.load(fusion, resnet_weights=str(file)) == {"resnet": "cifar10-grey"}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["baseline", "unet", "sweep", "gan", "fusion-unet", "fusion"])
def test_the_experiments_that_use_it_and_their_like_run(
    experiment: str, archive: Path, run_main: Callable[..., int]
) -> None:
    given = [o for o in overrides(archive) if not o.startswith(("experiment", "model"))]
    resnet = ["model.resnet_weights=null"] if experiment.startswith("fusion") else []
    assert run_main(train.main, f"experiment=cifar10/{experiment}", *given, *resnet, "debug=fast") == 0


def test_fusion_has_the_classifiers_features(classifier: Path) -> None:
    fusion = FusionUNet(width=4, depth=2, resnet_size=32)
    assert pretrained.load(fusion, resnet_weights=str(classifier)) == {"resnet": "cifar10-grey"}
    network, _ = checkpoint.load_network(classifier)
    assert isinstance(network, GreyResNet18)
    L = torch.rand(2, 1, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(network.resnet.fc(fusion.resnet(L)), network(L))
    assert not any(p.requires_grad for p in fusion.resnet.parameters())


def test_files_that_fusion_cannot_use_are_refused_by_key(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.network\.resnet_size=224: .* give model\.network\.resnet_size=32"):
        pretrained.load(FusionUNet(width=4, depth=2), resnet_weights=str(classifier))
    other = tmp_path / "unet.safetensors"
    spec = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}
    checkpoint.save_weights(other, building.build_network(spec), descriptions.describe("baseline", spec, {}))
    for file in (other, tmp_path / "missing.safetensors"):
        with pytest.raises(InputError, match=rf"model\.resnet_weights={re.escape(str(file))}"):
            pretrained.load(FusionUNet(width=4, depth=2), resnet_weights=str(file))


@pytest.mark.parametrize("version", ["this", "one that said answers", "one that said nothing"])
def test_a_classifier_is_no_colorizer(version: str, classifier: Path, tmp_path: Path) -> None:
    """It says so itself; earlier versions said it otherwise, or not at all."""
    network, description = checkpoint.load_network(classifier)
    if version != "this":
        del description["about"]
    if version == "one that said answers":
        description["answers"] = "classes"
    checkpoint.save_weights(tmp_path / "c.safetensors", network, description)
    with pytest.raises(InputError, match="a classifier, not a colorizer"):
        checkpoint.load_weights(tmp_path / "c.safetensors")
    assert descriptions.about(description)["outputs"] == ["classes"]


@pytest.mark.parametrize("argument", ["classes", "merge"])
def test_an_argument_s_name_says_nothing_of_a_network(argument: str) -> None:
    spec = {"_target_": "colorization.networks.mine.Mine", argument: 7}
    for known in (descriptions.describe("mine", spec, {}), {"network": spec}):
        assert descriptions.kind(known) == descriptions.COLORIZER
        assert descriptions.merge(known) == "mean"


def test_a_kind_that_is_unknown_is_refused(classifier: Path, tmp_path: Path) -> None:
    network, description = checkpoint.load_network(classifier)
    description["about"]["kind"] = "upscaler"
    checkpoint.save_weights(tmp_path / "u.safetensors", network, description)
    with pytest.raises(InputError, match="of kind upscaler"):
        checkpoint.load_network(tmp_path / "u.safetensors")


@pytest.mark.parametrize("source", ["cifar10-grey", "imagenet", "random"])
def test_rows_name_their_resnet(source: str, tmp_path: Path) -> None:
    spec = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}
    pretrained = {"resnet": source, "network": "fusion-unet of cifar10"}
    path = tmp_path / "w.safetensors"
    checkpoint.save_weights(path, building.build_network(spec), descriptions.describe("fusion", spec, pretrained))
    row = model_row(path, "cpu")
    assert row.name == f"fusion ({source} resnet)"
    assert json.loads(json.dumps(row.facts))["pretrained"] == pretrained
