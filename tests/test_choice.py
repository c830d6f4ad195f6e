"""Which epoch's weights are the run's: the monitor of each kind of stage, and what a sweep gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMALL_STAGES
from torch import nn

from colorization import train
from colorization.core import hydra_main
from colorization.core.runs import Run
from colorization.evaluation import metrics
from colorization.models import checkpoint
from colorization.summarize import collect
from colorization.training.stages.gan import GANStage

SMALL = [
    "datamodule=sample", "datamodule.image_size=32", "datamodule.crops=1", "datamodule.batch_size=2",
    "datamodule.num_workers=0", "accelerator=cpu", "logger=csv", "trainer.max_epochs=3", "samples=1", "run_id=r",
]  # fmt: skip
# ΔE2000, colorfulness of the predictions and of the truths in three epochs. ΔE2000 is lowest in the first, a dull one;
# with the distance of colorfulness the sums are 24, 17 and 22.
EPOCHS = [(9.0, 5.0, 20.0), (11.0, 14.0, 20.0), (12.0, 30.0, 20.0)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations that measure the figures of ``EPOCHS``, and a test that measures those of the first."""
    epochs = iter([*EPOCHS, EPOCHS[0]])

    def compute(self: metrics.ColorizationMetrics) -> dict[str, torch.Tensor]:
        delta_e, predicted, true = map(torch.tensor, next(epochs))
        return {
            "psnr": torch.tensor(20.0),
            "delta_e2000": delta_e,
            "colorfulness": predicted,
            "true_colorfulness": true,
            "delta_colorfulness": (predicted - true).abs(),
        }

    monkeypatch.setattr(metrics.ColorizationMetrics, "compute", compute)


@pytest.mark.parametrize(("model", "best", "monitor", "value"), [
    ("baseline", 0, "val/delta_e2000", 9.0),
    ("gan", 1, "val/delta_e2000_cf", 17.0),
])  # fmt: skip
def test_the_best_checkpoint_is_chosen_by_the_stages_criterion(
    model: str, best: int, monitor: str, value: float, scripted: None, compose_train, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    returned = train.train(compose_train(*SMALL, *SMALL_STAGES[model]), [])
    run = Run(tmp_path / "outputs" / "runs" / "r")
    assert run.status()["best"] == {"name": monitor, "value": value}
    assert json.loads(json.dumps(checkpoint.read_checkpoint(run.best_checkpoint)["epoch"])) == best
    delta_e, predicted, true = EPOCHS[best]
    # What a sweep gets and what tables show are that epoch's, not the last one's.
    for figures in (returned, collect(run)):
        assert figures["val/delta_e2000"] == delta_e
        assert figures["val/delta_e2000_cf"] == delta_e + abs(predicted - true)
    exported, description = checkpoint.load_weights(run.weights_file)
    chosen, _ = checkpoint.load_weights(run.best_checkpoint)
    last, _ = checkpoint.load_weights(run.last_checkpoint)
    assert description["metrics"]["val/delta_e2000"] == delta_e
    assert _same(exported, chosen) and not _same(exported, last)


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_lpips_chooses_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GANStage.monitor() == "val/delta_e2000_cf"
    monkeypatch.setattr(metrics, "lpips_network", lambda: (nn.Identity(), None))
    assert GANStage.monitor() == "val/lpips"


def test_the_criterion_is_a_key(scripted: None, compose_train: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = "callbacks.best.monitor=val/delta_colorfulness"
    train.train(compose_train(*SMALL, *SMALL_STAGES["gan"], own), [])
    run = Run(tmp_path / "outputs" / "runs" / "r")
    assert run.status()["best"] == {"name": "val/delta_colorfulness", "value": 6.0}
    assert hydra_main.OmegaConf.load(run.path / "config.yaml").callbacks.best.monitor == "val/delta_colorfulness"
