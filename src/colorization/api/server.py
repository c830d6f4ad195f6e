"""The console script ``colorization``: ``colorization serve``."""

from __future__ import annotations

import argparse
import errno
import socket
import sys
from collections.abc import Sequence

from colorization import __version__
from colorization.core.errors import InputError
from colorization.core.machine import print_all_letters


def arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of ``serve``."""
    parser.add_argument(
        "--host", help="address to listen on; anything but this machine's own needs a token; default 127.0.0.1"
    )
    parser.add_argument("--port", type=int, help="default 5000")
    parser.add_argument("--dev", action="store_true", default=None, help="for the web app of `npm run dev` (CORS)")
    parser.add_argument("--debug", action="store_true", default=None, help="log each request")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any setting of configs/serve.yaml")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("colorization", description="Automatic colorization of photographs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve")
    serve = commands.add_parser(
        "serve", help="the REST API and the web app", description="Serve the REST API and the web app."
    )
    arguments(serve)
    return parser


def check_port(host: str, port: int) -> None:
    """Raise ``InputError`` with a port that is free if this one is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind((host, port))
            return
        except OSError as error:
            reason = error.strerror
            taken = error.errno == errno.EADDRINUSE
    with socket.socket(family) as other:
        try:
            other.bind((host, 0))
        except OSError as error:
            raise InputError(f"--host {host}: cannot listen there ({reason})") from error
        free = other.getsockname()[1]
    problem = "is taken" if taken else f"cannot be listened on ({reason})"
    raise InputError(f"--port {port}: {problem}; --port {free} is free")


def main(given: Sequence[str] | None = None) -> int:
    """``colorization serve``; 2 for a mistake of the person."""
    print_all_letters()
    options = _parser().parse_args(given)
    from colorization.api import settings as settings_

    try:
        settings = settings_.load(
            options.overrides, host=options.host, port=options.port, dev=options.dev, debug=options.debug
        )
        check_port(settings.host, settings.port)
        from colorization.api.serving import serve

        serve(settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
