"""The command line's ``key=value`` in Hydra's grammar: names that look like numbers, paths with any character."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from colorization.core.errors import InputError

CONFIGS = "pkg://colorization.configs"  # the tree that a command line is composed with

# Keys whose values are names and paths; 2024 is also a name. (null and lists stay as they are.)
_NAMES = re.compile(
    r"(^|\.)(run_id|sweep|init_weights|ckpt_path|weights|predictions|archive|name|output|to|repo|\w+_dir|\w+_weights)$"
)


def is_name(key: str) -> bool:
    """Whether the values of a dotted key are names or paths."""
    return _NAMES.search(key) is not None


def quoted(value: str) -> str:
    """Any string as a value in Hydra's grammar."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", value)) + "'"


def readable(arguments: Sequence[str]) -> list[str]:
    """A command line with names and paths quoted where Hydra would read a number, a choice, or nothing at all, and
    without loggers and callbacks where they are ``null``.

    Raises:
        InputError: another value that Hydra cannot read; with the form that works in a shell.
    """
    several = not {"-m", "--multirun"}.isdisjoint(arguments)
    return [_readable(a, several) if is_override(a) else a for a in arguments]


def is_override(argument: str) -> bool:
    """Whether a word of the command line is ``key=value``, ``+key=value`` or ``~key``; else it is an option."""
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _readable(override: str, several: bool) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, text = override.partition("=")
    names = text.split(",") if several else [text]
    as_names = f"{key}={','.join(map(quoted, names))}"
    takes_lists = key.endswith(("weights", "predictions")) and text[:1] in ("[", "{")
    plain = is_name(key.lstrip("+")) and not takes_lists
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        if plain:
            return as_names
        if text[:1] == "[":
            as_names = f"{key}=[{','.join(quoted(n.strip()) for n in text.strip('[]').split(','))}]"
        raise InputError(f"{override}: cannot be read; in a shell, write {shlex.quote(as_names)}") from error
    if override in ("logger=null", "callbacks=null"):
        return f"~{key}"  # as Hydra calls a group of which nothing is chosen
    if not plain or parsed.is_delete():
        return override
    if parsed.value() is None or isinstance(parsed.value(), str) or (several and parsed.is_sweep_override()):
        return override
    return as_names
