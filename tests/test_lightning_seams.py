"""The inner parts of Lightning that are used, on a small training that Lightning runs itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from colorization.training import lightning_seams

BATCHES = 5


class Loader(DataLoader):
    """Says how far it is, as :class:`colorization.data.loading.PhotoLoader` does."""

    def state_dict(self) -> dict[str, int]:
        return {"done": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise AssertionError("nothing is resumed here")


class TwoOptimizers(pl.LightningModule):
    """Steps both in each batch, and counts the first alone."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)
        self.told: list[tuple[int, int, bool, bool]] = []

    def configure_optimizers(self) -> list[Any]:
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        first, second = self.optimizers()
        lightning_seams.do_not_count(second)
        for optimizer in (first, second):
            self.manual_backward(self.layer(batch).sum())
            optimizer.step()
        trainer = self.trainer
        self.told.append(
            (
                lightning_seams.batch_of_run(trainer),
                lightning_seams.batches_of_epoch(trainer),
                lightning_seams.epoch_has_more(trainer),
                lightning_seams.will_log(trainer),
            )
        )


def fit(folder: Path, **settings: Any) -> tuple[pl.Trainer, TwoOptimizers]:
    module = TwoOptimizers()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=folder, **settings,
    )  # fmt: skip
    trainer.fit(module, Loader(torch.ones(BATCHES, 1)))
    return trainer, module


def test_counts_are_lightnings(tmp_path: Path) -> None:
    trainer, module = fit(tmp_path, max_epochs=2, log_every_n_steps=2)
    runs, epochs, more, _ = zip(*module.told, strict=True)
    assert list(runs) == list(range(2 * BATCHES))
    assert list(epochs) == 2 * list(range(BATCHES))
    assert list(more) == 2 * [*([True] * (BATCHES - 1)), False]
    assert trainer.global_step == 2 * BATCHES  # not twice that: the second optimizer is left out


def test_it_knows_when_a_row_is_written(tmp_path: Path) -> None:
    module = fit(tmp_path, max_epochs=1, log_every_n_steps=BATCHES)[1]
    assert sum(shows for *_, shows in module.told) == 1


@pytest.mark.parametrize("place", ["before validation", "between batches", "within an epoch", "at the end of an epoch"])
def test_a_checkpoint_has_the_counts_that_are_changed(place: str, tmp_path: Path) -> None:
    """That a resume then goes on at the very place, test_resume.py and test_train.py show."""
    changed = []

    class Save(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "a.ckpt")

        def on_save_checkpoint(self, trainer: pl.Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
            was = copy.deepcopy(checkpoint["loops"])
            lightning_seams.tell_place(trainer, checkpoint, place)
            changed.append(checkpoint["loops"] != was)

    fit(tmp_path, max_epochs=1, callbacks=[Save()])
    assert changed == BATCHES * [place != "at the end of an epoch"]
