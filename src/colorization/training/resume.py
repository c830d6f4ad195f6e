"""Resuming a run: its configuration is used again; :data:`MAY_CHANGE` lists the keys that may change.

``python -m colorization.train run_id=X ckpt_path=last [overrides]`` resumes run X as it was configured. Only these
keys take another value; a change of any other is an error before anything is written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from colorization.core import atomic, runs
from colorization.core.errors import InputError
from colorization.core.overrides import is_override
from colorization.core.runs import Run
from colorization.models import checkpoint, descriptions
from colorization.networks import building

log = logging.getLogger(__name__)

# Keys whose change does not make another experiment. The photos may lie elsewhere, but must be the same ones
# (:meth:`colorization.data.datamodules.PhotoDataModule.check_same`).
MAY_CHANGE = (
    *("run_id", "sweep", "trust", "ckpt_path", "init_weights", "test", "samples", "checkpoint_*", "optimized_metric"),
    *("paths.*", "metrics", "metrics.*", "logger.*", "callbacks.*", "profiler.*", "accelerator.*"),
    *("trainer.max_*", "trainer.min_*", "trainer.val_*", "trainer.check_val_*", "trainer.limit_val_*"),
    *("trainer.limit_test_*", "trainer.num_*", "trainer.log_every_n_steps", "trainer.gradient_clip_*"),
    *("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.timeout", "trainer.precision"),
    *("trainer.deterministic", "trainer.benchmark", "trainer.detect_anomaly", "trainer.profiler", "trainer.enable_*"),
    *("datamodule.*_dir", "datamodule.archive", "datamodule.cache*", "datamodule.num_workers", "datamodule.pin_memory"),
    *("datamodule.max_unreadable", "datamodule.find_duplicates"),
    *("loss.*", "model.loss.*"),
)
GROUPS = ("model", "datamodule", "loss")  # of the config that another choice makes another run of
FIXED = ("*loss.name", "*loss._target_")  # though MAY_CHANGE has it: another kind of loss is another experiment

_MOVED = re.compile(r"_target_: colorization\.(stages|losses|callbacks)\.")  # as runs of before 2026-11-26 name them


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value of this key."""
    return any(fnmatch(key, k) for k in MAY_CHANGE) and not any(fnmatch(key, k) for k in FIXED)


def merge_overrides(stored: Sequence[str], given: Sequence[str]) -> list[str]:
    """``stored`` overrides, except those whose key is given again, then ``given``.

    Another choice of loggers (``logger=csv``) takes those below it along: they are settings of the choice before. So it
    is with callbacks and the profiler; but ``best`` is in each choice of callbacks.
    """
    keys = {o.key_or_group for o in map(_parse, given)}

    def replaced(key: str) -> bool:
        group, _, below = key.partition(".")
        of_choice = group in ("logger", "callbacks", "profiler") and not key.startswith("callbacks.best.")
        return key in keys or (of_choice and group in keys and below != "")

    return [o for o in stored if not replaced(_parse(o).key_or_group)] + list(given)


def _parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def stored_overrides(run: Run) -> list[str]:
    """The run's overrides of the command line, without its output folder; nothing if it has not begun."""
    file = run.path / "overrides.yaml"
    stored: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else []
    return [str(o) for o in stored if not str(o).startswith(("paths.output_dir=", "paths.run_dir="))]


def arguments(given: Sequence[str]) -> list[str]:
    """The command line of a training: of one that resumes with the run's own overrides in it.

    They have to be there before Hydra composes: a key that only the run's own model or loss has is unknown without it.
    """
    overrides = [a for a in given if is_override(a)]
    asked = {o.key_or_group: o.value() for o in map(_parse, overrides)}
    if asked.get("ckpt_path") != "last" or "run_id" not in asked:
        return list(given)
    output_dir = Path(str(asked.get("paths.output_dir", "outputs")))
    run = Run(Path(str(asked.get("paths.run_dir", output_dir / "runs" / str(asked["run_id"])))))
    stored = stored_overrides(run)
    before = {o.key_or_group: o.value() for o in map(_parse, stored)}
    for key in GROUPS:
        if key in before and asked.get(key, before[key]) != before[key]:
            raise InputError(_refusal(key, asked[key], before[key], run))
    return [*(a for a in given if not is_override(a)), *merge_overrides(stored, overrides)]


def restore(cfg: DictConfig, overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """For ``run_id=X ckpt_path=last``: the configuration of run X with today's overrides on top."""
    if cfg.ckpt_path != "last":
        return cfg, overrides
    merged = merge_overrides(stored_overrides(Run(Path(cfg.paths.run_dir))), overrides)
    if merged == overrides:
        return cfg, overrides
    return compose(config_name="train", overrides=merged), merged  # with the run's hydra.searchpath


def keep_settings(cfg: DictConfig, run: Run, overrides: Sequence[str]) -> None:
    """Give ``cfg`` the values that ``run`` was trained with so far; only keys of :data:`MAY_CHANGE` keep today's.

    Others differ from the run's ``config.yaml`` without being asked for on another machine (its batch size), or where
    a default has changed since.

    Raises:
        InputError: a fixed value was asked to change; names the key, both values and the alternative.
    """
    file = run.path / "config.yaml"
    if not file.is_file():
        return
    known = stored_overrides(run)
    asked = [_parse(o).key_or_group for o in overrides if o not in known]
    stored = OmegaConf.create(_MOVED.sub(r"_target_: colorization.training.\1.", file.read_text(encoding="utf-8")))
    before, now = (dict(_leaves(OmegaConf.to_container(c, resolve=True))) for c in (stored, cfg))
    for key in sorted(before.keys() | now.keys(), key=lambda k: (k != "model.name", k)):
        if may_change(key) or (key in before and key in now and before[key] == now[key]):
            continue
        # A group (model=unet) or an experiment asks for all its keys; new keys there are from this version.
        parts = [a for a in asked if key == a or key.startswith(f"{a}.") or a in ("experiment", "debug")]
        if any(key in before or "." in a or key == a for a in parts):
            raise InputError(_refusal(key, now.get(key), before.get(key, "its default"), run))
        if key in before and key in now:
            OmegaConf.update(cfg, key, before[key])


def _refusal(key: str, now: Any, was: Any, run: Run) -> str:
    key = key.removesuffix(".name") if key.endswith("model.name") else key
    fits = not key.startswith(("model.network", "model.discriminator")) and key != "model"
    new = f"start a new run with init_weights={run.id}" if fits else "start a new run"
    return f"{key}={now}: {run.id} resumes with {was}; to change it, {new}"


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that are no dictionaries."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def find_checkpoint(cfg: DictConfig, run: runs.Run) -> tuple[Path | None, str | None]:
    """The checkpoint to resume from, and the parent if it is another run's.

    ``ckpt_path=last`` resumes in the run's own folder (from ``previous.ckpt`` if ``last.ckpt`` is damaged); a file
    starts a new run.
    """
    if cfg.ckpt_path is None:
        return None, None
    path = whole_checkpoint(run) if cfg.ckpt_path == "last" else Path(cfg.ckpt_path)
    if path is None:
        parent = run.status().get("parent")
        log.warning("%s has no checkpoint yet: starting %s", run.id, f"from {parent}" if parent else "at the beginning")
        if parent is None:
            return None, None
        path = Path(parent)
    if not path.is_file():
        raise InputError(f"ckpt_path={path}: no such file; give a *.ckpt of a run, or last")
    content = checkpoint.read_checkpoint(path)
    stage = content[descriptions.KEY]["stage"]
    if stage != cfg.model.name:
        raise InputError(f"ckpt_path={path}: a checkpoint of model={stage} cannot be resumed as model={cfg.model.name}")
    epochs = cfg.trainer.max_epochs
    if epochs is not None and 0 <= epochs < content["epoch"]:
        raise InputError(f"trainer.max_epochs={epochs}: {path} has been trained for {content['epoch']} epochs already")
    for part in ("optimizer", "network", "discriminator"):
        was = content["hyper_parameters"].get(part, {})
        now: Any = OmegaConf.to_container(cfg.model.get(part) or OmegaConf.create({}), resolve=True)
        keys = {**was, **now}
        if part != "optimizer":  # a checkpoint of another version may lack arguments, or have some that are gone
            was, now = building.complete(was), building.complete(now)
            keys = now
        for key in [k for k in keys if was.get(k) != now.get(k)]:
            instead = "" if part != "optimizer" else f" with init_weights={run.id if cfg.ckpt_path == 'last' else path}"
            raise InputError(
                f"model.{part}.{key}={now.get(key)}: the {part} in {path} resumes with {was.get(key)}; to change it, "
                f"start a new run{instead}"
            )
    own = path in (run.last_checkpoint, run.previous_checkpoint)
    return path, run.status().get("parent") if own else str(path)


def whole_checkpoint(run: runs.Run) -> Path | None:
    """``last.ckpt``, or if that is damaged ``previous.ckpt``; ``None`` before the first save."""
    last, previous = run.last_checkpoint, run.previous_checkpoint
    if not last.is_file() and not previous.is_file():
        return None
    try:
        checkpoint.read_checkpoint(last)
        return last
    except checkpoint.Unreadable as error:
        reason = error
    try:
        checkpoint.read_checkpoint(previous)
    except checkpoint.Unreadable as error:
        raise InputError(
            f"ckpt_path=last: {reason}, and the one before it, {previous.name}, cannot be read either"
        ) from error
    log.warning("%s; resuming from the one before it, %s", reason, previous)
    return previous


def saves(run: runs.Run) -> bool:
    """Whether the run has a checkpoint to resume from, whole or not."""
    return run.last_checkpoint.is_file() or run.previous_checkpoint.is_file()


@contextmanager
def claim(run: runs.Run, going_on: bool) -> Iterator[None]:
    """Make the run folder and hold it; refuse one that holds another run, or that another process holds."""
    if going_on and not run.status():
        raise InputError(f"ckpt_path=last: no run_id={run.id} in {run.path.parent}; start it without ckpt_path")
    (run.path / "checkpoints").mkdir(parents=True, exist_ok=True)
    # The system lets go of it however the process ends; a killed one's loader processes hold it some seconds longer.
    lock = run.lock(timeout=10)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"run_id={run.id}: another process is training this run (pid {run.status().get('pid')}); wait or stop it"
        ) from error
    with lock:
        _check_free(run, going_on)
        yield


def _check_free(run: runs.Run, going_on: bool) -> None:
    state = run.status().get("state")
    untouched = state in (None, "queued") or (state == "failed" and not saves(run))
    if not untouched and not going_on:
        raise InputError(
            f"run_id={run.id}: this run exists ({state}); add ckpt_path=last to resume it, or choose another id"
        )
    for folder in ("checkpoints", "samples"):
        for unfinished in atomic.temporaries(run.path / folder):  # of a process that was killed in a save
            unfinished.unlink()
