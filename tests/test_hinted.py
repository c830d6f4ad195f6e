"""Points and palettes: what the network makes of them, and how training draws them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_ENCODERS
from omegaconf import DictConfig, OmegaConf
from scipy import ndimage

from colorization import Colorizer, train
from colorization import eval as evaluation
from colorization.colorize.colorizer import Settings
from colorization.core import color
from colorization.core.hydra_main import instantiate
from colorization.evaluation import hinting
from colorization.models import checkpoint, descriptions, onnx_export
from colorization.networks.encoder_unet import ClassUNet
from colorization.networks.hinted import HintedUNet
from colorization.training.stages.hinted import LARGEST_PATCH, palettes, revealed

SPEC = {"encoder": "test_efficientnet", "grid": 10, "vividness": 0.5, "temperature": 0.7}


def lively() -> HintedUNet:
    """A network that listens."""
    torch.manual_seed(0)
    network = HintedUNet(**SPEC).eval()
    for part in (*network.hints, *network.palette):
        torch.nn.init.normal_(part[2].weight, 0, 0.3)
    return network


def save_lively(file: Path, compose_train: Callable[..., DictConfig]) -> None:
    """Weights of :func:`lively`, which say of themselves what a run's do."""
    about = OmegaConf.to_container(compose_train("model=hinted").model.about)
    network = {"_target_": "colorization.networks.hinted.HintedUNet", **SPEC}
    checkpoint.save_weights(file, lively(), descriptions.describe("hinted", network, {}, about=about))


def given(height: int, width: int) -> dict[str, torch.Tensor]:
    hints = torch.zeros(1, 3, height, width)
    hints[:, :, 5:8, 9:12] = torch.tensor([0.5, -0.2, 1.0])[:, None, None]
    palette = color.palette(torch.tensor([[[20.0, 40.0], [0.0, -20.0]]]), torch.tensor([[0.25, 0.75]]))
    return {"hints": hints, "palette": palette}


@pytest.mark.parametrize("size", [(32, 32), (45, 71), (130, 97)])
def test_nothing_told_is_no_difference_and_anything_told_is(size: tuple[int, int]) -> None:
    network = lively()
    L, told = torch.rand(1, 1, *size), given(*size)
    nothing = {name: torch.zeros_like(value) for name, value in told.items()}
    with torch.no_grad():
        alone = network(L)
        assert alone.shape == (1, 2, *size)
        assert torch.equal(alone, network(L, **nothing))
        for name in told:
            assert not torch.allclose(alone, network(L, **{**nothing, name: told[name]}), atol=1e-3)
        # Grey is a colour that can be told, too.
        grey = told["hints"] * torch.tensor([0.0, 0.0, 1.0])[:, None, None]
        assert not torch.allclose(alone, network(L, hints=grey), atol=1e-3)


def test_training_starts_from_the_weights_of_the_classes(
    tmp_path: Path, compose_train: Callable[..., DictConfig]
) -> None:
    torch.manual_seed(1)
    classes = ClassUNet(**SPEC).eval()
    spec = {"_target_": "colorization.networks.encoder_unet.ClassUNet", **SPEC}
    file = tmp_path / "classes.safetensors"
    checkpoint.save_weights(file, classes, descriptions.describe("classes", spec, {}))
    settings = [f"model.network.{k}={v}" for k, v in SPEC.items()]
    stage = instantiate(compose_train(*SMALL_ENCODERS["hinted"], *settings).model)
    stage.take_weights(file)
    L = torch.rand(1, 1, 64, 48)
    with torch.no_grad():
        assert torch.equal(stage.network.eval()(L, **given(64, 48)), classes(L))
    other = instantiate(compose_train(*SMALL_ENCODERS["hinted"], *settings, "model.network.grid=20").model)
    with pytest.raises(ValueError, match="is not that of model=hinted"):
        other.take_weights(file)


def test_points_are_squares_of_the_truth_in_their_mean_colour() -> None:
    torch.manual_seed(2)
    L, ab = torch.rand(64, 1, 40, 56), torch.rand(64, 2, 40, 56) - 0.5
    numbers = torch.tensor([0, 1, 5, 16] * 16)
    hints = revealed(L, ab, numbers, 16).numpy()
    sides = set()
    for one, truth, number in zip(hints, ab.numpy(), numbers.tolist(), strict=True):
        marks, count = ndimage.label(one[2], np.ones((3, 3)))
        assert count <= number and (count > 0) == (number > 0)
        assert set(np.unique(one[2])) <= {0, 1} and not one[:2, one[2] == 0].any()
        if number == 1:
            (rows, columns) = ndimage.find_objects(marks)[0]
            np.testing.assert_allclose(
                one[:2, rows, columns],
                np.broadcast_to(truth[:, rows, columns].mean((1, 2), keepdims=True), one[:2, rows, columns].shape),
                atol=1e-5,
            )
            sides |= {rows.stop - rows.start, columns.stop - columns.start}
    assert min(sides) >= 1 and max(sides) <= LARGEST_PATCH and len(sides) > 5


def test_a_palette_says_which_colours_there_are_and_how_many() -> None:
    rng = np.random.default_rng(0)
    ab, shares = rng.uniform(-60, 60, (5, 2)).astype(np.float32), rng.dirichlet(np.ones(5)).astype(np.float32)
    bins = np.zeros(len(color.ab_grid(20)))
    for colour, share in zip(ab, shares, strict=True):
        near = np.exp(-((color.ab_grid(20) - colour) ** 2).sum(1) / (2 * 10**2))
        bins += share * near / near.sum()
    expected = [*np.sqrt(bins), *(shares @ ab / 110)]
    assert len(expected) == color.PALETTE_LENGTH
    for values in ((ab, shares), (torch.from_numpy(ab), torch.from_numpy(shares))):
        np.testing.assert_allclose(np.asarray(color.palette(*values)), expected, atol=1e-5)
    # As drawn in training: all colours of the photo, or a few.
    torch.manual_seed(0)
    truth = torch.full((400, 2, 8, 8), 30 / 110)
    truth[:, 0, :, 4:] = -30 / 110
    drawn = palettes(truth, 4)
    torch.testing.assert_close(drawn[:, :-2].square().sum(1), torch.ones(400))
    means = drawn[:, -2] * 110
    assert 0.4 < float((means.abs() < 1).float().mean()) < 0.9 and float(means.max()) > 29 > -29 > float(means.min())


def test_backends_mirror_images_and_files_are_told_alike(
    tmp_path: Path, compose_train: Callable[..., DictConfig]
) -> None:
    file = tmp_path / "hinted.safetensors"
    save_lively(file, compose_train)
    onnx_export.export(file, file.with_suffix(".onnx"))
    L, told = (
        np.random.default_rng(0).random((1, 1, 48, 64), np.float32),
        {k: v.numpy() for k, v in given(48, 64).items()},
    )
    ours, twin = (Colorizer.load(file, backend=name) for name in ("torch", "onnx"))
    settings = Settings(vividness=0.9, flips=True)
    one, other = (c.answer(L, settings, **told) for c in (ours, twin))
    np.testing.assert_allclose(one.ab, other.ab, atol=1e-3)
    np.testing.assert_allclose(ours.uncertainty(one), twin.uncertainty(other), atol=1e-2)
    assert np.abs(ours.uncertainty(one) - ours.uncertainty(ours.answer(L))).max() > 0.1
    mirrored = {"hints": told["hints"][..., ::-1].copy(), "palette": told["palette"]}
    of_mirror = ours.answer(L[..., ::-1].copy(), settings, **mirrored)
    np.testing.assert_allclose(of_mirror.ab[..., ::-1], one.ab, atol=1e-5)


def test_a_run_learns_to_listen(run_main: Callable[..., int], tmp_path: Path) -> None:
    small = ["datamodule=sample", "datamodule.image_size=32", "datamodule.crops=2", "datamodule.batch_size=4"]
    more = ["datamodule.num_workers=0", "accelerator=cpu", "logger=csv", "lpips=false", "test=false", "model.alone=0"]
    assert run_main(train.main, *SMALL_ENCODERS["hinted"], *small, *more, "run_id=h", "trainer.max_epochs=2") == 0
    network, description = checkpoint.load_network(tmp_path / "outputs/runs/h/weights.safetensors")
    assert list(descriptions.inputs(description)) == ["vividness", "hints", "palette"]
    assert all(part[2].weight.abs().max() > 0 for part in (*network.hints, *network.palette))


def test_an_evaluation_tells_points_of_the_truth(run_main: Callable[..., int], tmp_path: Path) -> None:
    network = lively()
    file = tmp_path / "hinted.safetensors"
    spec = {"_target_": "colorization.networks.hinted.HintedUNet", **SPEC}
    inputs = {"L": {}, "vividness": {}, "hints": {"channels": 3}, "palette": {"length": color.PALETTE_LENGTH}}
    document = descriptions.describe("hinted", spec, {}, {"image_size": 32}, about={"inputs": inputs})
    checkpoint.save_weights(file, network, document)
    data = ["datamodule=sample", "datamodule.image_size=32", "datamodule.num_workers=0", "accelerator=cpu"]
    asked = [f"weights={file}", "lpips=false", "strips=0", "bootstrap=50", "eval_dir=e"]
    assert run_main(evaluation.main, *data, *asked, "hints=[0,3]") == 0
    told = json.loads((tmp_path / "e/metrics.json").read_text())["rows"]
    assert run_main(evaluation.main, *data, *asked) == 0
    alone = json.loads((tmp_path / "e/metrics.json").read_text())["rows"]
    assert [row.get("hints") for row in told] == [None, None, 0, 3]
    distance = {row["name"]: row["delta_e2000"]["mean"] for row in (*told, *alone)}
    assert distance["hinted, 0 hints"] == distance["hinted"] != distance["hinted, 3 hints"]
    assert run_main(evaluation.main, *data, *asked, "hints=[3,-1]") == 2
    assert run_main(evaluation.main, *data, *asked, "hints=[3]", "uncertainty=true") == 2


def test_points_of_an_evaluation_are_those_of_the_photo() -> None:
    lab = torch.rand(2, 3, 40, 50) * 50
    few, more = (hinting.revealed(lab, [7, 9], n) for n in (2, 60))
    assert torch.equal(few, hinting.revealed(lab.flip(0), [9, 7], 2).flip(0))
    assert few[:, 2].sum((1, 2)).tolist() <= [98.0, 98.0] and (more[:, 2] >= few[:, 2]).all()
    for hints, truth in zip(few.numpy(), lab.numpy(), strict=True):
        marks, count = ndimage.label(hints[2])
        for i, place in enumerate(ndimage.find_objects(marks), 1):
            if (marks[place] == i).sum() == 49:  # a whole square alone
                mean = truth[(slice(1, 3), *place)].mean((1, 2)) / 110
                np.testing.assert_allclose(hints[(slice(0, 2), *place)].mean((1, 2)), mean, atol=1e-5)
        assert count in (1, 2)
    assert not hinting.revealed(lab, [7, 9], 0).any()
