"""Packages whose code may run for a weights file, because somebody has named them.

The names are kept in the environment: child processes know them as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from colorization.core.errors import InputError

VARIABLE = "COLORIZATION_TRUST"


def names() -> list[str]:
    """The packages and modules that have been named, sorted."""
    return sorted({name for name in os.environ.get(VARIABLE, "").split(",") if name})


def trust(given: Iterable[str]) -> None:
    """Trust further packages or modules, e.g. ``mypackage`` or ``mypackage.networks``.

    Raises:
        InputError: a word that cannot be the name of a module.
    """
    given = list(given)
    for name in given:
        if not all(part.isidentifier() for part in str(name).split(".")):
            raise InputError(f"trust={name}: should be the name of a package, such as mypackage")
    if given:
        os.environ[VARIABLE] = ",".join(sorted({*names(), *given}))


def is_trusted(target: str) -> bool:
    """Whether a class, by its dotted name, lies in a package that has been named."""
    return any(target.startswith(f"{name}.") for name in names())
