"""The console script ``colorization``: every command of the package under one name.

``colorization train model=unet`` is ``python -m colorization.train model=unet``.
"""

from __future__ import annotations

import difflib
import os
import runpy
import sys

from colorization import __version__
from colorization.core.machine import print_all_letters

# Command -> the module that is run, its help, the extra of the package that it needs.
COMMANDS = {
    "colorize": (
        "colorization.colorize.cli",
        "colorize photographs or folders of them (also the command colorize)",
        None,
    ),
    "serve": ("colorization.api.server", "serve the REST API and the web app", "serve"),
    "train": ("colorization.train", "train a stage", "train"),
    "eval": ("colorization.eval", "evaluate weights side by side", "train"),
    "sweep": ("colorization.sweep", "search settings with Optuna", "tune"),
    "ensemble": ("colorization.ensemble", "merge several weights into one file", "train"),
    "summarize": ("colorization.summarize", "list runs as one table", "train"),
    "pack": ("colorization.pack", "pack photographs ahead of training, or write shards", "train"),
    "export": ("colorization.export", "export weights, also to ONNX", "train"),
    "push": ("colorization.push", "publish weights on a model hub", "train"),
    "completion": ("colorization.completion", "print a script that completes these commands in a shell", None),
    "doctor": ("colorization.doctor", "say what is installed, what works and what is missing", None),
}


def usage() -> str:
    """All commands, one a line."""
    lines = [f"  {name:<10} {does}" for name, (_, does, _) in COMMANDS.items()]
    head = "usage: colorization COMMAND ...\n\nAutomatic colorization of photographs."
    return "\n".join([head, "", *lines, "", "colorization COMMAND --help says more of each."])


def main() -> None:
    """Run the command that is named first; 2 if there is none of this name."""
    print_all_letters()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks at a TAB
        from colorization import completion

        completion.answer()
    name, *rest = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(__version__)
    elif name in COMMANDS:
        # As `python -m` does it: Lightning and Hydra's launchers start further processes by the module's name.
        sys.argv[1:] = [name, *rest] if name == "serve" else rest
        module, _, extra = COMMANDS[name]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except ModuleNotFoundError as error:
            if extra is None or (error.name or "colorization").startswith("colorization"):
                raise
            needs = f'needs {error.name}: pip install "lab-colorization[{extra}]"'
            print(f"error: colorization {name} {needs}", file=sys.stderr)
            sys.exit(2)
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        print(f"error: {f'no command {name}{meant}' if name else 'no command given'}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
