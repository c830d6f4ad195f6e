"""What watches a run: the run folder's files, samples, throughput, progress, and stopping on request."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from colorization import color, figures
from colorization.metrics import lpips_network
from colorization.runs import Run
from colorization.stages.base import ColorizationStage

log = logging.getLogger(__name__)


class StopRequested(BaseException):
    """SIGTERM or Ctrl-C asked the run to end; no error. ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopSignals:
    """Within this context SIGTERM and SIGINT raise :class:`StopRequested`: at once, or while ``deferred`` (a training
    loop is running) when the loop asks at its next batch. A second signal does not wait."""

    def __init__(self) -> None:
        self.deferred = False
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not self.deferred:
            raise StopRequested(signum)
        log.info("%s: stopping after the batch in hand (again to stop at once)", signal.Signals(signum).name)

    def check(self) -> None:
        """Raise :class:`StopRequested` if a signal has come."""
        if self.signum is not None:
            raise StopRequested(self.signum)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` current, and ends the run there when a signal asks for it.

    Written before and after each validation, every ``every_minutes`` within an epoch, and when the run is stopped. A
    stop during validation loses the validation only: it is run again on resume.

    Args:
        path: the file.
        stop: the signals of the run.
        every_minutes: longest stretch of training that a crash can lose.
    """

    def __init__(self, path: Path, stop: StopSignals, every_minutes: float) -> None:
        self.path, self.stop, self.every_seconds = path, stop, 60 * every_minutes
        self._rng: dict[str, Any] | None = None
        self._before_validation = False
        self._written = time.monotonic()

    def _save(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path)
            self._written = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        checkpoint["rng"] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        if self._before_validation:
            # Lightning validates on resume only if it finds a validation batch that was started and not processed.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]
            progress["ready"] += 1
            progress["started"] += 1

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        self._rng = checkpoint["rng"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.deferred = True
        self._written = time.monotonic()
        if self._rng is not None:  # dropout goes on as if there had been no interruption
            torch.set_rng_state(self._rng["cpu"])
            if len(self._rng["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(self._rng["cuda"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            return  # validation or the end of the epoch follows at once; Lightning resumes cleanly from there only
        if self.stop.signum is not None or time.monotonic() - self._written > self.every_seconds:
            self._save(trainer)
            self.stop.check()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._before_validation = True
            self._save(trainer)
            self._before_validation = False
            self.stop.check()

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.stop.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        self.stop.check()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.deferred = False


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


class RunStatus(Callback):
    """Keeps ``status.json`` current: epoch, step, ETA, best metric; at most every ``every_seconds`` within an epoch.

    Args:
        run: the run.
        monitor: the metric whose best (lowest) value is shown.
    """

    def __init__(self, run: Run, monitor: str, every_seconds: float = 2.0) -> None:
        self.run, self.monitor, self.every_seconds = run, monitor, every_seconds
        self._clock = Clock()
        self._written = 0.0
        best = run.status().get("best") or {}
        self._best: float | None = best.get("value") if best.get("name") == monitor else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.start(trainer)
        self._write(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if time.monotonic() - self._written > self.every_seconds:
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if not trainer.sanity_checking and value is not None:
            self._best = float(value) if self._best is None else min(self._best, float(value))
            self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer) -> None:
        self._written = time.monotonic()
        best = None if self._best is None else {"name": self.monitor, "value": self._best}
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
        """Call when training starts or goes on."""
        self._start, self._from = time.monotonic(), trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def eta(self, trainer: pl.Trainer) -> float | None:
        """Seconds to the end, from the average rate so far (validation included); ``None`` while unknown."""
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        total = math.inf
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            total = trainer.max_epochs * trainer.num_training_batches
        if trainer.max_steps >= 0:
            total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
        if done <= self._from or not math.isfinite(total):
            return None
        return round((time.monotonic() - self._start) / (done - self._from) * max(0.0, total - done), 1)


class Throughput(Callback):
    """Logs ``train/images_per_second`` over each logging interval, loading included, validation not."""

    def __init__(self) -> None:
        self._images, self._start = 0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._start = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch["rgb"])
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = time.monotonic()
            pl_module.log("train/images_per_second", self._images / (now - self._start), batch_size=1)
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
        if self._batch is None:
            dataset = trainer.datamodule.val_dataloader().dataset  # type: ignore[attr-defined]
            self._batch = dataset.__getitems__([(0, i) for i in range(min(self.photos, len(dataset)))])
        if self._batch is None:  # all of them have become unreadable
            return
        photos = {k: v.to(pl_module.device) for k, v in self._batch.items()}
        L, _ab, lab = pl_module.read(photos)
        predictions = color.join(color.split(lab)[0], pl_module(L))
        picture = figures.grid([figures.strip(p, t, g) for p, t, g in zip(predictions, lab, L, strict=True)])
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(self.folder / f"epoch_{trainer.current_epoch:04d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/samples", picture, trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("val/samples", [Image.fromarray(picture)])


class PlainProgress(Callback):
    """Progress as log lines, for when there is no terminal: each epoch's end and every ``every_seconds``."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._clock = Clock()
        self._said = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.start(trainer)
        self._said = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._said > self.every_seconds:
            self._say(trainer, f"batch {batch_idx + 1}/{trainer.num_training_batches}", "train/")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._say(trainer, "done", "")

    @rank_zero_only
    def _say(self, trainer: pl.Trainer, where: str, prefix: str) -> None:
        self._said = time.monotonic()
        eta = self._clock.eta(trainer)
        shown = ("train/loss", "val/delta_e2000", "val/psnr")
        values = trainer.callback_metrics
        said = ", ".join(f"{k} {float(values[k]):.4g}" for k in shown if k.startswith(prefix) and k in values)
        left = "" if eta is None else f", {int(eta) // 3600}:{int(eta) % 3600 // 60:02d}:{int(eta) % 60:02d} left"
        log.info("epoch %d/%s %s: %s%s", trainer.current_epoch + 1, trainer.max_epochs, where, said, left)
