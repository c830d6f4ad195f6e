"""The HTTP server: gunicorn (one process, threads), or waitress if gunicorn cannot run (Windows)."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

from apiflask import APIFlask

from colorization.api.settings import MEGA, Settings
from colorization.core.errors import InputError

ENDING = 10  # seconds that requests have to end in after SIGTERM


def serve(settings: Settings) -> None:
    """Listen until SIGTERM or Ctrl-C.

    Raises:
        InputError: see :func:`colorization.api.app.create_app`.
    """
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    generated = not settings.token and not settings.local
    if generated:  # here, so that a worker that had to be started again keeps it
        settings = dataclasses.replace(settings, token=secrets.token_urlsafe(32))
    words = _greeting(settings, generated)
    waitress = settings.server == "waitress" or (settings.server == "auto" and sys.platform == "win32")
    (_waitress if waitress else _gunicorn)(settings, words)


def _greeting(settings: Settings, generated: bool) -> str:
    """Where the server is and what it needs."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    lines = [f"colorization  {url}", f"API           {url}/api/docs"]
    if generated:
        lines.append(f"token         {settings.token} (a new one at each start; COLORIZATION_TOKEN sets one)")
    elif settings.token:
        lines.append("token         the one that was set")
    lines.append(f"runs, results {settings.output_dir}")
    lines += [f"photos        {r}{'' if Path(r).is_dir() else ' (not there)'}" for r in settings.data_roots]
    return "\n".join(lines)


def _gunicorn(settings: Settings, words: str) -> None:
    """One worker process: models, queue and streams live in it; threads, because each stream takes one."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter

    from colorization.api.app import create_app

    class Application(BaseApplication):
        def load_config(self) -> None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            for key, value in {
                "bind": f"{host}:{settings.port}",
                "worker_class": "colorization.api.gunicorn_worker.Worker",
                "threads": settings.threads,
                "workers": 1,
                "timeout": 0,
                "graceful_timeout": ENDING,
                "keepalive": 5,
                "limit_request_line": 8190,
                "loglevel": "error",
                "worker_exit": _close,
                "control_socket_disable": True,
            }.items():
                self.cfg.set(key, value)

        def load(self) -> APIFlask:  # called in the worker process
            try:
                app = create_app(settings)
            except InputError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                sys.exit(Arbiter.WORKER_BOOT_ERROR)
            print(words, flush=True)
            return app

    # The sentence of `load` is enough.
    said = re.compile(r"failed to boot|exited with code 3|Shutting down: Master")
    logging.getLogger("gunicorn.error").addFilter(lambda record: not said.search(record.getMessage()))
    parent = os.getpid()
    try:
        Application().run()
    except SystemExit as error:  # how gunicorn ends, in this process and in the worker
        if error.code == Arbiter.WORKER_BOOT_ERROR and os.getpid() == parent:
            sys.exit(2)
        raise


def _close(server: Any, worker: Any) -> None:
    if (app := getattr(worker, "wsgi", None)) is not None:
        app.extensions["colorization"].close()


def _waitress(settings: Settings, words: str) -> None:
    import waitress

    from colorization.api.app import create_app

    app = create_app(settings)

    def end(*_: Any) -> None:
        app.extensions["colorization"].streams.closing.set()  # else their threads would be waited for
        raise SystemExit(0)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, end)
    print(words, flush=True)
    try:
        waitress.serve(
            app,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            connection_limit=1000,
            max_request_body_size=(settings.batch_mb + 1) * MEGA,
            _quiet=True,
        )
    finally:
        app.extensions["colorization"].close()
