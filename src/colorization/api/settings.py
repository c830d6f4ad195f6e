"""The server's settings: ``configs/serve.yaml``, with types."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from colorization.core.errors import InputError

MEGA = 1_000_000
SERVERS = ("auto", "gunicorn", "waitress")
RUNNERS = ("local", "ray", "slurm")


@dataclass(kw_only=True)
class Settings:
    """See ``configs/serve.yaml``, which explains each and has its default."""

    host: str
    port: int
    dev: bool
    debug: bool
    server: str
    output_dir: str
    data_roots: list[str]
    database: str | None
    token: str | None
    allowed_hosts: list[str] = field(default_factory=list)
    trainings: int
    runner: str
    ray_address: str
    ray_resources: dict[str, Any]
    slurm_options: list[str]
    threads: int
    streams: int
    waiting: int
    rate: str
    guesses: str
    models_mb: int
    upload_mb: int
    batch_files: int
    batch_mb: int
    pixels_mp: int
    results_days: float
    results_mb: int
    tensorboard_url: str | None = None

    @property
    def state_dir(self) -> Path:
        """The server's own folder: database, uploads, results."""
        return Path(self.output_dir) / "server"

    @property
    def database_url(self) -> str:
        """Of SQLAlchemy."""
        return self.database or f"sqlite:///{self.state_dir.absolute() / 'colorization.db'}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def load(overrides: Sequence[str] = (), **given: Any) -> Settings:
    """The settings of ``configs/serve.yaml`` with ``key=value`` overrides, then ``given``.

    Raises:
        InputError: no such key, or a value of another type.
    """
    file = resources.files("colorization.configs") / "serve.yaml"
    try:
        config = OmegaConf.merge(
            OmegaConf.structured(Settings),
            OmegaConf.create(file.read_text(encoding="utf-8")),
            OmegaConf.from_dotlist(list(overrides)),
            OmegaConf.create(_plain(given)),
        )
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise InputError(f"{key}{first}; configs/serve.yaml lists all settings") from error
    assert isinstance(settings, Settings)
    if not 1 <= settings.port <= 65535:
        raise InputError(f"port={settings.port}: should be a number from 1 to 65535")
    settings.token = settings.token or None  # an empty variable of the environment is none
    if settings.server not in SERVERS:
        raise InputError(f"server={settings.server}: should be one of {', '.join(SERVERS)}")
    if settings.runner not in RUNNERS:
        raise InputError(f"runner={settings.runner}: should be one of {', '.join(RUNNERS)}")
    return settings


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in values.items() if v is not None}
