"""How the Hydra commands start, and how they end when something is wrong: one sentence, no stack trace."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from colorization.core import devices, distributed, machine, overrides, trusted
from colorization.core.errors import InputError
from colorization.core.runs import new_run_id, start_time, trial_id


def _accelerator_kind(accelerator: str) -> str:
    """``trainer.accelerator`` to the entry of the accelerator config that it selects (checked later, by ``train``)."""
    return devices.available()[0] if accelerator in ("auto", "gpu") else accelerator


def _default_run_id(model: str, sweep: str | None) -> str:
    if given := os.environ.get("COLORIZATION_RUN_ID"):  # of the process that Lightning starts the others from
        return given
    job = 0
    if HydraConfig.initialized():
        job = OmegaConf.select(HydraConfig.instance().cfg, "hydra.job.num") or 0  # type: ignore[arg-type]
    if sweep is not None:
        return trial_id(sweep, job)
    if (common := distributed.common_id()) is not None:
        return f"{model}-{common}"
    return new_run_id(model, job)


def register_resolvers() -> None:
    """The resolvers that the configs use."""
    OmegaConf.register_new_resolver("accelerator_kind", _accelerator_kind, replace=True)
    OmegaConf.register_new_resolver("new_run_id", _default_run_id, replace=True)
    OmegaConf.register_new_resolver("start_time", start_time, replace=True)


register_resolvers()  # on import: a launcher's processes unpickle the task and read its config at once


def instantiate(config: DictConfig) -> Any:
    """Hydra's ``instantiate`` (plain containers, nothing nested), with the person's mistakes as ``InputError``."""
    try:
        return hydra.utils.instantiate(config, _recursive_=False, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        if isinstance(cause, ModuleNotFoundError):  # Lightning's says what to install
            raise InputError(f"{config._get_full_key(None)}: {' '.join(str(cause).split())}") from error
        raise


def sentence(error: BaseException) -> str:
    """The error on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    if isinstance(error, HydraException):
        # Hydra adds where it searched, which does not help for a config inside a package.
        lines = lines[: next((i for i, line in enumerate(lines) if line.startswith("Config search path")), None)]
    said = " ".join(line for line in lines if line)
    if "'hydra/launcher/" in said:
        said += ' (all of them: pip install "lab-colorization[scale]")'
    if "'hydra/sweeper/" in said:
        said += "; to search settings with Optuna: python -m colorization.sweep"
    return said


def run(
    task: Callable[[DictConfig], Any], config_name: str, complete: Callable[[Sequence[str]], list[str]] = list
) -> None:
    """Compose ``config_name`` from the command line and run ``task`` on it; exits with 2 on a person's mistake.

    ``HYDRA_FULL_ERROR=1`` brings back the stack trace.

    Args:
        task: gets the configuration.
        config_name: of the command.
        complete: may add to the command line before it is composed.
    """
    machine.print_all_letters()
    asked = os.environ.get("HYDRA_FULL_ERROR")
    full = asked not in (None, "", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a trace of its own and exits before we can speak

    def job(cfg: DictConfig) -> Any:
        _quiet()
        _name(cfg)
        trusted.trust(cfg.get("trust") or [])
        if not distributed.is_main_process():  # it would repeat the messages of the first
            logging.getLogger().setLevel(logging.WARNING)
        try:
            return task(cfg)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            if full or HydraConfig.get().mode == RunMode.MULTIRUN:  # a sweep continues with its other jobs
                raise
            sys.exit(_fail(error))

    try:
        sys.argv[1:] = complete(overrides.readable(sys.argv[1:]))
        hydra.main(version_base="1.3", config_path=overrides.CONFIGS, config_name=config_name)(job)()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        sys.exit(_fail(error))
    finally:
        if asked is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = asked


def _name(cfg: DictConfig, prefix: str = "") -> None:
    """Turn numbers that YAML reads into names where names belong (``run_id: 2024``)."""
    for key in list(cfg):
        if OmegaConf.is_interpolation(cfg, key) or OmegaConf.is_missing(cfg, key):
            continue
        value = cfg[key]
        if isinstance(value, DictConfig):
            _name(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and overrides.is_name(f"{prefix}{key}"):
            cfg[key] = str(value)


def _quiet() -> None:
    """Hide Lightning's notes on its defaults and its advertisements; its warnings stay in the log."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()  # its own, where it was imported before Hydra set up the log
        logger.propagate = True
    for name in ("early_stopping", "model_summary"):  # their callbacks are there only if asked for
        logging.getLogger(f"pytorch_lightning.callbacks.{name}").setLevel(logging.INFO)
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of a classifier's tensors that features do without
    said = ("LeafSpec", "does not have many workers", "in eval mode", "broadcast_buffers", "exists and is not empty")
    warnings.filterwarnings("ignore", message="|".join(f".*{words}.*" for words in said))


def _fail(error: BaseException) -> int:
    print(f"error: {sentence(error)}", file=sys.stderr)
    return 2
