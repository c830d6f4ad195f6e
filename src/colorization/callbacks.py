"""What watches a run: the run folder's files, samples, throughput, progress, and stopping on request."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.plugins.io import TorchCheckpointIO
from PIL import Image
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only
from torch.optim.swa_utils import get_ema_multi_avg_fn

from colorization import checkpoint as checkpoints
from colorization import color, descriptions, devices, distributed, figures, lightning_seams
from colorization.errors import InputError
from colorization.metrics import lpips_network
from colorization.runs import Run, atomic_path
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

    def defer(self) -> None:
        """Call when the training loop starts. By then Lightning has a handler of its own for SIGTERM, which would end
        the run without a checkpoint; it gives way."""
        self.deferred = True
        for number in self._previous:
            signal.signal(number, self._handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not self.deferred:
            raise StopRequested(signum)
        log.info("%s: stopping after the batch in hand (again to stop at once)", signal.Signals(signum).name)

    def agreed(self) -> int:
        """The signal that has come, to any of the processes that train together; 0 if none has. All must ask."""
        return distributed.agree(self.signum or 0)


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
            error.filename = str(path)  # not that of the temporary file, or none
            raise


def _keep(last: Path, previous: Path) -> None:
    """Give the last checkpoint a second name, that of the one before it."""
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
    """Undo what has been drawn since :func:`rng_state`; of accelerators, where this machine has the same ones."""
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
    ``max_steps`` ends within an epoch is validated there; given more steps it goes on with the rest of the epoch.

    Args:
        path: the file.
        stop: the signals of the run.
        every_minutes, every_steps: longest stretch of training, in time and in optimizer steps, that a crash can lose.
    """

    def __init__(self, path: Path, stop: StopSignals, every_minutes: float, every_steps: int | None) -> None:
        self.path, self.stop = path, stop
        self.every_seconds, self.every_steps = 60 * every_minutes, every_steps or math.inf
        self._restored: dict[str, Any] | None = None
        self._place: str | None = None  # of the save in hand
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
        rng = checkpoint["rng"]  # before there were several processes, it was that of the one
        states = rng if isinstance(rng, list) else [rng]
        self._restored = {"rng": states, "gradients": checkpoint.get("gradients", {})}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop.defer()
        self._written, self._written_step = time.monotonic(), trainer.global_step
        if distributed.together():  # else dropout would leave out the same in all processes
            torch.manual_seed(torch.initial_seed() + distributed.rank())
        if self._restored is not None:  # dropout goes on as if there had been no interruption
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
        if distributed.together() and pl_module.accumulating(batch_idx):
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
        if not distributed.together():  # the others may have more batches, or less
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

    So it is kept wherever the run folder lies by then, and where the criterion changes: the checkpoint has the figures
    of its validation. No path is saved with it.
    """

    @property
    def state_key(self) -> str:
        """The same whatever the criterion."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """The criterion and the score of the best."""
        return {"monitor": self.monitor, "mode": self.mode, "best_model_score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`on_train_start`."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find out what there is to beat."""
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


class EMA(WeightAveraging):
    """Validates, checkpoints and exports an exponential moving average of the weights, which forgets its start.

    After update n = 1, 2, ... the average keeps min(decay, (1 + n) / (10 + n)) of itself and takes the rest from the
    weights, as ``num_updates`` does in TensorFlow's ``ExponentialMovingAverage``. With a constant 0.999 a run of 400
    steps would end with two thirds of its initial weights.

    Args:
        decay: what the average keeps of itself at each step of a long run, in [0, 1].
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

    The losses are looked at after every batch on a CPU. On an accelerator each look waits for the device, so it is
    taken every ``log_every_n_steps`` and before each checkpoint.

    Raises:
        InputError: names the value, the place in the run, the batch's photos, the optimizers' states and the last good
            checkpoint.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._batches: list[tuple[int, torch.Tensor, Mapping[str, Any]]] = []  # since the last look

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ColorizationStage)
        self._batches.append((batch_idx, batch["index"], pl_module.train_values))
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

    def _place(self, trainer: pl.Trainer, batch_idx: int, index: torch.Tensor) -> str:
        names = trainer.datamodule.photos["train"].names  # type: ignore[attr-defined]
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
            f"the batch: {', '.join(names[i] for i in index.tolist())}; the optimizers: {'; '.join(optimizers)}; "
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
        whole = file.read_bytes().rpartition(b"\n")[0]  # without what a crash has cut short
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
        if distributed.first():
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
        """Call when training starts or goes on."""
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
    ``train/peak_memory_mb`` so far (see :func:`colorization.devices.peak_memory_mb`)."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._start = 0, time.monotonic()  # a run that goes on within an epoch does not start one

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._images, self._start = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch["rgb"]) * distributed.world()
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
            dataset = trainer.datamodule.val_dataloader().dataset  # type: ignore[attr-defined]
            self._batch = dataset.__getitems__([(0, i) for i in range(min(self.photos, len(dataset)))])
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
    """Progress as log lines, for when there is no terminal: each epoch's end and every ``every_seconds``."""

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
