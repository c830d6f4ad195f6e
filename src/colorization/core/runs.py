"""The run folder: the contract between a training run and everything that reads it.

``<output_dir>/runs/<run_id>/`` holds, each JSON with a ``schema`` number:

- ``config.yaml``, ``overrides.yaml``: the resolved configuration and the overrides of the command line
- ``environment.json``: versions, hardware, git revision; ``split.json``: every photo with its split, size
  and digest; a resume keeps it, and an evaluation of the run's own photos takes it
- ``train.log``; ``metrics.jsonl``: append-only rows (time, step, epoch, split, name, value)
- ``status.json``: written atomically; state is queued, running, finished, failed or stopped
- ``checkpoints/``: ``last.ckpt``, the one before it ``previous.ckpt``, ``best.ckpt``
- ``weights.safetensors``; ``samples/``; ``tensorboard/``

This module imports no torch: a server or a table can read runs cheaply.
"""

from __future__ import annotations

import datetime
import errno
import functools
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from colorization.core.atomic import write_json

SCHEMA = 1
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the person's quota, or the largest file it takes
STATES = ("queued", "running", "finished", "failed", "stopped")
_PROCESS_TIME = datetime.datetime.now(datetime.timezone.utc)
_PROCESS_TOKEN = secrets.randbelow(1 << 16)


def utc_now() -> str:
    """The time as ISO 8601 in UTC, e.g. ``2026-01-31T12:00:00+00:00``."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def start_time() -> str:
    """When this process started, in UTC, as a sortable folder name."""
    return f"{_PROCESS_TIME:%Y%m%d-%H%M%S}"


def new_run_id(model: str, job: int = 0) -> str:
    """``<model>-<UTC time>-<4 hex>``: the same within a process and job, different for each job of a sweep."""
    return f"{model}-{start_time()}-{(_PROCESS_TOKEN + job) % (1 << 16):04x}"


def trial_id(sweep: str, number: int) -> str:
    """The run of a trial of a multirun."""
    return f"{sweep}-{number:03d}"


@functools.cache  # each checkpoint says it, of the code that this process has loaded
def git_state() -> dict[str, Any]:
    """``{"revision": <hash or None>, "dirty": <bool or None>}`` of the checkout that this file lies in."""

    def git(*arguments: str) -> str | None:
        try:
            # A status that is killed with the run would leave its lock in the checkout.
            command = ["git", "--no-optional-locks", *arguments]
            done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed wheel in a virtual environment inside somebody's repository is not that repository's code.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return {"revision": None, "dirty": None}
    status = git("status", "--porcelain")
    return {"revision": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def environment() -> dict[str, Any]:
    """Versions, hardware and git revision of this process."""
    packages = ("lab-colorization", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")
    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    device = None
    if "torch" in sys.modules:
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "schema": SCHEMA,
        "time": utc_now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "gpu": device,
        "packages": versions,
        "git": git_state(),
        "command": sys.argv,
    }


class Run:
    """One run folder. Creating the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.id = self.path.name
        self.status_file = self.path / "status.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.weights_file = self.path / "weights.safetensors"
        self.last_checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.previous_checkpoint = self.path / "checkpoints" / "previous.ckpt"  # the one before last.ckpt
        self.best_checkpoint = self.path / "checkpoints" / "best.ckpt"

    def status(self) -> dict[str, Any]:
        """The content of ``status.json``; ``{}`` if there is none."""
        if not self.status_file.is_file():
            return {}
        return json.loads(self.status_file.read_text(encoding="utf-8"))

    def split(self) -> dict[str, Any] | None:
        """The content of ``split.json``; ``None`` if there is none."""
        file = self.path / "split.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def lock(self, timeout: float) -> FileLock:
        """The lock of the training process, not acquired yet; ``Timeout`` if it is held for so many seconds."""
        return FileLock(self.path / ".lock", timeout=timeout)

    def update_status(self, **changes: Any) -> None:
        """Merge ``changes`` into ``status.json``, atomically."""
        assert changes.get("state", "running") in STATES, changes
        write_json(
            self.status_file, {"schema": SCHEMA, "run_id": self.id, **self.status(), **changes, "time": utc_now()}
        )

    def append_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows to ``metrics.jsonl``; each is one line with ``schema`` and ``time`` added."""
        lines = [json.dumps({"schema": SCHEMA, "time": utc_now(), **row}) + "\n" for row in rows]
        with self.metrics_file.open("ab+") as file:
            if file.tell():  # a crash may have cut the last line short; it must not swallow the next one
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write("".join(lines).encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl`` in their order, without those that a resume has replaced.

        A run that resumes from a checkpoint before its last rows writes that stretch once more: of each (split, name)
        a row replaces those of its own step and of later ones. A line that a crash cut short is left out.
        """
        kept: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
        if self.metrics_file.is_file():
            for number, line in enumerate(self.metrics_file.read_text(encoding="utf-8").split("\n")):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                rows = kept.setdefault((row["split"], row["name"]), [])
                while rows and rows[-1][1]["step"] >= row["step"]:
                    rows.pop()
                rows.append((number, row))
        return [row for _, row in sorted((r for rows in kept.values() for r in rows), key=lambda r: r[0])]

    def best_validation(self, monitor: str, mode: str = "min") -> dict[str, float]:
        """The ``val/...`` figures of the validation with the lowest (``max``: highest) ``monitor``, a ``val/<name>``.

        That is the one of ``best.ckpt``, whose weights the run exports; ``{}`` if it was never measured.
        """
        rows = [r for r in self.metrics() if r["split"] == "val" and r["value"] is not None]
        measured = [r for r in rows if f"val/{r['name']}" == monitor]
        if not measured:
            return {}
        step = (max if mode == "max" else min)(measured, key=lambda r: r["value"])["step"]
        return {f"val/{r['name']}": r["value"] for r in rows if r["step"] == step}


def find_runs(output_dir: Path) -> list[Run]:
    """Every run below ``<output_dir>/runs``, oldest first."""
    files = (Path(output_dir) / "runs").glob("*/status.json")
    return [Run(f.parent) for f in sorted(files, key=lambda f: (Run(f.parent).status().get("started", ""), f))]
