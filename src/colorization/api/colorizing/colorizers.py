"""The models that the server has loaded, and whose turn it is to use them.

As many photos are worked on at a time as there are cores, each on one core; a photo that is alone uses all. (Measured
on two cores with the weights that ship, photos of 0.3 megapixels: two at a time on one core each take two thirds of the
time of two at a time on both.) Turns come in the order of asking, and a batch asks for a few at a time, so that a
single photo waits for a few others at most.

On an accelerator the photos that wait at the same time for the same network, with working copies of the same size, go
through it together (:class:`Gathered`). On a CPU that gains nothing: four copies of 128x170 took 77 ms one after the
other and 77 ms together.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from colorization.api.http.problems import Problem
from colorization.api.settings import MEGA, Settings
from colorization.colorize.colorizer import Colorizer
from colorization.core import machine
from colorization.models import loading
from colorization.models.backends import Backend, filled

T = TypeVar("T")


def memory(file_bytes: int) -> int:
    """Approximate bytes of a loaded model.

    Measured with onnxruntime: 25 to 45 MB for a file of 6 MB and 117 to 243 MB for one of 50 MB, which it holds in its
    own order, too; and 75 to 80 MB that it keeps after working copies of 512x680.
    """
    return 4 * file_bytes + 80 * MEGA


class Turns:
    """A bounded number at a time, in the order of asking.

    Args:
        slots: at a time.
        waiting: how many may wait without patience.
    """

    def __init__(self, slots: int, waiting: int) -> None:
        self.slots, self._limit = slots, waiting
        self.busy = 0
        self._queue: deque[tuple[threading.Event, bool]] = deque()
        self._lock = threading.Lock()
        self._seconds = 1.0  # that one takes, about

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @contextmanager
    def turn(self, patient: bool) -> Iterator[bool]:
        """Wait for a turn and have it; the value is whether nobody else has one or waits for one.

        Raises:
            Problem: 503, without patience: too many wait already.
        """
        with self._lock:
            if self.busy < self.slots:
                self.busy += 1
                mine = None
            else:
                impatient = sum(not p for _, p in self._queue)
                if not patient and impatient >= self._limit:
                    seconds = max(1, round(self._seconds * (len(self._queue) + 1) / self.slots))
                    raise Problem(503, "too many photos wait already; try again later", retry_after=min(seconds, 60))
                mine = threading.Event()
                self._queue.append((mine, patient))
        if mine is not None:
            mine.wait()
        start = time.monotonic()
        try:
            yield self.busy == 1 and not self._queue
        finally:
            with self._lock:
                self._seconds += 0.2 * (time.monotonic() - start - self._seconds)
                if self._queue:
                    self._queue.popleft()[0].set()  # who waited takes the place over
                else:
                    self.busy -= 1


class Gathered:
    """A backend whose calls that come while it is busy are answered together where size and numbers are the same."""

    def __init__(self, backend: Backend, most: int = 8) -> None:
        self._backend, self._most = backend, most
        self.name, self.description, self.digest = backend.name, backend.description, backend.digest
        self._groups: dict[tuple[Any, ...], tuple[list[dict[str, np.ndarray]], Future[np.ndarray]]] = {}
        self._lock, self._device = threading.Lock(), threading.Lock()

    def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
        values = filled(self.description, L, given)
        numbers = {name: value for name, value in values.items() if not value.ndim}
        alike = *L.shape[2:], *map(float, numbers.values())
        with self._lock:
            inputs, answer = self._groups.get(alike, ([], Future()))
            first = not inputs
            place = sum(len(one["L"]) for one in inputs)
            inputs.append(values)
            self._groups[alike] = inputs, answer
            if place + len(L) >= self._most:
                del self._groups[alike]  # full: the next call begins another
        if first:
            with self._device:
                with self._lock:
                    if self._groups.get(alike, (None,))[0] is inputs:
                        del self._groups[alike]
                try:
                    batch = {k: np.concatenate([one[k] for one in inputs]) for k in values if k not in numbers}
                    answer.set_result(self._backend(**batch, **numbers))
                except BaseException as error:
                    answer.set_exception(error)
                    raise
        return answer.result()[:, place : place + len(L)]

    def distribution(self, L: np.ndarray, **given: Any) -> np.ndarray:
        with self._device:
            return self._backend.distribution(L, **given)


class Colorizers:
    """Loads weights once and keeps them up to ``models_mb``, the least recently used go first.

    Args:
        settings: limits.
        gather: whether calls are gathered; ``None``: on accelerators.
    """

    def __init__(self, settings: Settings, gather: bool | None = None) -> None:
        self.turns = Turns(machine.cores(), settings.waiting)
        self._gather = gather
        self._budget = settings.models_mb * MEGA
        self._loaded: OrderedDict[tuple[Any, ...], Future[Backend]] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, files: Sequence[Path], function: Callable[[Colorizer], T], patient: bool = False) -> T:
        """``function`` of a colorizer with these weights, when its turn comes.

        Args:
            files: of weights, one or several.
            patient: wait however many do.

        Raises:
            Problem: 503, see :meth:`Turns.turn`.
            InputError: the weights cannot be used.
        """
        with self.turns.turn(patient) as alone:
            threads = self.turns.slots if alone else 1
            return function(Colorizer([self._backend(file, threads) for file in files], threads))

    @property
    def loaded_bytes(self) -> int:
        """Of the models that are kept, about."""
        with self._lock:
            return sum(memory(size) for _, _, size, _ in self._loaded)

    def _backend(self, file: Path, threads: int) -> Backend:
        stat = file.stat()  # the weights of an unfinished run change
        key = str(file), stat.st_mtime_ns, stat.st_size, threads
        with self._lock:
            future = self._loaded.get(key)
            if mine := future is None:
                future = self._loaded[key] = Future()
            self._loaded.move_to_end(key)
            for other in [k for k in self._loaded if k[0] == key[0] and k[1:3] != key[1:3]]:
                del self._loaded[other]
            size = sum(memory(k[2]) for k in self._loaded)
            while size > self._budget and len(self._loaded) > 1:
                size -= memory(self._loaded.popitem(last=False)[0][2])
        assert future is not None
        if mine:
            try:
                future.set_result(self._gathered(loading.load(file, threads=threads)))
            except BaseException as error:
                with self._lock:
                    self._loaded.pop(key, None)
                future.set_exception(error)
                raise
        return future.result()

    def _gathered(self, backend: Backend) -> Backend:
        on_accelerator = str(getattr(backend, "device", "cpu")) != "cpu"
        return Gathered(backend) if (on_accelerator if self._gather is None else self._gather) else backend
