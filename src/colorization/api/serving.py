"""What listens: gunicorn (one process, threads), or waitress where gunicorn cannot run (Windows)."""

from __future__ import annotations

import logging
import sys
from typing import Any

from apiflask import APIFlask

from colorization.api.settings import Settings

log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Listen until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    (_waitress if sys.platform == "win32" else _gunicorn)(settings)


def _gunicorn(settings: Settings) -> None:
    """One worker process: models, queue and streams live in it; threads, because each stream takes one."""
    from gunicorn.app.base import BaseApplication

    from colorization.api.app import create_app

    class Application(BaseApplication):
        def load_config(self) -> None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            for key, value in {
                "bind": f"{host}:{settings.port}",
                "worker_class": "gthread",
                "threads": settings.threads,
                "workers": 1,
                "timeout": 0,
                "graceful_timeout": 10,
                "keepalive": 5,
                "loglevel": "info" if settings.debug else "warning",
                "accesslog": "-" if settings.debug else None,
                "worker_exit": _close,
                "control_socket_disable": True,
            }.items():
                self.cfg.set(key, value)

        def load(self) -> APIFlask:  # called in the worker process
            app = create_app(settings)
            print(f"colorization: http://{settings.host}:{settings.port}", flush=True)
            return app

    Application().run()


def _close(server: Any, worker: Any) -> None:
    if (app := getattr(worker, "wsgi", None)) is not None:
        app.extensions["colorization"].close()


def _waitress(settings: Settings) -> None:
    import waitress

    from colorization.api.app import create_app

    app = create_app(settings)
    print(f"colorization: http://{settings.host}:{settings.port}", flush=True)
    try:
        waitress.serve(app, host=settings.host, port=settings.port, threads=settings.threads)
    finally:
        app.extensions["colorization"].close()
