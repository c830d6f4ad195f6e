"""Checks a training request: it becomes the overrides of the training command, or 422 with field and reason.

The rule for ``overrides``, each of which is ``key=value`` as on the command line:

- the key is a choice of :data:`GROUPS`, or an existing leaf below :data:`SECTIONS` or among :data:`LEAVES`;
- no component of it starts with ``_`` (``_target_``) or, at its end, names a file, folder or model (:data:`_CLOSED`);
- the value is a number, a boolean, ``null``, a plain name, or a list of these: no interpolation (``${oc.env:...}``
  reads the environment), no dictionary, no sweep, no function, no quotation mark, and no slash but in the name of an
  entry of the config tree (``experiment=cifar10/unet``);
- nothing is added (``+key``), removed (``~key``) or placed elsewhere (``@package``).

Files are named by ``data`` alone, which lies below the configured roots whatever links it goes through.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colorization.api import forms
from colorization.api.http.problems import Problem, invalid
from colorization.api.http.redact import without_paths
from colorization.api.settings import Settings
from colorization.api.training.composing import choices, compose
from colorization.core import runs
from colorization.core.errors import InputError
from colorization.core.overrides import quoted

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUPS = ("model", "datamodule", "loss", "callbacks", "experiment", "debug", "accelerator", "trainer")
SECTIONS = ("model", "datamodule", "loss", "callbacks", "accelerator", "trainer")
LEAVES = ("seed", "test", "samples", "checkpoint_minutes", "checkpoint_steps")
# Field of a request -> the key that it overrides.
FIELDS = {
    "model": "model",
    **{setting.key: setting.config for setting in (forms.DATAMODULE, *forms.TRAINING)},
    "data": "datamodule.data_dir",
}
# Of an override: the schema refuses most forbidden ones.
PATTERN = r"^[a-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*=[A-Za-z0-9_./,+\[\] -]*$"
_CLOSED = re.compile(r"(^_|^name$|^kind$|^resume$|(dir|dirpath|path|file|filename|archive|url|monitor)$)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FOLDERS = ("data_dir", "train_dir", "val_dir", "test_dir")


@dataclass(frozen=True)
class Plan:
    """A training that can be started.

    Attributes:
        model: its stage.
        command: overrides of ``python -m colorization.train``, without run id and output folder.
        max_epochs: of the config; -1 or None without a limit.
    """

    model: str
    command: list[str]
    max_epochs: int | None


def plan(asked: Mapping[str, Any], settings: Settings) -> Plan:
    """The plan of a new run.

    Args:
        asked: :data:`FIELDS` and ``overrides``, those that were given.
        settings: for the data roots.

    Raises:
        Problem: 422 with the field and the reason.
    """
    roots = [Path(root).absolute() for root in settings.data_roots]
    overrides: list[str] = asked.get("overrides", [])
    given = {k: f"{FIELDS[k]}={asked[k]}" for k in FIELDS if k in asked and k != "data"}
    folder = find_folder(asked["data"], settings.data_roots) if "data" in asked else None
    if roots:
        given["roots"] = f"paths.data_dir={quoted(str(roots[0]))}"
    leaves = [(key, value) for key, value in map(_parse, overrides) if key not in GROUPS]
    groups = [o for o in overrides if o.partition("=")[0] in GROUPS]
    chosen = [given[k] for k in ("model", "datamodule", "roots") if k in given]
    try:
        base = compose("train", [*chosen, *groups])
        for field in given.keys() - {"model", "datamodule", "roots"}:
            _check_leaf(FIELDS[field], asked[field], base, field)
        for key, value in leaves:
            _check_leaf(key, value, base)
        command = [*chosen, *(given[k] for k in given if k not in ("model", "datamodule", "roots")), *overrides]
        if folder is not None:
            _check_takes_data(base)
            command.append(f"{FIELDS['data']}={quoted(str(folder))}")
        config = compose("train", [*command, "run_id=planned"])
        check(config, roots)
    except Problem:
        raise
    except _mistakes() as error:
        raise _blame(error, {**given, "data": FIELDS["data"]}, overrides, settings) from error
    return Plan(config.model.name, command, config.trainer.max_epochs)


def plan_resume(run: runs.Run, epochs: int | None, settings: Settings) -> Plan:
    """The plan of resuming a run: its stored configuration, and more epochs or as many.

    Raises:
        Problem: 422 with the field and the reason.
    """
    from omegaconf import OmegaConf

    from colorization import train
    from colorization.training import resume

    file = run.path / "overrides.yaml"
    if not checkpointed(run) or not file.is_file():
        raise invalid("resume", f"{run.id} has no checkpoint to resume from; start a new run")
    stored = [str(o) for o in OmegaConf.to_container(OmegaConf.load(file))]  # type: ignore[union-attr]
    grown = [] if epochs is None else [f"{FIELDS['epochs']}={epochs}"]
    try:
        before = compose("train", stored).trainer.max_epochs
        if epochs is not None and before is not None and 0 <= epochs < before:
            raise invalid("epochs", f"{run.id} was asked for {before}; it can be given more, not fewer")
        after = before if epochs is None else epochs
        if run.status().get("state") == "finished" and after == before:
            raise invalid("epochs", f"{run.id} has finished its {before} epochs; give it more to resume")
        config = compose("train", resume.merge_overrides(stored, [*grown, f"run_id={quoted(run.id)}"]))
        train.check(config)
    except Problem:
        raise
    except _mistakes() as error:
        raise _blame(error, {"epochs": FIELDS["epochs"]}, [], settings, "resume") from error
    return Plan(config.model.name, [*grown, "ckpt_path=last"], after)


def checkpointed(run: runs.Run) -> bool:
    """Whether there is a checkpoint to resume from."""
    return run.last_checkpoint.is_file() or run.previous_checkpoint.is_file()


def find_folder(asked: str, roots: Sequence[str], field: str = "data") -> Path:
    """The folder of data that a client names: relative to a root, or as a root's own path with what is below it.

    Raises:
        Problem: 422; there is none, or it lies outside of the roots (which is not told apart).
    """
    for root in roots:
        try:
            inside = Path(root).resolve(strict=True)
            parts = Path(os.path.normpath(root)).parts
            own = Path(os.path.normpath(asked)).parts[: len(parts)] == parts
            for folder in [Path(asked)] if own else [Path(root) / asked]:
                there = folder.resolve(strict=True)
                if there.is_dir() and there.is_relative_to(inside) and "$" not in str(there):
                    return there
        except (OSError, ValueError):  # no such root; a name that is too long or that no file can have
            continue
    raise invalid(field, "no such folder below the data roots of this server")


def check(config: DictConfig, roots: Sequence[Path]) -> None:
    """Refuse settings that cannot be trained, as the command does before it starts: photos are found, the network is
    built (without its memory).

    Raises:
        InputError: and what :func:`_mistakes` lists.
    """
    import torch

    from colorization import train
    from colorization.core import hydra_main
    from colorization.data.datamodules import FolderDataModule, ShardsDataModule

    train.check(config)
    for key in _FOLDERS:
        folder = config.datamodule.get(key)
        if folder is not None and not any(Path(folder).resolve().is_relative_to(root.resolve()) for root in roots):
            raise InputError(f"datamodule.{key}: not below the data roots of this server")
    workers, most = config.datamodule.num_workers, 4 * (os.cpu_count() or 1)
    if isinstance(workers, int) and workers > most:
        raise InputError(f"datamodule.num_workers={workers}: this machine should have at most {most}")
    datamodule = hydra_main.instantiate(config.datamodule)
    if isinstance(datamodule, FolderDataModule) and not any(datamodule.dirs.values()):
        datamodule.find_folder()  # how they are split depends on their contents, which are read when training starts
    elif isinstance(datamodule, FolderDataModule | ShardsDataModule):
        datamodule.load_splits()
    with torch.device("meta"):
        stage = hydra_main.instantiate(config.model)
    stage.build_optimizer(stage)
    stage.prepare(False, False, config.accelerator.activation_checkpointing, False)


def _parse(override: str) -> tuple[str, Any]:
    """Key and value, after the part of the rule that needs no config."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    key, _, text = override.partition("=")
    refusal = f"{key}: cannot be set here" if re.fullmatch(r"[\w.]{1,80}", key) else "cannot be read"
    if not re.fullmatch(PATTERN, override):
        raise invalid("overrides", refusal)
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise invalid("overrides", f"{key}: the value cannot be read") from error
    if parsed.type != OverrideType.CHANGE or parsed.package is not None or parsed.is_sweep_override():
        raise invalid("overrides", refusal)
    value = parsed.value()
    if key in GROUPS:
        if not isinstance(value, str) or value not in choices(key):
            raise invalid("overrides", f"{key}={text}: should be one of {', '.join(choices(key))}")
        return key, value
    section, *below = key.split(".")
    if (section not in SECTIONS if below else section not in LEAVES) or any(p.startswith("_") for p in below):
        raise invalid("overrides", refusal)
    if key == "model.resnet_weights" and value not in (None, "imagenet"):
        raise invalid("overrides", f"{key}={text}: should be imagenet or null")
    if below and _CLOSED.search(below[-1]):
        raise invalid("overrides", refusal)
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, (bool, type(None))):
            continue
        if isinstance(one, (int, float)):
            most = 1024 if section == "model" else 1_000_000  # the network is built, if without its memory
            if not math.isfinite(one) or abs(one) > most:
                raise invalid("overrides", f"{key}={text}: should be a number of at most {most}")
        elif not isinstance(one, str) or not _NAME.fullmatch(one):
            raise invalid(
                "overrides", f"{key}={text}: should be a number, a name, true, false, null or a list of these"
            )
    return key, value


def _check_leaf(key: str, value: Any, config: DictConfig, field: str = "overrides") -> None:
    """That there is such a setting, and that a number stays one."""
    from omegaconf import DictConfig, OmegaConf

    from colorization.data.datamodules import is_number

    above, _, leaf = key.rpartition(".")
    parent = OmegaConf.select(config, above) if above else config
    if not isinstance(parent, DictConfig) or leaf not in parent:
        raise invalid(field, f"there is no {key} with model={config.model.name} and loss={config.loss.name}")
    if isinstance(parent[leaf], DictConfig):
        raise invalid(field, f"{key}: is a group of settings; set one of them")
    if isinstance(parent[leaf], bool) and not isinstance(value, bool):
        raise invalid(field, f"{key}={value}: should be true or false")
    if is_number(parent[leaf]) and not is_number(value) and value is not None:
        raise invalid(field, f"{key}={value}: should be a number")


def _check_takes_data(config: DictConfig) -> None:
    if not config.datamodule._target_.endswith((".FolderDataModule", ".ShardsDataModule")):
        raise invalid("data", f"datamodule={config.datamodule.name} brings its own photographs")
    if config.datamodule.get("train_dir") or config.datamodule.get("test_dir"):
        raise invalid("data", "this experiment has folders of its own")


def _mistakes() -> tuple[type[Exception], ...]:
    """Errors of config, Hydra and torch for impossible values."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return (InputError, HydraException, OmegaConfBaseException, TypeError, ValueError, RuntimeError, ArithmeticError)


def _blame(
    error: Exception, given: Mapping[str, str], overrides: Sequence[str], settings: Settings, other: str = "overrides"
) -> Problem:
    """422 for the field whose key the error names."""
    from colorization.core.hydra_main import sentence

    cause = error.__cause__ if type(error).__name__ == "InstantiationException" and error.__cause__ else error
    said = without_paths(sentence(cause), settings.output_dir, *settings.data_roots)
    for override in overrides:
        if override.partition("=")[0] in said:
            return invalid("overrides", said)
    for field, override in given.items():
        if (key := override.partition("=")[0]) in said and key not in GROUPS:
            return invalid(field, said)
    group = next((g for g in ("loss", "model", "datamodule") if f"{g}=" in said and g in given), None)
    if group is None and "_dir" in said:
        group = "data"
    return invalid(group or other, said)
