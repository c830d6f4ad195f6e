"""Photos colorized in another process, with limits of time and memory: no file can stop a folder run.

One process colorizes several photos at a time, since they share the weights. A process in which a photo takes too long,
or which takes too much memory or dies, is killed, and another one takes its place. Photos that may have been the cause
are then done once more, each in a process of its own, which shows the one that was. Imports no torch.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from colorization.colorize.colorizer import Colorizer, Loaded, Settings
from colorization.colorize.folder import Outcome, Work, reason
from colorization.core.errors import InputError
from colorization.core.machine import keep_freed_memory
from colorization.files.locations import Location

log = logging.getLogger(__name__)

SECONDS = 1800  # that a photo may take: a TIFF of a thousand large pages takes half of them
_SHARE = 0.9  # of the machine's memory
_EVERY = 0.5  # seconds between looks at a process's memory
_LOAD = 0  # number of the first message; photos have higher ones


def memory_limit() -> int:
    """Bytes that a process may take: nine tenths of what this machine or container has."""
    limits = [psutil.virtual_memory().total]
    with suppress(OSError, ValueError):  # no container, or one without a limit
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return int(min(limits) * _SHARE)


def took_too_long(seconds: float) -> str:
    """Why a photo has failed."""
    return f"took more than {seconds:g} s; --file-timeout allows more"


@dataclass(frozen=True)
class _Weights:
    """What a process loads: see :meth:`Colorizer.load`; ``expected`` is what the first process had."""

    weights: list[str] | None
    device: str
    backend: str
    settings: Settings
    expected: list[Loaded] | None = None

    def load(self) -> Colorizer:
        """Raises ``InputError``."""
        colorizer = Colorizer.load(self.weights, self.device, self.backend, threads=1, measure=True)
        colorizer.check(self.settings)
        if self.expected is not None and colorizer.loaded != self.expected:
            raise InputError("the weights have changed since the run began")
        return colorizer


class _Ended(Exception):
    """The process has ended before it was done with a photo.

    Attributes:
        suspect: whether this photo may have been the cause; ``certain``: whether it must have been.
    """

    def __init__(self, why: str, suspect: bool, certain: bool) -> None:
        super().__init__(why)
        self.suspect, self.certain = suspect, certain


class Bounded:
    """Colorizes photos in another process; to be called by as many threads as photos are done at a time.

    Args:
        threads: photos at a time.
        seconds: that a photo may take.
        memory: bytes that a process may take; default :func:`memory_limit`.
    """

    def __init__(self, threads: int, seconds: float = SECONDS, memory: int | None = None) -> None:
        self._threads, self._seconds, self._memory = threads, seconds, memory or memory_limit()
        self._lock, self._one_alone = threading.Lock(), threading.Lock()
        self._weights: _Weights | None = None
        self._process = _Process(threads, self._memory)  # its imports take a moment, which this process can use

    def load(self, weights: list[str] | None, device: str, backend: str, settings: Settings) -> list[Loaded]:
        """Load weights, see :meth:`Colorizer.load`. Raises ``InputError``."""
        asked = _Weights(weights, device, backend, settings)
        loaded = self._process.load(asked)
        names, devices = {each.name for each in loaded}, {each.device for each in loaded}
        self._weights = replace(
            asked,
            device=devices.pop() if len(devices) == 1 else device,
            backend=names.pop() if len(names) == 1 else backend,
            expected=loaded,
        )
        return loaded

    def __call__(self, work: Work, source: Location, parts: dict[str, Location]) -> Outcome:
        """See :class:`colorization.colorize.folder.Work`."""
        alone = False
        while True:
            try:
                if alone:
                    with self._one_alone, closing(self._start(1)) as process:
                        return process.do(work, source, parts, self._seconds)
                return self._living().do(work, source, parts, self._seconds)
            except _Ended as ended:
                if ended.certain:
                    return Outcome({}, InputError(str(ended)))
                alone = alone or ended.suspect

    def _living(self) -> _Process:
        """The process that all photos share."""
        with self._lock:
            if self._process.ended:
                self._process = self._start(self._threads)
            return self._process

    def _start(self, threads: int) -> _Process:
        assert self._weights is not None
        process = _Process(threads, self._memory)
        process.load(self._weights)
        return process

    def close(self) -> None:
        """End the process."""
        self._process.close()


class _Process:
    """A process that has loaded weights, and the photos that it has in hand."""

    def __init__(self, threads: int, memory: int) -> None:
        context = _context()
        self._memory, self.ended = memory, False
        self._lock, self._numbers = threading.Lock(), itertools.count(_LOAD)
        self._in_hand: dict[int, Future[Any]] = {}
        self._connection, theirs = context.Pipe()
        ours = self._connection if context.get_start_method() == "fork" else None
        self._process = context.Process(target=_serve, args=(theirs, threads, ours), daemon=True)
        with _left_to_this_process():
            self._process.start()
        theirs.close()  # so that the end of that process is the end of the connection
        threading.Thread(target=self._listen, daemon=True).start()

    def load(self, weights: _Weights) -> list[Loaded]:
        """To be called first. Raises ``InputError``."""
        try:
            loaded = self._ask(weights, None)
        except _Ended as ended:
            raise InputError(f"the weights could not be loaded: {ended}") from ended
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    def do(self, work: Work, source: Location, parts: dict[str, Location], seconds: float) -> Outcome:
        """Raises :class:`_Ended`."""
        return self._ask((work, source, parts), seconds)

    def _ask(self, content: Any, seconds: float | None) -> Any:
        future: Future[Any] = Future()
        with self._lock:
            if self.ended:
                raise _Ended("the process has ended", suspect=False, certain=False)
            number = next(self._numbers)
            self._in_hand[number] = future
            with suppress(OSError):  # it has ended, and _listen() is about to see it
                self._connection.send((number, content))
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            self._end(took_too_long(seconds or 0), number)
            return future.result()

    def _listen(self) -> None:
        looked = time.monotonic()
        try:
            while True:
                if self._connection.poll(_EVERY):
                    number, answer = self._connection.recv()
                    with self._lock:
                        future = self._in_hand.pop(number, None)
                    if future is not None:
                        future.set_result(answer)
                if time.monotonic() - looked >= _EVERY:
                    looked = time.monotonic()
                    if self._resident() > self._memory:
                        self._end(f"needs more than {self._memory / 1e9:.3g} GB of memory")
        except (EOFError, OSError):  # its end
            pass
        finally:
            self._process.join(5)
            self._end(_why(self._process.exitcode))
            self._connection.close()

    def _resident(self) -> int:
        try:
            return psutil.Process(self._process.pid).memory_info().rss
        except psutil.Error:  # it has just ended
            return 0

    def _end(self, why: str, culprit: int | None = None) -> None:
        """Kill it. ``culprit`` is the photo that seems to be the cause; else it may be any of those in hand."""
        with self._lock:
            self.ended = True
            self._process.kill()
            self._process.join(5)  # longer only if it waits for a broken disk or network, where nothing ends it
            in_hand, self._in_hand = self._in_hand, {}
        for number, future in in_hand.items():
            suspect = culprit is None or number == culprit
            future.set_exception(_Ended(why, suspect, suspect and len(in_hand) == 1))

    def close(self) -> None:
        """Kill it; photos in hand are not done."""
        self._end("the run has ended")


def _why(code: int | None) -> str:
    """Why a process has ended, in words."""
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"its process was ended by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")


def _context() -> Any:
    """How to start a process: forked, which costs nothing, if this one has no threads yet whose locks it would copy."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return multiprocessing.get_context("fork" if sys.platform == "linux" and alone else "spawn")


@contextmanager
def _left_to_this_process() -> Iterator[None]:
    """A process that is started within this context does not get the SIGINT and SIGTERM that a terminal or a service
    manager sends to all: this one decides when to stop."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        with warnings.catch_warnings():  # Python's of a fork beside numpy's threads, which are made for it
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the other process.


def _serve(connection: Connection, threads: int, other_end: Connection | None) -> None:
    """Load weights, then colorize what comes, until the process at the other end has ended.

    A forked process has a copy of the other end, which would keep the connection open.
    """
    import cv2

    if other_end is not None:
        other_end.close()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this process goes first
    keep_freed_memory()
    cv2.setNumThreads(1)  # the photos are what is done in parallel
    sending = threading.Lock()

    def answer(number: int, content: Any) -> None:
        with sending:
            connection.send((number, content))

    def do(number: int, work: Work, source: Location, parts: dict[str, Location]) -> None:
        answer(number, _portable(work(colorizer, source, parts)))

    try:
        number, weights = connection.recv()
        try:
            colorizer = weights.load()
        except (InputError, OSError) as error:
            answer(number, error)
            return
        answer(number, colorizer.loaded)
        pool = ThreadPoolExecutor(threads)
        while True:
            number, job = connection.recv()
            pool.submit(do, number, *job)
    except (EOFError, OSError):
        os._exit(1)  # photos in hand are nobody's any more


def _portable(outcome: Outcome) -> Outcome:
    """With an error that can go to the other process, whatever a library has raised."""
    try:
        pickle.loads(pickle.dumps(outcome.error))
    except Exception as error:  # noqa: BLE001 (any that its class raises)
        assert outcome.error is not None
        log.debug("an error cannot be pickled: %s", error)
        return replace(outcome, error=InputError(reason(outcome.error)))
    return outcome
