"""Commands as processes of their own that need not import torch: forked from a server that has done so once a session.

An import costs ten seconds of CPU time. Tests of how a command starts use :mod:`subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

TRAIN = "from colorization.train import main; main()"
# The last two for the first step of an optimizer and for backbones.
PRELOADED = ["colorization.train", "colorization.eval", "torch._dynamo", "timm"]

_started: list[Process] = []


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="forks-")


class Process:
    """``python -c code *arguments`` in ``folder`` as a session of its own, with the interface of
    :class:`subprocess.Popen`: both streams are the first of :meth:`communicate`."""

    def __init__(
        self, folder: Path, *arguments: str, code: str = TRAIN, environment: Mapping[str, str] | None = None
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.args, self._output = [code, *arguments], Path(_folder().name) / str(len(_started))
        variables = dict(os.environ if environment is None else environment)
        given = (str(folder), code, arguments, variables, str(self._output), multiprocessing.get_start_method())
        self._process = context.Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        _started.append(self)

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that has ended it; ``None`` while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """:attr:`returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """:attr:`returncode`, once it has ended."""
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it said, and nothing, once it has ended."""
        self.wait(timeout)
        return self._output.read_text(encoding="utf-8", errors="replace") if self._output.exists() else "", ""

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _run(
    folder: str, code: str, arguments: tuple[str, ...], environment: dict[str, str], output: str, starts: str
) -> None:
    os.setsid()
    # A server that the package's loader has started for its workers has them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    multiprocessing.set_start_method(starts, force=True)  # of its own processes: else that of this one
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    try:
        exec(code, {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # which a child of multiprocessing leaves out


@atexit.register
def _end() -> None:
    """What a failed test has left; multiprocessing would wait for it."""
    for process in _started:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
