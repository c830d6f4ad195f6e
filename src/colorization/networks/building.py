"""Networks by the name of their class, and nothing else: a weights file may come from a stranger."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from colorization import __version__
from colorization.core.errors import InputError

_NETWORKS = "colorization.networks."


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """A network from ``{"_target_": "colorization.networks.<module>.<Class>", **arguments}``.

    The same form stands in a model's YAML and in a weights file. A file may come from a stranger, so nothing but a
    module of :mod:`colorization.networks` is ever called.

    Raises:
        InputError: another target, or arguments that it does not take.
    """
    arguments = dict(spec)
    target = str(arguments.pop("_target_", None))
    cls = _class(target)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise InputError(f"network {target!r}: {error}") from error


def complete(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a network with the defaults of the arguments that it leaves out."""
    if not spec:
        return {}
    parameters = inspect.signature(_class(str(spec["_target_"]))).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(spec)


def _class(target: str) -> type[nn.Module]:
    """The network of this name. Raises ``InputError``."""
    module_name, _, class_name = target.rpartition(".")
    if not target.startswith(_NETWORKS):
        raise InputError(f"network {target!r}: only networks in {_NETWORKS}* can be built")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"network {target!r} does not exist in this version ({__version__})") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"network {target!r} is not a network")
    return cls
