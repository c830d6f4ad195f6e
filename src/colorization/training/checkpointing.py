"""Checkpoints: when a run saves them, and how it writes them. One is always whole."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from colorization.core import distributed
from colorization.core.atomic import atomic_path
from colorization.core.runs import Run
from colorization.core.signals import StopRequested, StopSignals
from colorization.models import checkpoint as checkpoints
from colorization.models import descriptions
from colorization.training import lightning_seams
from colorization.training.stages.base import ColorizationStage


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, to the disk, and renames it; ``last.ckpt`` becomes ``previous.ckpt``.

    At every instant ``last.ckpt`` is whole (one of the two, in a file system that cannot link).
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            with atomic_path(path) as temporary:
                with temporary.open("wb") as file:
                    _save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if path == self.run.last_checkpoint and path.is_file():
                    _keep(path, self.run.previous_checkpoint)
        except OSError as error:
            error.filename = str(path)  # not the temporary file's, or none
            raise


def _keep(last: Path, previous: Path) -> None:
    """Give the last checkpoint a second name: the previous one's."""
    link = previous.with_name(f".{previous.name}")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(last)
    except OSError:
        last.replace(previous)
        return
    link.replace(previous)
    link.unlink(missing_ok=True)  # nothing was renamed if both were one file already, after a kill at this point


def _save(content: Any, file: Any) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:  # torch closes its archive and fails again, over the file's own error
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def rng_state() -> dict[str, Any]:
    """The states of all global random generators, as plain data and tensors."""
    kind, key, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(key).tolist(), *rest),
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Return to the states of :func:`rng_state`; accelerators only if this machine has as many."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` current, and ends the run there when a signal asks for it.

    Written before each validation, at the end of each epoch, within an epoch between two batches when it is time, and
    when the run is stopped. A stop during validation loses the validation only: it is run again on resume. A run that
    ``max_steps`` ends within an epoch is validated there; given more steps it resumes with the rest of the epoch.

    Args:
        path: the file.
        stop: the signals of the run.
        every_minutes, every_steps: longest stretch of training, in time and in optimizer steps, that a crash can lose.
    """

    def __init__(self, path: Path, stop: StopSignals, every_minutes: float, every_steps: int | None) -> None:
        self.path, self.stop = path, stop
        self.every_seconds, self.every_steps = 60 * every_minutes, every_steps or math.inf
        self._restored: dict[str, Any] | None = None
        self._place: str | None = None  # of the current save
        self._validated = False  # since the batch before
        self._written, self._written_step = time.monotonic(), 0

    def _save(self, trainer: pl.Trainer, place: str) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._place = place
            trainer.save_checkpoint(self.path)
            self._place = None
            self._written, self._written_step = time.monotonic(), trainer.global_step

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        checkpoint["rng"] = distributed.gather(rng_state())
        assert isinstance(pl_module, ColorizationStage)
        done = lightning_seams.batches_of_epoch(trainer)
        if pl_module.accumulating(done) and done < trainer.num_training_batches:
            parameters = pl_module.named_parameters()
            checkpoint["gradients"] = {name: p.grad for name, p in parameters if p.grad is not None}
        lightning_seams.tell_place(trainer, checkpoint, self._place)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        rng = checkpoint["rng"]  # in old checkpoints, the state of a single process
        states = rng if isinstance(rng, list) else [rng]
        self._restored = {"rng": states, "gradients": checkpoint.get("gradients", {})}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.defer()
        self._written, self._written_step = time.monotonic(), trainer.global_step
        if distributed.is_distributed():  # else dropout would leave out the same in all processes
            torch.manual_seed(torch.initial_seed() + distributed.rank())
        if self._restored is not None:  # dropout continues as if there had been no interruption
            if distributed.rank() < len(self._restored["rng"]):
                set_rng_state(self._restored["rng"][distributed.rank()])
            for name, gradient in self._restored["gradients"].items():
                parameter = pl_module.get_parameter(name)
                parameter.grad = gradient.to(parameter.device)
            self._restored = None
        lightning_seams.skip_ended_epoch(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Not at a batch's end: its metrics are logged after that, and a crash in between would lose them. Not after a
        # validation: Lightning would count that batch twice on resume, and the last save is just behind.
        validated, self._validated = self._validated, False
        if batch_idx == 0 or validated:
            return
        assert isinstance(pl_module, ColorizationStage)
        if distributed.is_distributed() and pl_module.accumulating(batch_idx):
            return  # each process holds a part of the gradient
        late = time.monotonic() - self._written > self.every_seconds
        late = late or trainer.global_step - self._written_step >= self.every_steps
        if wanted := distributed.agree(2 * (self.stop.signum or 0) + late):
            self._save(trainer, "between batches")
            self._end(wanted // 2)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if _ends_within_an_epoch(trainer):
            trainer.should_stop = True  # makes Lightning validate; max_steps alone does not

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._save(trainer, "before validation")
            self._end(self.stop.agreed())

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not distributed.is_distributed():  # the others may have more batches, or less
            self._end(self.stop.agreed())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, "within an epoch" if _ends_within_an_epoch(trainer) else "at the end of an epoch")
        self._end(self.stop.agreed())

    @staticmethod
    def _end(signum: int) -> None:
        if signum:
            raise StopRequested(signum)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.deferred = False


def _ends_within_an_epoch(trainer: pl.Trainer) -> bool:
    """Whether ``max_steps`` is reached while batches of the epoch are left."""
    return lightning_seams.epoch_has_more(trainer) and 0 <= trainer.max_steps <= trainer.global_step


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which on a resume learns from the checkpoint itself how good the best one is.

    It survives a moved run folder and another criterion: the checkpoint has the figures
    of its validation. No path is saved with it.
    """

    @property
    def state_key(self) -> str:
        """The same for all criteria."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """The criterion and the score of the best."""
        return {"monitor": self.monitor, "mode": self.mode, "best_model_score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`on_train_start`."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the score to beat."""
        super().on_train_start(trainer, pl_module)
        file = Path(self.dirpath or "") / f"{self.filename}{self.FILE_EXTENSION}"
        if not file.is_file() or self.monitor is None:
            return
        content = checkpoints.read_checkpoint(file)
        states = [s for s in content.get("callbacks", {}).values() if "best_model_score" in s]
        score = next((s["best_model_score"] for s in states if s.get("monitor") == self.monitor), None)
        if score is None:
            score = content[descriptions.KEY]["metrics"].get(self.monitor)
        if score is not None:
            self.best_model_path = self.kth_best_model_path = str(file)
            self.best_model_score = self.kth_value = torch.as_tensor(score, device=pl_module.device)
            self.best_k_models = {str(file): self.best_model_score}
