"""Lightning's internals that are used here: the counts of its loops, in memory and in checkpoints.

Lightning promises none of it. ``pyproject.toml`` bounds its version therefore, and ``tests/test_lightning_seams.py``
fails if another version has moved something.
"""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl


def will_log(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes a row of metrics at this step."""
    return trainer._logger_connector.should_update_logs


def do_not_count(optimizer: Any) -> None:
    """Leave the next steps of a ``LightningOptimizer`` out of ``global_step``."""
    optimizer._on_before_step = optimizer._on_after_step = _nothing


def _nothing() -> None:
    """Replaces the hooks by which Lightning counts an optimizer's step."""


def batches_of_epoch(trainer: pl.Trainer) -> int:
    """How many batches of this epoch have been trained on."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed


def batch_of_run(trainer: pl.Trainer) -> int:
    """The number of the current batch, from 0, over all epochs."""
    return trainer.fit_loop.epoch_loop.total_batch_idx


def epoch_has_more(trainer: pl.Trainer) -> bool:
    """Whether batches of this epoch are left."""
    return not trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def tell_place(trainer: pl.Trainer, checkpoint: dict[str, Any], place: str | None) -> None:
    """Change the counts in a checkpoint: a resume then continues exactly at the place of the save.

    On resume Lightning follows its counts alone, and they tell fewer places apart than there are.

    Args:
        trainer: which saves.
        checkpoint: changed in place.
        place: ``before validation``, ``between batches`` or ``within an epoch`` (whose rest is to come, though
            ``max_steps`` has ended it); for any other Lightning is right.
    """
    loops = checkpoint["loops"]["fit_loop"]
    if place == "before validation":
        # It validates if it finds a validation batch that was started and not processed.
        total = loops["epoch_loop.val_loop.batch_progress"]["total"]
        total["ready"] = total["started"] = total["processed"] + 1
        total["completed"] = total["processed"]
    elif place == "between batches":
        # The next batch has been fetched and counted as ready.
        progress = loops["epoch_loop.batch_progress"]
        progress["total"]["ready"] -= 1
        progress["current"]["ready"] -= 1
        progress["is_last_batch"] = False
        loops["state_dict"]["combined_loader"][0]["done"] -= 1
    elif place == "within an epoch":
        # The epoch has been counted as processed, and on resume a validation that was due is counted as a batch.
        for count in ("total", "current"):
            loops["epoch_progress"][count]["processed"] -= 1
        due = batches_of_epoch(trainer) % (trainer.val_check_batch or math.inf) == 0
        if due and trainer.fit_loop.epoch_loop._should_check_val_epoch():
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def skip_ended_epoch(trainer: pl.Trainer) -> None:
    """On a resume from the end of an epoch that ``max_steps`` reached: Lightning would end that epoch once more."""
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop._restarting = loop.epoch_loop.restarting = False
