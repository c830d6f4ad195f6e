"""Server-sent events: a stream that a client can drop and take up again without missing or repeating anything."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flask import Response, request

from colorization.api.http.problems import Problem

POLL = 0.2  # seconds between two looks; a client learns of a change within that
HEARTBEAT = 10.0  # seconds of silence after which a comment keeps the connection open


# One event, for ``openapi.json``.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Comes back as Last-Event-ID, to go on after it."},
        "event": {"type": "string"},
        "data": {"type": "string", "description": "JSON"},
    },
}


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        id: the source resumes after this one; comes back as ``Last-Event-ID``.
        type: its name; ``data``: plain JSON.
        last: whether the stream ends here.
    """

    id: str
    type: str
    data: Any
    last: bool = False

    def __str__(self) -> str:
        return f"id: {self.id}\nevent: {self.type}\ndata: {json.dumps(self.data, allow_nan=False)}\n\n"


def last_event_id() -> str | None:
    """The id of the last event that the client of this request has had; a parameter says it where no header can."""
    return request.headers.get("Last-Event-ID") or request.args.get("last_event_id")


class Streams:
    """All open streams of a server, of which there are at most ``limit``: each takes a thread."""

    def __init__(self, limit: int) -> None:
        self.limit, self.open = limit, 0
        self._sockets: set[Any] = set()  # of gunicorn; waitress waits for no client
        self._lock = threading.Lock()
        self.closing = threading.Event()

    def response(self, source: Callable[[str | None], Iterable[Event]]) -> Response:
        """The answer to a request for a stream.

        Args:
            source: called again and again with the id of the last event that the client has (``None`` for all), it
                returns those after it.

        Raises:
            Problem: 503, too many streams are open.
        """
        with self._lock:
            if self.open >= self.limit:
                raise Problem(503, f"{self.limit} streams are open already; try again later", retry_after=5)
            self.open += 1
        connection = request.environ.get("gunicorn.socket")
        if connection is not None:
            self._sockets.add(connection)
        lines = self._lines(source, last_event_id(), connection)
        response = Response(lines, mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"

        def closed() -> None:
            with self._lock:
                self.open -= 1
            self._sockets.discard(connection)

        response.call_on_close(closed)
        return response

    def cut(self) -> None:
        """Break the connections of the streams that are still open: of clients that take nothing, for which a thread
        waits."""
        for connection in list(self._sockets):
            with suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)

    def _lines(
        self, source: Callable[[str | None], Iterable[Event]], last: str | None, connection: socket.socket | None
    ) -> Iterator[str]:
        yield "retry: 1000\n\n"
        spoke = time.monotonic()
        while not self.closing.is_set() and not _gone(connection):
            for event in source(last):
                yield str(event)
                last, spoke = event.id, time.monotonic()
                if event.last or self.closing.is_set():
                    return
            if time.monotonic() - spoke >= HEARTBEAT:
                yield ": still here\n\n"
                spoke = time.monotonic()
            self.closing.wait(POLL)


def _gone(connection: socket.socket | None) -> bool:
    """Whether the client has closed its end: else only the next event or heartbeat would tell, and a thread waits."""
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
