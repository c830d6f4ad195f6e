"""Networks by the name of their class, of this package and of those that are trusted: a file may be a stranger's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from colorization import __version__
from colorization.core import trusted
from colorization.core.errors import InputError

_NETWORKS = "colorization.networks."


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """A network from ``{"_target_": "colorization.networks.<module>.<Class>", **arguments}``.

    The same form stands in a model's YAML and in a weights file. A file may come from a stranger, so nothing is ever
    called but the networks of :mod:`colorization.networks` and of packages that the user has named
    (:func:`colorization.core.trusted.trust`).

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
    own = target.startswith(_NETWORKS)
    if not own and not trusted.is_trusted(target):
        package = target.partition(".")[0]
        raise InputError(
            f"network {target!r} would run code of the package {package!r}; if you trust it, say so: trust=[{package}]"
            f", colorize --trust {package}, or {trusted.VARIABLE}={package} in the environment"
        )
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        where = f"in this version ({__version__})" if own else f"here ({error})"
        raise InputError(f"network {target!r} does not exist {where}") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"network {target!r} is not a network")
    return cls
