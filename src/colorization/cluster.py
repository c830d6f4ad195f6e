"""Photos colorized by the workers of a Ray cluster, whose machines see the same folders. Imports Ray only when used."""

from __future__ import annotations

import os
import queue
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

from colorization import backends
from colorization.errors import InputError
from colorization.folder import Outcome, Work
from colorization.inference import Colorizer, find_weights

ATTEMPTS = 3  # at a photo whose worker dies


def connect(asked_by: str, **options: Any) -> ModuleType:
    """Ray, connected to the cluster at ``RAY_ADDRESS`` or of this machine; else it starts one here.

    Args:
        asked_by: for the message.
        options: of ``ray.init``.

    Raises:
        InputError: Ray is not installed, or the cluster does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f'{asked_by}: needs Ray: pip install "lab-colorization[scale]"') from error
    host, _, port = os.environ.get("RAY_ADDRESS", "").rpartition("//")[2].rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        if not ray.is_initialized():
            ray.init(include_dashboard=False, **options)
    except (OSError, RuntimeError) as error:
        where = os.environ.get("RAY_ADDRESS", "this machine")
        raise InputError(f"{asked_by}: no Ray cluster answers at {where} ({str(error).splitlines()[0]})") from error
    return ray


class Workers:
    """Actors that each hold the model; to be called by as many threads.

    Args:
        weights: as for :meth:`Colorizer.load`, found by every machine.
        colorizer: of this process: what backends and devices the workers are to use, which the results depend on.
        count: of actors; default one for each processor of the cluster.

    Raises:
        InputError: see :func:`connect`.
    """

    def __init__(self, weights: list[str] | None, colorizer: Colorizer, count: int | None = None) -> None:
        self._ray = connect("--engine ray", log_to_driver=False, logging_level="warning")
        self.count = count or int(self._ray.cluster_resources().get("CPU", 1))
        accelerated = any(str(getattr(b, "device", "cpu")) == "cuda" for b in colorizer.backends)
        self._actor = self._ray.remote(_Worker).options(num_cpus=1, num_gpus=1 if accelerated else 0)
        several: list[str | None] = [*weights] if weights else [None]
        files = [str(find_weights(w).absolute()) for w in several]
        loaded = [(b.name, str(getattr(b, "device", "cpu")), b.digest) for b in colorizer.backends]
        self._arguments = (list(zip(files, loaded, strict=True)), str(Path.cwd()))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.count):
            self._idle.put(self._actor.remote(*self._arguments))

    def __call__(self, work: Work, source: Path, parts: dict[str, Path]) -> Outcome:
        """Have a worker do it; a photo whose worker dies is given to another one."""
        worker = self._idle.get()
        try:
            for _ in range(ATTEMPTS):
                try:
                    return self._ray.get(worker.do.remote(work, source, parts))
                except self._ray.exceptions.RayActorError:
                    worker = self._actor.remote(*self._arguments)
            return Outcome({}, InputError(f"the worker that had it died, {ATTEMPTS} times"))
        finally:
            self._idle.put(worker)


class _Worker:
    """In a process of the cluster."""

    def __init__(self, weights: list[tuple[str, tuple[str, str, str]]], folder: str) -> None:
        import cv2

        os.chdir(folder)
        cv2.setNumThreads(1)
        self._wrong: str | None = None
        loaded = []
        for file, (name, device, digest) in weights:
            loaded.append(backends.load(Path(file), device, name, 1, False))
            if loaded[-1].digest != digest:
                self._wrong = f"{file}: other weights on {os.uname().nodename} than where the run was started"
        self._colorizer = Colorizer(loaded, 1)

    def do(self, work: Work, source: Path, parts: dict[str, Path]) -> Outcome:
        if self._wrong:
            return Outcome({}, InputError(self._wrong))
        return work(self._colorizer, source, parts)
