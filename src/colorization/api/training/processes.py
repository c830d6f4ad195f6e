"""Processes that outlive the server (trainings, evaluations): the same one again by pid and start time."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Collection
from contextlib import suppress

import psutil

HOST = platform.node()
# Systems keep a process's start relative to the boot, whose own time moves a little when the clock is set.
_TOLERANCE = 3.0


def started(pid: int) -> float:
    """When a process started, in seconds since 1970."""
    return psutil.Process(pid).create_time()


def alive(pid: int | None, started: float | None) -> bool:
    """Whether the process that had this pid and started then still runs."""
    return _get(pid, started) is not None


def _get(pid: int | None, started: float | None) -> psutil.Process | None:
    if pid is None or started is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _TOLERANCE and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def find(arguments: Collection[str]) -> psutil.Process | None:
    """The process of this machine whose command line has all of ``arguments``: the oldest, for its workers have them,
    too."""
    processes = psutil.process_iter(["cmdline", "create_time"])
    found = [p for p in processes if set(arguments) <= set(p.info["cmdline"] or ())]
    return min(found, key=lambda p: p.info["create_time"], default=None)


def terminate(pid: int | None, started: float | None) -> None:
    """Ask a process to end, with SIGTERM, if it is still there."""
    if (process := _get(pid, started)) is not None:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            process.terminate()


def kill(pid: int | None, started: float | None) -> None:
    """End a process and its loaders at once, if it is still there."""
    if (process := _get(pid, started)) is None:
        return
    if hasattr(os, "killpg") and os.getpgid(process.pid) == process.pid:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    for one in [*process.children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
