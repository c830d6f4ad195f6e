"""Train one stage: ``python -m colorization.train model=unet datamodule.data_dir=photos``.

Reads as a recipe; every piece is named in ``configs/train.yaml``.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf
from pytorch_lightning.callbacks import BatchSizeFinder, Callback, LearningRateFinder, ProgressBar, TQDMProgressBar
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from colorization.core import atomic, devices, distributed, hydra_main, machine, runs, signals, trusted
from colorization.core.errors import InputError
from colorization.data import plain
from colorization.data.datamodules import PhotoDataModule, is_number
from colorization.data.plain import AnyDataModule, PlainDataModule
from colorization.evaluation import custom_metrics
from colorization.evaluation.metrics import lpips_wanted
from colorization.models import checkpoint, descriptions
from colorization.models.weights import resolve_weights
from colorization.training import callbacks, checkpointing, resume
from colorization.training.resume import claim, find_checkpoint, saves
from colorization.training.stages.base import ColorizationStage

log = logging.getLogger(__name__)

# Messages of torch's allocators: CUDA's (torch.OutOfMemoryError), MPS's and the CPU's.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def train(cfg: DictConfig, overrides: list[str] | None = None) -> dict[str, float]:
    """Train as configured and leave a complete run folder.

    Args:
        cfg: the composed ``train`` config.
        overrides: of the command line, for the record and for resuming.

    Returns:
        Every validation metric of the epoch whose weights the run exports, and every test metric.

    Raises:
        InputError: something in the config cannot work; nothing has been trained.
        signals.StopRequested: SIGTERM or Ctrl-C; ``last.ckpt`` is there to resume from.
    """
    check(cfg)
    # Whoever writes a configuration names the code that is to run.
    networks = [cfg.model[key]._target_ for key in ("network", "discriminator") if key in cfg.model]
    trusted.trust({str(target).partition(".")[0] for target in networks})
    if shape := distributed.elastic_shape():
        cfg.trainer.devices, cfg.trainer.num_nodes = shape
    cfg.trainer.precision = devices.resolve_precision(cfg.trainer.precision, cfg.accelerator.kind)
    best = best_of(cfg)
    if best is not None and best.monitor == "auto":
        stage: type[ColorizationStage] = get_class(cfg.model._target_)
        with lpips_wanted(cfg.lpips):
            best.monitor = stage.monitor()
    run = runs.Run(Path(cfg.paths.run_dir))
    going_on = cfg.ckpt_path == "last"
    given = None if going_on else find_checkpoint(cfg, run)  # one that cannot be used leaves no folder behind

    # Of several processes the first writes the run folder, and has done so before Lightning starts others.
    first = distributed.is_main_process()
    with claim(run, going_on) if first else nullcontext(), signals.StopSignals() as stop:
        saved = going_on and saves(run)
        if saved:
            resume.keep_settings(cfg, run, overrides or [])
        resume_from, parent = given or find_checkpoint(cfg, run)  # its own, which nobody writes from here on
        record = Record(cfg, run, overrides or [], resume_from, parent)
        if not (going_on and record.exists()):  # the old record stays until training resumes: this may yet be refused
            record.begin()
        try:
            with lpips_wanted(cfg.get("lpips", True)):  # (a run of an earlier version does not say)
                metrics = _fit(cfg, run, stop, resume_from, record, run.split() if saved else None)
        except signals.StopRequested as request:
            if not first:
                return {}
            if record.begun:
                run.update_status(state="stopped", eta_seconds=None, weights=export_weights(run))
            log.info("%s; resume with: run_id=%s ckpt_path=last", request, run.id)
            raise
        except BaseException as error:
            explained = explain(error, cfg, run)
            reason = str(explained) if isinstance(explained, InputError) else f"{type(error).__name__}: {error}"
            try:
                told = distributed.is_loss_of_others(error) and run.status().get("state") == "failed"  # by another
                if record.begun and not told:
                    run.update_status(state="failed", eta_seconds=None, error=reason)
            except OSError as unwritable:  # a full disk may have no room for this either
                log.error("status.json could not be written: %s", unwritable)
            if explained is error:
                raise
            raise explained from error
        if first:
            run.update_status(state="finished", eta_seconds=0, error=None, weights=export_weights(run))
    log.info("finished: %s", run.path)
    return metrics


class Record:
    """Status and configuration in a run folder, written when training begins or resumes.

    Args:
        cfg: the resolved configuration.
        run: the run.
        overrides: of the command line.
        resume_from: the checkpoint, if there is one.
        parent: it, if it is another run's.
    """

    def __init__(
        self, cfg: DictConfig, run: runs.Run, overrides: list[str], resume_from: Path | None, parent: str | None
    ) -> None:
        self.cfg, self.run, self.overrides, self.resume_from, self.parent = cfg, run, overrides, resume_from, parent
        self.begun = False

    def exists(self) -> bool:
        """Whether the folder has one already."""
        return (self.run.path / "config.yaml").is_file()

    def begin(self) -> None:
        """Write it, once."""
        if self.begun:
            return
        self.begun = True
        if not distributed.is_main_process():
            return
        cfg, run = self.cfg, self.run
        if self.resume_from == run.previous_checkpoint and run.last_checkpoint.is_file():
            # Else the next save would put the damaged one in the place of the good one.
            run.last_checkpoint.replace(run.last_checkpoint.with_name("damaged.ckpt"))
        started = run.status().get("started", runs.utc_now())  # a resumed run began when it first did
        # A pid alone does not name a process: it is reused after a time, and on other machines.
        process = {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "host": platform.node()}
        told = {"model": cfg.model.name, **process, "parent": self.parent, "error": None}
        if "before" in run.status():  # of the server, for as long as it has not begun
            told["before"] = None
        run.update_status(state="running", started=started, **told)
        OmegaConf.save(cfg, run.path / "config.yaml", resolve=True)
        OmegaConf.save(OmegaConf.create(self.overrides), run.path / "overrides.yaml")
        atomic.write_json(run.path / "environment.json", runs.environment(), indent=1)


def _fit(
    cfg: DictConfig,
    run: runs.Run,
    stop: signals.StopSignals,
    resume_from: Path | None,
    record: Record,
    split: dict[str, Any] | None,
) -> dict[str, float]:
    pl.seed_everything(cfg.seed, verbose=False)
    stage: ColorizationStage = hydra_main.instantiate(cfg.model)
    custom = custom_metrics.configured(cfg.get("metrics"), cfg.datamodule.get("image_size") or 256)
    if custom and stage.kind == descriptions.CLASSIFIER:
        raise InputError(f"metrics.{custom[0].entry.name}: model={cfg.model.name} makes no pictures to be measured")
    stage.measure(custom)
    with closing(plain.configured(cfg.datamodule, cfg.seed)) as datamodule:
        if isinstance(datamodule, PlainDataModule):
            check_plain(datamodule, cfg)
        elif split is not None:  # of the checkpoint, which a run that is resumed keeps
            datamodule.take_split(split)
        datamodule.setup("fit")
        if isinstance(datamodule, PhotoDataModule) and split is not None:
            datamodule.check_same(split, run.id)
        if resume_from is None and cfg.init_weights is None:
            stage.load_pretrained()
        elif resume_from is None:
            stage.take_weights(resolve_weights(cfg.init_weights, cfg.paths.output_dir))
        prepare(cfg, stage)
        trainer = build_trainer(cfg, stage, run, stop, len(datamodule.train_dataloader()), record.begin)
        if isinstance(datamodule, PhotoDataModule) and split is None and distributed.is_main_process():
            atomic.write_json(run.path / "split.json", datamodule.manifest())
        with run_id_for_children(run):
            fit(trainer, stage, datamodule, resume_from)
        record.begin()  # of a run whose training was over already
        best = best_of(cfg)
        metrics: dict[str, Any] = dict(trainer.callback_metrics)
        if best is not None:
            metrics |= run.best_validation(best.monitor, best.mode)
        if cfg.test and datamodule.has("test") and not cfg.trainer.fast_dev_run:
            if run.best_checkpoint.is_file():
                stage.load_state_dict(checkpoint.read_checkpoint(run.best_checkpoint)["state_dict"], strict=True)
            trainer.test(stage, datamodule=datamodule, verbose=False)
            metrics |= trainer.callback_metrics
    return {k: float(v) for k, v in metrics.items() if k.startswith(("val/", "test/"))}


def fit(trainer: pl.Trainer, stage: ColorizationStage, datamodule: AnyDataModule, resume_from: Path | None) -> None:
    """Lightning's ``fit``; its refusals become one sentence."""
    try:
        trainer.fit(stage, datamodule=datamodule, ckpt_path=resume_from, weights_only=True)
    except MisconfigurationException as error:
        raise InputError(f"Lightning cannot train with these settings: {' '.join(str(error).split())}") from error
    if report := trainer.profiler.summary():  # type: ignore[attr-defined]
        log.info("%s", report)


def check_plain(datamodule: PlainDataModule, cfg: DictConfig) -> None:
    """Refuse what a data module of another package cannot do. Raises ``InputError``."""
    target = cfg.datamodule._target_
    if is_multi_process(cfg):
        raise InputError(
            f"datamodule._target_={target}: several processes need a subclass of colorization.data.datamodules."
            f"PhotoDataModule, whose loaders give each its share; set trainer.devices=1, not {cfg.trainer.devices}"
        )
    if not datamodule.has("val") and cfg.trainer.limit_val_batches != 0:
        raise InputError(
            f"datamodule._target_={target}: has no val_dataloader; add one, or set trainer.limit_val_batches=0"
        )


def best_of(cfg: DictConfig) -> DictConfig | None:
    """The callback that decides which checkpoint is the best; ``None`` if none is kept (``callbacks=null``)."""
    return (cfg.get("callbacks") or {}).get("best")


def prepare(cfg: DictConfig, stage: ColorizationStage) -> None:
    """Have the stage run its step as ``cfg.accelerator`` says."""
    settings = cfg.accelerator
    if settings.kind == "cpu":
        machine.keep_freed_memory()
    auto = settings.channels_last == "auto"
    stage.prepare(
        channels_last=devices.channels_last_pays(settings.kind) if auto else settings.channels_last,
        fused=settings.fused and cfg.trainer.precision not in ("16-mixed", "16") and not _clips_in_mixed_precision(cfg),
        activation_checkpointing=settings.activation_checkpointing,
        compile=settings.compile,
    )


def _clips_in_mixed_precision(cfg: DictConfig) -> bool:
    """(Lightning then refuses fused optimizers, even in bf16, where nothing is scaled.)"""
    return bool(cfg.trainer.gradient_clip_val) and devices.is_mixed(str(cfg.trainer.precision))


def build_trainer(
    cfg: DictConfig,
    stage: ColorizationStage,
    run: runs.Run,
    stop: signals.StopSignals,
    batches_per_epoch: int,
    begin: Callable[[], None] = lambda: None,
) -> pl.Trainer:
    """The Lightning trainer with the callbacks and loggers of the config and those that make the run folder.

    ``begin`` is called when training really starts, before anything is written.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    if not stage.automatic_optimization:  # Lightning refuses these here; the stage does it by hand
        stage.gradient_clip_val = settings.pop("gradient_clip_val")
        stage.gradient_clip_algorithm = settings.pop("gradient_clip_algorithm", None) or "norm"
        stage.accumulate_grad_batches = settings.pop("accumulate_grad_batches")
    # A small set has fewer batches in an epoch than the interval, and would log nothing.
    limit = settings["limit_train_batches"]
    if limit is not None:
        batches_per_epoch = min(batches_per_epoch, limit if isinstance(limit, int) else int(limit * batches_per_epoch))
    settings["log_every_n_steps"] = min(settings["log_every_n_steps"], max(1, batches_per_epoch))
    interval = settings["val_check_interval"]
    per_epoch = settings["check_val_every_n_epoch"] is not None and settings["limit_val_batches"] != 0
    if isinstance(interval, int) and interval > batches_per_epoch and per_epoch:
        raise InputError(
            f"trainer.val_check_interval={interval}: an epoch has {batches_per_epoch} batches; with "
            "trainer.check_val_every_n_epoch=null it counts those of all epochs"
        )
    best = best_of(cfg)
    own = [
        callbacks.RunStatus(run, best.monitor if best else None, best.mode if best else "min", begin),
        callbacks.Throughput(),
        callbacks.SampleGrid(run.path / "samples", cfg.samples if stage.kind != descriptions.CLASSIFIER else 0),
        callbacks.FiniteCheck(run),
        checkpointing.LastCheckpoint(run.last_checkpoint, stop, cfg.checkpoint_minutes, cfg.checkpoint_steps),
    ]
    groups = {key: cfg.get(key) or {} for key in ("callbacks", "logger")}  # either may be null
    configured = [hydra_main.instantiate(c) for name, c in groups["callbacks"].items() if c and not _skip(name, cfg)]
    loggers = [hydra_main.instantiate(c) for c in groups["logger"].values() if c]
    if cfg.get("profiler"):
        settings["profiler"] = hydra_main.instantiate(cfg.profiler)
    if finder := next((c for c in configured if isinstance(c, (LearningRateFinder, BatchSizeFinder))), None):
        raise InputError(
            f"callbacks: Lightning's {type(finder).__name__} does not go with these stages, whose schedule and loader "
            "are their own; try values with -m, e.g. -m model.optimizer.lr=1e-3,3e-4"
        )
    if settings["enable_progress_bar"]:
        configured, settings["enable_progress_bar"] = show_progress(configured, sys.stdout.isatty())
    timeout = timedelta(seconds=settings.pop("timeout"))
    if settings["strategy"] == "ddp" or is_multi_process(cfg):
        settings["strategy"] = DDPStrategy(
            find_unused_parameters=not stage.automatic_optimization,  # the parameters of the other optimizer
            broadcast_buffers=False,  # batch norms already have the statistics of all processes
            timeout=timeout,
        )
    try:
        return pl.Trainer(
            **settings,
            use_distributed_sampler=False,  # the loader gives each process its share
            callbacks=configured + own,
            plugins=[checkpointing.CheckpointFiles(run)],
            logger=[callbacks.MetricsFile(run), *loggers],
            default_root_dir=run.path,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: Lightning does not take these settings: {error}") from error


def show_progress(configured: list[Callback], terminal: bool) -> tuple[list[Callback], bool]:
    """``configured`` with one callback that shows progress, and whether it is a bar: in a terminal the
    configured one or tqdm's; log lines elsewhere."""
    bars = [c for c in configured if isinstance(c, ProgressBar)]
    if not terminal:
        return [*(c for c in configured if c not in bars), callbacks.PlainProgress()], False
    return [*configured, *([] if bars else [TQDMProgressBar(refresh_rate=10)])], True


def is_multi_process(cfg: DictConfig) -> bool:
    """Whether more than one process is to train, or ``auto`` may find so."""
    devices = cfg.trainer.devices
    alone = devices in (1, "1") or (isinstance(devices, ListConfig) and len(devices) == 1)
    return cfg.trainer.num_nodes > 1 or not alone


@contextmanager
def run_id_for_children(run: runs.Run) -> Iterator[None]:
    """The run's id for the processes that Lightning starts beside this one, which run the same command."""
    os.environ["COLORIZATION_RUN_ID"] = run.id
    try:
        yield
    finally:
        del os.environ["COLORIZATION_RUN_ID"]


def _skip(name: str, cfg: DictConfig) -> bool:
    """Without validation there is no metric by which to choose the best checkpoint."""
    return name == "best" and cfg.trainer.limit_val_batches == 0


def check(cfg: DictConfig) -> None:
    """Refuse values that cannot work, each in one sentence that names the key."""
    kind = devices.choose(cfg.trainer.accelerator, "trainer.accelerator")
    for key in ("max_epochs", "max_steps"):
        value = cfg.trainer[key]
        if value is not None and (not isinstance(value, int) or value < -1 or value == 0):
            raise InputError(f"trainer.{key}={value}: should be a whole number above 0, or -1 for no limit")
    if cfg.trainer.accumulate_grad_batches < 1:
        raise InputError(f"trainer.accumulate_grad_batches={cfg.trainer.accumulate_grad_batches}: should be 1 or more")
    if cfg.trainer.get("gradient_clip_algorithm") not in (None, "norm", "value"):
        raise InputError(
            f"trainer.gradient_clip_algorithm={cfg.trainer.gradient_clip_algorithm}: should be norm or value"
        )
    if cfg.trainer.get("overfit_batches"):
        raise InputError(
            f"trainer.overfit_batches={cfg.trainer.overfit_batches}: use debug=overfit, which trains on the same "
            "batches in every epoch"
        )
    if str(cfg.trainer.precision) not in devices.PRECISIONS:
        known = ", ".join(devices.PRECISIONS)
        raise InputError(f"trainer.precision={cfg.trainer.precision}: should be one of {known}")
    if str(cfg.trainer.precision) in ("16-mixed", "16") and kind == "cpu":
        raise InputError("trainer.precision=16-mixed: CPUs train in 32-true or bf16-mixed")
    if not is_number(cfg.checkpoint_minutes) or cfg.checkpoint_minutes < 0:
        raise InputError(f"checkpoint_minutes={cfg.checkpoint_minutes}: should be a number, 0 or more")
    steps = cfg.checkpoint_steps
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise InputError(f"checkpoint_steps={steps}: should be null or a whole number, 1 or more")
    if cfg.model.optimizer.get("fused") and _clips_in_mixed_precision(cfg):
        raise InputError(
            "model.optimizer.fused=true: a fused step undoes the loss scaling of trainer.precision="
            f"{cfg.trainer.precision} by itself, too late for trainer.gradient_clip_val; leave one of the three out"
        )
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if cfg.accelerator.compile and shutil.which(compiler) is None:
        raise InputError(f"accelerator.compile=true: torch.compile needs a C++ compiler, and there is no {compiler}")
    if cfg.trainer.strategy not in ("auto", "ddp"):
        raise InputError(
            f"trainer.strategy={cfg.trainer.strategy}: should be auto or ddp (Lightning's FSDP and DeepSpeed do not go "
            "with the GAN stages' manual optimization)"
        )
    if cfg.trainer.limit_val_batches == 0 and (cfg.get("callbacks") or {}).get("early_stopping"):
        raise InputError("callbacks=early_stopping: needs validation, which trainer.limit_val_batches=0 leaves out")
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise InputError(f"seed={cfg.seed}: should be a whole number, 0 or more")
    if Path(cfg.run_id).name != cfg.run_id or cfg.run_id in ("", ".", ".."):
        raise InputError(f"run_id={cfg.run_id}: should be a plain folder name")


def explain(error: BaseException, cfg: DictConfig, run: runs.Run) -> BaseException:
    """Memory or disk that has run out, as a sentence that says what to do; any other error as it is."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(s in text for s in _NO_MEMORY)):
        size, batch = cfg.datamodule.get("image_size"), cfg.datamodule.get("batch_size")
        if size is None or batch is None:  # of another package's data module
            return InputError("out of memory; try smaller batches or photos of the data module")
        advice = "a smaller datamodule.image_size"
        if batch > 1:
            halves = f"datamodule.batch_size={batch // 2} trainer.accumulate_grad_batches"
            advice = f"{halves}={2 * cfg.trainer.accumulate_grad_batches} or {advice}"
        return InputError(
            f"out of memory with datamodule.batch_size={batch} at datamodule.image_size={size}; try {advice}"
        )
    if text.startswith("early stopping conditioned on metric"):
        return InputError(f"callbacks.early_stopping.monitor: {error}")
    if distributed.is_loss_of_others(error):
        saved = f"{run.last_checkpoint} is whole" if run.last_checkpoint.is_file() else "there was no checkpoint yet"
        return InputError(
            f"another process of this run has ended or cannot be reached; {saved}; resume, with fewer "
            f"processes if need be: run_id={run.id} ckpt_path=last"
        )
    if isinstance(error, OSError) and error.errno in runs.DISK_FULL:
        saved = f"{run.last_checkpoint} is whole" if run.last_checkpoint.is_file() else "there was no checkpoint yet"
        return InputError(
            f"{error.filename or run.path} could not be written ({error.strerror}) and the run has stopped; {saved}; "
            f"free some space and resume with run_id={run.id} ckpt_path=last"
        )
    return error


def export_weights(run: runs.Run) -> str | None:
    """Write ``weights.safetensors`` from the best checkpoint, else the last; its name, or ``None`` without either.

    A classifier is written as ``<stage>.safetensors``: nobody should take it for a colorizer.
    """
    for source in (run.best_checkpoint, run.last_checkpoint):
        if source.is_file():
            network, description = checkpoint.load_network(source)
            other = run.path / f"{description['stage']}.safetensors"
            file = other if descriptions.kind(description) == descriptions.CLASSIFIER else run.weights_file
            checkpoint.save_weights(file, network, description)
            return file.name
    return None


def main() -> None:
    """The command."""

    def task(cfg: DictConfig) -> float | None:
        asked = HydraConfig.get().overrides
        overrides = [o for o in asked.hydra if o.startswith("hydra.searchpath=")] + list(asked.task)
        run = runs.Run(Path(cfg.paths.run_dir))
        if cfg.sweep is not None and run.status().get("state") == "finished":
            log.info("%s has finished already", run.id)
            return None
        if HydraConfig.get().mode == RunMode.MULTIRUN and is_multi_process(cfg) and not distributed.started_by_others():
            raise InputError(
                f"trainer.devices={cfg.trainer.devices}: the trials of a multirun (-m) are single processes here; "
                "srun or torchrun can start more"
            )
        if (cfg.sweep is not None or distributed.restarted()) and run.status():  # the command was repeated
            cfg.ckpt_path, overrides = "last", resume.merge_overrides(overrides, ["ckpt_path=last"])
        try:
            metrics = train(*resume.restore(cfg, overrides))
        except signals.StopRequested as request:
            sys.exit(143 if request.signum == signal.SIGTERM else 130)
        except InputError as error:
            if cfg.sweep is not None and not run.status():  # refused before it began; the sweep lists why
                run.update_status(state="failed", model=cfg.model.name, started=runs.utc_now(), error=str(error))
            raise
        return metrics.get(cfg.optimized_metric)

    hydra_main.run(task, "train", resume.arguments)


if __name__ == "__main__":
    main()
