"""Callbacks that monitor a run: files of the run folder, samples, throughput, progress, NaN."""

from __future__ import annotations

import logging
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only
from torch.optim.swa_utils import get_ema_multi_avg_fn

from colorization.core import color, devices, distributed
from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.evaluation import figures
from colorization.evaluation.metrics import lpips_network
from colorization.training import lightning_seams
from colorization.training.stages.base import ColorizationStage

log = logging.getLogger(__name__)


class EMA(WeightAveraging):
    """Validates, checkpoints and exports an exponential moving average of the weights, which forgets its start.

    After update n = 1, 2, ... the average keeps min(decay, (1 + n) / (10 + n)) of itself and takes the rest from the
    weights, as ``num_updates`` does in TensorFlow's ``ExponentialMovingAverage``. With a constant 0.999 a run of 400
    steps would end with two thirds of its initial weights.

    Args:
        decay: share of itself that the average keeps at each step of a long run, in [0, 1].
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise InputError(f"callbacks.ema.decay={decay}: should be between 0 and 1")
        super().__init__(multi_avg_fn=self._update)
        self.decay = decay

    def _update(self, average: Any, current: Any, updates: torch.Tensor | int) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(average, current, updates)


class FiniteCheck(Callback):
    """Stops the run when a loss or a weight is NaN or infinite, before a checkpoint with it is written.

    The losses are checked after every batch on a CPU. On an accelerator each check waits for the device, so it is
    done every ``log_every_n_steps`` and before each checkpoint.

    Raises:
        InputError: names the value, the place in the run, the batch's photos, the optimizers' states and the last good
            checkpoint.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._batches: list[tuple[int, torch.Tensor | None, Mapping[str, Any]]] = []  # since the last look

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ColorizationStage)
        self._batches.append((batch_idx, batch.get("index"), pl_module.train_values))
        if pl_module.device.type == "cpu" or (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        if not self._batches:  # nothing has changed since the start
            return
        self._look(trainer, pl_module)
        weights = {k: v for k, v in pl_module.state_dict().items() if v.is_floating_point()}
        if not _all_finite(weights.values()):
            name = next(k for k, v in weights.items() if not _all_finite([v]))
            raise InputError(f"the weights of {name} are not finite{self._place(trainer, *self._batches[-1][:2])}")

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches, self._batches = self._batches, self._batches[-1:]
        values = [v for *_, values in batches for v in values.values() if isinstance(v, torch.Tensor)]
        if _all_finite(values):
            return
        for batch_idx, index, losses in batches:
            for name, value in losses.items():
                if not math.isfinite(value):
                    raise InputError(f"train/{name} is {float(value)}{self._place(trainer, batch_idx, index)}")

    def _place(self, trainer: pl.Trainer, batch_idx: int, index: torch.Tensor | None) -> str:
        names = trainer.datamodule.training_names(index)  # type: ignore[attr-defined]
        optimizers = []
        for optimizer in trainer.optimizers:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norms = {"gradient": [p.grad for p in parameters if p.grad is not None]}
            for state in optimizer.state.values():
                for key, value in state.items():
                    if isinstance(value, torch.Tensor) and value.dim():
                        norms.setdefault(key, []).append(value)
            said = [f"|{key}| {float(_norm(tensors)):.3g}" for key, tensors in norms.items() if tensors]
            rate = optimizer.param_groups[0]["lr"]
            optimizers.append(", ".join([f"{type(optimizer).__name__} lr {rate:.3g}", *said]))
        good = self.run.last_checkpoint
        return (
            f" in epoch {trainer.current_epoch}, batch {batch_idx}, step {trainer.global_step} of {self.run.id}; "
            f"the batch: {', '.join(names)}; the optimizers: {'; '.join(optimizers)}; "
            f"last good checkpoint: {good if good.is_file() else 'none yet'} "
            "(trainer.gradient_clip_val=1 may help from there, or a smaller model.optimizer.lr in a new run)"
        )


def _all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no tensor has NaN or Inf; one wait for the device."""
    checks = [t.isfinite().all() for t in tensors]
    return not checks or bool(torch.stack(checks).all())


def _norm(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack([t.detach().float().norm() for t in tensors]).norm()


class MetricsFile(Logger):
    """A Lightning logger that appends to the run's ``metrics.jsonl``; names are ``<split>/<name>``."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return self.run.id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        epoch = metrics.get("epoch")
        place = {"step": step, "epoch": None if epoch is None else int(epoch)}
        rows = []
        for key, value in metrics.items():
            split, _, name = key.partition("/")
            if name:
                number = float(value) if math.isfinite(value) else None  # JSON has no NaN
                rows.append({**place, "split": split, "name": name, "value": number})
            if name == "psnr" and f"{split}/lpips" not in metrics:
                reason = lpips_network()[1]
                rows.append({**place, "split": split, "name": "lpips", "value": None, "reason": reason})
        self.run.append_metrics(rows)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """The run's ``config.yaml`` holds them."""


class CSVRows(CSVLogger):
    """Lightning's CSV logger, which keeps the rows of a run that is resumed, and writes each at once.

    A stretch that was trained again after a crash has two rows a step; the last one counts.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file."""
        if self._experiment is None:
            self._experiment = _KeepingWriter(self.log_dir)
        return self._experiment


class _KeepingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Lightning would delete the file here."""
        file = Path(self.metrics_file_path)
        if not file.is_file():
            return
        whole = file.read_bytes().rpartition(b"\n")[0]  # without a line that a crash cut short
        file.write_bytes(whole + b"\n" if whole else b"")
        if whole:
            self.metrics_keys = whole.split(b"\n")[0].decode().strip().split(",")
        else:
            file.unlink()


class RunStatus(Callback):
    """Keeps ``status.json`` current: epoch, step, ETA, best metric; at most every ``every_seconds`` within an epoch.

    Args:
        run: the run.
        monitor: the metric whose best value is shown, a ``val/<name>``; ``None`` for none.
        mode: whether that is the lowest (``min``) or the highest (``max``).
        begin: called when training really starts, before anything is written.
    """

    def __init__(
        self,
        run: Run,
        monitor: str | None,
        mode: str = "min",
        begin: Callable[[], None] = lambda: None,
        every_seconds: float = 2.0,
    ) -> None:
        self.run, self.monitor, self.every_seconds = run, monitor, every_seconds
        self._better, self._begin = (max if mode == "max" else min), begin
        self._clock = Clock()
        self._written = 0.0
        best = run.status().get("best") or {}
        self._best: float | None = best.get("value")
        if best.get("name") != monitor and monitor is not None:  # another criterion than before
            self._best = run.best_validation(monitor, mode).get(monitor)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()
        self._clock.start(trainer)
        self._write(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if time.monotonic() - self._written > self.every_seconds:
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor or "")
        if not trainer.sanity_checking and value is not None:
            self._best = float(value) if self._best is None else self._better(self._best, float(value))
            self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)
        if distributed.is_main_process():
            self.run.update_status(peak_memory_mb=devices.peak_memory_mb(pl_module.device))

    @rank_zero_only
    def _write(self, trainer: pl.Trainer) -> None:
        self._written = time.monotonic()
        best = None if self._best is None or self.monitor is None else {"name": self.monitor, "value": self._best}
        self.run.update_status(
            epoch=trainer.current_epoch,
            max_epochs=trainer.max_epochs,
            step=trainer.global_step,
            eta_seconds=self._clock.eta(trainer),
            best=best,
        )


class Clock:
    """How far a fit is and how long the rest will take."""

    def start(self, trainer: pl.Trainer) -> None:
        """Call when training starts or resumes."""
        self._start, self._from = time.monotonic(), lightning_seams.batch_of_run(trainer) + 1

    def eta(self, trainer: pl.Trainer) -> float | None:
        """Seconds to the end, from the average rate so far (validation included); ``None`` while unknown."""
        done = lightning_seams.batch_of_run(trainer) + 1
        total = math.inf
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            total = trainer.max_epochs * trainer.num_training_batches
        if trainer.max_steps >= 0:
            total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
        if done <= self._from or not math.isfinite(total):
            return None
        return round((time.monotonic() - self._start) / (done - self._from) * max(0.0, total - done), 1)


class Throughput(Callback):
    """Logs ``train/images_per_second`` over each logging interval, loading included, validation not, and
    ``train/peak_memory_mb`` so far (see :func:`colorization.core.devices.peak_memory_mb`)."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._start = 0, time.monotonic()  # a run that resumes within an epoch does not start one

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._start = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch["rgb"]) * distributed.world_size()
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.monotonic()
            pl_module.log("train/images_per_second", self._images / (now - self._start), batch_size=1)
            if (peak := devices.peak_memory_mb(pl_module.device)) is not None:
                pl_module.log("train/peak_memory_mb", peak, batch_size=1)
            self._images, self._start = 0, now


class SampleGrid(Callback):
    """A grid ``[grey | prediction | truth]`` of the first validation photos, each epoch: file, TensorBoard, W&B.

    Args:
        folder: gets ``epoch_0000.png``, ...
        photos: how many.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.photos = folder, photos
        self._batch: dict[str, torch.Tensor] | None = None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Within the loop, not after it: here the weights are those that are validated (averaged ones under EMA).
        if batch_idx > 0 or trainer.sanity_checking or trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, ColorizationStage)
        if self._batch is None and self.photos:
            self._batch = trainer.datamodule.first_photos(batch, self.photos)  # type: ignore[attr-defined]
        if self._batch is None:  # all of them have become unreadable
            return
        photos = {k: v.to(pl_module.device) for k, v in self._batch.items()}
        L, _ab, lab = pl_module.read(photos)
        predictions = color.join(color.split(lab)[0], pl_module(L))
        picture = figures.grid([figures.strip(p, t, g) for p, t, g in zip(predictions, lab, L, strict=True)])
        with atomic_path(self.folder / f"epoch_{trainer.current_epoch:04d}.png") as temporary:
            Image.fromarray(picture).save(temporary)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/samples", picture, trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("val/samples", [Image.fromarray(picture)])


class PlainProgress(Callback):
    """Progress as log lines, if there is no terminal: each epoch's end and every ``every_seconds``."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._clock = Clock()
        self._said = 0.0
        self._validated = False  # since the last line

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.start(trainer)
        self._said = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._said > self.every_seconds:
            self._say(trainer, f"batch {batch_idx + 1}/{trainer.num_training_batches}", "train/")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say(trainer, "done", "" if self._validated else "train/")  # (an earlier epoch's figures are still there)
        self._validated = False

    @rank_zero_only
    def _say(self, trainer: pl.Trainer, where: str, prefix: str) -> None:
        self._said = time.monotonic()
        eta = self._clock.eta(trainer)
        shown = ("train/loss", "val/delta_e2000", "val/psnr", "val/error")
        values = trainer.callback_metrics
        said = ", ".join(f"{k} {float(values[k]):.4g}" for k in shown if k.startswith(prefix) and k in values)
        left = "" if eta is None else f", {int(eta) // 3600}:{int(eta) % 3600 // 60:02d}:{int(eta) % 60:02d} left"
        log.info("epoch %d/%s %s: %s%s", trainer.current_epoch + 1, trainer.max_epochs, where, said, left)
