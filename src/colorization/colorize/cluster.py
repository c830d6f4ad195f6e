"""Photos colorized by the workers of a Ray cluster, whose machines see the same folders. Imports Ray only when used."""

from __future__ import annotations

import os
import platform
import queue
import socket
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from colorization.colorize.bounded import took_too_long
from colorization.colorize.colorizer import Colorizer, find_weights
from colorization.colorize.folder import Outcome, Work
from colorization.core.errors import InputError
from colorization.files.locations import Location
from colorization.models import loading

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
    address = options.get("address") or os.environ.get("RAY_ADDRESS") or ""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        if not ray.is_initialized():
            credentials = {k: v for k, v in os.environ.items() if k.startswith("FSSPEC_")}
            ray.init(**{"include_dashboard": False, "runtime_env": {"env_vars": credentials}, **options})
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        where = address or "this machine"
        raise InputError(f"{asked_by}: no Ray cluster answers at {where} ({str(error).splitlines()[0]})") from error
    return ray


class Workers:
    """Actors that each hold the model; to be called by as many threads.

    Args:
        weights: as for :meth:`Colorizer.load`, found by every machine.
        colorizer: of this process: what backends and devices the workers are to use, which the results depend on.
        count: of actors; default and at most as many as the cluster has processors (or GPUs, where they use one).
        seconds: that a photo may take; ``None``: no limit.

    Raises:
        InputError: see :func:`connect`; the cluster has none of those.
    """

    def __init__(
        self,
        weights: list[str] | None,
        colorizer: Colorizer,
        count: int | None = None,
        seconds: float | None = None,
    ) -> None:
        self._seconds = seconds
        self._ray = connect("--engine ray", log_to_driver=False, logging_level="warning")
        accelerated = any(str(getattr(b, "device", "cpu")) == "cuda" for b in colorizer.backends)
        kind = "GPU" if accelerated else "CPU"
        room = int(self._ray.cluster_resources().get(kind, 0))
        if not room:
            raise InputError(f"--engine ray: the cluster has no {kind}")
        self.count = min(count or room, room)
        several: list[str | None] = [*weights] if weights else [None]
        files = [str(find_weights(w).absolute()) for w in several]
        loaded = [(b.name, str(getattr(b, "device", "cpu")), b.digest) for b in colorizer.backends]
        self._actor = self._ray.remote(_Worker).options(num_cpus=1, num_gpus=1 if accelerated else 0)
        self._arguments = (list(zip(files, loaded, strict=True)), str(Path.cwd()))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.count):
            self._start_one()

    def __call__(self, work: Work, source: Location, parts: dict[str, Location]) -> Outcome:
        """Have a worker do it; a photo whose worker dies is given to another one."""
        for _ in range(ATTEMPTS):
            worker = self._idle.get()
            try:
                outcome = self._ray.get(worker.do.remote(work, source, parts), timeout=self._seconds)
            except self._ray.exceptions.GetTimeoutError:
                self._ray.kill(worker)
                self._start_one()
                return Outcome({}, InputError(took_too_long(self._seconds or 0)))
            except self._ray.exceptions.RayTaskError:  # a bug; the worker lives
                self._idle.put(worker)
                raise
            except self._ray.exceptions.RayError:
                self._start_one()
                continue
            self._idle.put(worker)
            return outcome
        return Outcome({}, InputError(f"the worker that had it died, {ATTEMPTS} times"))

    def _start_one(self) -> None:
        """It counts once it is there: a cluster that has lost a machine may have no place for it."""
        threading.Thread(target=self._wait_for_one, daemon=True).start()

    def _wait_for_one(self) -> None:
        while True:
            worker = self._actor.remote(*self._arguments)
            try:
                self._ray.get(worker.ready.remote())
            except self._ray.exceptions.RayError:
                time.sleep(1)
                continue
            self._idle.put(worker)
            return


class _Worker:
    """In a process of the cluster."""

    def __init__(self, weights: list[tuple[str, tuple[str, str, str]]], folder: str) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._wrong: str | None = None
        try:
            os.chdir(folder)
            loaded = [loading.load(Path(file), device, name, 1, False) for file, (name, device, _) in weights]
        except (InputError, OSError) as error:
            self._wrong = f"on {platform.node()}: {error}"
            return
        if [b.digest for b in loaded] != [digest for _, (_, _, digest) in weights]:
            self._wrong = f"on {platform.node()}: other weights than where the run was started"
        self._colorizer = Colorizer(loaded, 1)

    def ready(self) -> None:
        """Answers."""

    def do(self, work: Work, source: Location, parts: dict[str, Location]) -> Outcome:
        if self._wrong:
            return Outcome({}, InputError(self._wrong))
        return work(self._colorizer, source, parts)
