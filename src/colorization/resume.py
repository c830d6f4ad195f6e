"""Resuming a run: its configuration is taken up again, and what may change is listed here.

``python -m colorization.train run_id=X ckpt_path=last [overrides]`` goes on with run X as it was configured. Only keys
like those of :data:`MAY_CHANGE` take another value; any other is refused by name before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from colorization.errors import InputError
from colorization.overrides import is_override
from colorization.runs import Run

# What another value of does not make another experiment. The photos may lie elsewhere, but must be the same ones
# (:meth:`colorization.data.datamodules.PhotoDataModule.check_same`).
MAY_CHANGE = (
    *("run_id", "sweep", "ckpt_path", "init_weights", "test", "samples", "checkpoint_*", "optimized_metric"),
    *("paths.*", "logger.*", "callbacks.*", "accelerator.*"),
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


def may_change(key: str) -> bool:
    """Whether a resumed run may have another value of this key."""
    return any(fnmatch(key, k) for k in MAY_CHANGE) and not any(fnmatch(key, k) for k in FIXED)


def merge_overrides(stored: Sequence[str], given: Sequence[str]) -> list[str]:
    """``stored`` overrides without those whose key is given anew, then ``given``.

    Another choice of loggers (``logger=csv``) takes those below it along: they are settings of the choice before.
    """
    keys = {o.key_or_group for o in map(_parse, given)}

    def replaced(key: str) -> bool:
        return key in keys or ("logger" in keys and key.startswith("logger."))

    return [o for o in stored if not replaced(_parse(o).key_or_group)] + list(given)


def _parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def stored_overrides(run: Run) -> list[str]:
    """What the run was asked for on the command line, but where it was to lie; nothing if it has not begun."""
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
    """Give ``cfg`` the values that ``run`` was trained with so far; only those of :data:`MAY_CHANGE` are today's.

    Others differ from the run's ``config.yaml`` without being asked for on another machine (its batch size), or where
    a default has changed since.

    Raises:
        InputError: a value that must stay was asked to change; the key, both values and what to do instead.
    """
    file = run.path / "config.yaml"
    if not file.is_file():
        return
    known = stored_overrides(run)
    asked = [_parse(o).key_or_group for o in overrides if o not in known]
    before, now = (dict(_leaves(OmegaConf.to_container(c, resolve=True))) for c in (OmegaConf.load(file), cfg))
    for key in sorted(before.keys() | now.keys(), key=lambda k: (k != "model.name", k)):
        if may_change(key) or (key in before and key in now and before[key] == now[key]):
            continue
        # A group (model=unet) or an experiment asks for all that is in it; what is new there, this version has brought.
        parts = [a for a in asked if key == a or key.startswith(f"{a}.") or a in ("experiment", "debug")]
        if any(key in before or "." in a or key == a for a in parts):
            raise InputError(_refusal(key, now.get(key), before.get(key, "its default"), run))
        if key in before and key in now:
            OmegaConf.update(cfg, key, before[key])


def _refusal(key: str, now: Any, was: Any, run: Run) -> str:
    key = key.removesuffix(".name") if key.endswith("model.name") else key
    fits = not key.startswith(("model.network", "model.discriminator")) and key != "model"
    new = f"start a new run with init_weights={run.id}" if fits else "start a new run"
    return f"{key}={now}: {run.id} goes on with {was}; to change it, {new}"


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that are no dictionaries."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
