"""Who may ask what: Host header, token, origin, rate; and the headers of every answer."""

from __future__ import annotations

from apiflask import APIFlask

from colorization.api.settings import Settings


def register(app: APIFlask, settings: Settings) -> None:
    """Put the checks before every request of ``app``."""
