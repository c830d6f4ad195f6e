"""Completion in shells of the commands ``colorization`` and ``colorize``: ``source <(colorization completion bash)``.

The shell's script, which is argcomplete's, asks the command itself at each TAB; :func:`answer` imports only what the
command on the line needs, never torch. Overrides of the Hydra commands are completed by Hydra's own engine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, resources
from typing import Any

import argcomplete

from colorization.commands import COMMANDS
from colorization.core.overrides import CONFIGS

SHELLS = ("bash", "zsh", "fish")
_WITH_ARGPARSE = {name: COMMANDS[name][0] for name in ("colorize", "serve", "summarize")} | {"completion": __name__}
_WITH_HYDRA = ("train", "eval", "sweep", "ensemble", "pack", "export", "push")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of this command."""
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")


def answer() -> None:
    """Answer a shell that asks for completions, and exit."""
    words = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split()
    parser = argparse.ArgumentParser("colorization")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name in COMMANDS:
        command = commands.add_parser(name, add_help=name not in _WITH_HYDRA)
        if name not in words[1:2]:
            continue
        try:
            if name in _WITH_ARGPARSE:
                import_module(_WITH_ARGPARSE[name]).arguments(command)
            if name == "serve":
                _complete_overrides(command, _server_settings)
            if name in _WITH_HYDRA:
                _hydra_arguments(command, name)
        except ModuleNotFoundError:  # the command belongs to an extra that is not installed
            continue
    argcomplete.autocomplete(parser, always_complete_options=False)


def _complete_overrides(parser: argparse.ArgumentParser, completer: Callable[..., list[str]]) -> None:
    (overrides,) = (action for action in parser._actions if action.dest == "overrides")
    overrides.completer = completer  # type: ignore[attr-defined]


def _server_settings(**_: Any) -> list[str]:
    from omegaconf import OmegaConf

    text = (resources.files("colorization.configs") / "serve.yaml").read_text(encoding="utf-8")
    return [f"{key!s}=" for key in OmegaConf.create(text)]


def _hydra_arguments(parser: argparse.ArgumentParser, config_name: str) -> None:
    from hydra._internal.utils import get_args_parser

    for action in get_args_parser()._actions:
        parser._add_action(action)
    _complete_overrides(parser, _overrides(config_name))


def _overrides(config_name: str) -> Callable[..., list[str]]:
    """Completions of the overrides of a config: its groups, their choices, its keys."""

    def complete(prefix: str, parsed_args: Any, **_: Any) -> list[str]:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.errors import HydraException
        from hydra.plugins.completion_plugin import DefaultCompletionPlugin
        from omegaconf.errors import OmegaConfBaseException

        loader = ConfigLoaderImpl(create_config_search_path(CONFIGS))
        line = " ".join([*(parsed_args.overrides or []), prefix])
        try:
            return DefaultCompletionPlugin(loader)._query(config_name, line)
        except (
            HydraException,
            OmegaConfBaseException,
        ):  # what is there already cannot be composed, or not without torch
            return []

    return complete


def main(given: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        "colorization completion",
        description="Print a script that completes colorization and colorize in a shell.",
        epilog="bash: source <(colorization completion bash); zsh: the same with zsh, after compinit; "
        "fish: colorization completion fish | source",
    )
    arguments(parser)
    print(argcomplete.shellcode(["colorization", "colorize"], shell=parser.parse_args(given).shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
