"""Hydra's ``compose`` in a server with threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

_lock = threading.Lock()  # Hydra's search path is a global of the process


def compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """A config of ``colorization.configs`` with overrides in Hydra's grammar.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: they do not fit the config.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    import colorization.core.hydra_main  # noqa: F401 (the resolvers of the configs)

    with _lock:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_module("colorization.configs", version_base="1.3"):
            return hydra.compose(config_name, overrides=list(overrides))


def choices(group: str) -> list[str]:
    """The entries of a group of the config tree.

    A folder in it is a group of its own, but that of experiments, which are ``folder/experiment``.
    """
    folder = Path(str(resources.files("colorization.configs"))) / group
    pattern = "**/*.yaml" if group == "experiment" else "*.yaml"
    names = [f.relative_to(folder).with_suffix("").as_posix() for f in folder.glob(pattern)]
    return sorted(n for n in names if not n.startswith("_"))
