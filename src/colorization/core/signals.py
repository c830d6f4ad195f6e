"""SIGTERM and Ctrl-C ask a run to stop; the training loop stops at its next batch."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from colorization.core import distributed

log = logging.getLogger(__name__)


class StopRequested(BaseException):
    """SIGTERM or Ctrl-C asked the run to end; no error. ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class StopSignals:
    """Within this context SIGTERM and SIGINT raise :class:`StopRequested`: at once, or while ``deferred`` (a training
    loop is running) when the loop asks at its next batch. A second signal does not wait."""

    def __init__(self) -> None:
        self.deferred = False
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def defer(self) -> None:
        """Call when the training loop starts. By then Lightning has a handler of its own for SIGTERM, which would end
        the run without a checkpoint; it gives way."""
        self.deferred = True
        for number in self._previous:
            signal.signal(number, self._handle)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.signum = self.signum is not None, signum
        if again or not self.deferred:
            raise StopRequested(signum)
        log.info("%s: stopping after this batch (again to stop at once)", signal.Signals(signum).name)

    def agreed(self) -> int:
        """The signal that has come, to any of the processes that train together; 0 if none has. All must ask."""
        return distributed.agree(self.signum or 0)
