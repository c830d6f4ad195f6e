"""gunicorn's thread worker, with the protections that a server without a proxy needs."""

from __future__ import annotations

import socket
import struct
import threading
import time
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import http
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

HEADER_SECONDS = 10  # in which the headers of a request have to arrive
HEADER_BYTES = 64_000
BODY_SECONDS = 10  # that a thread waits for a body in all, and one more
BODY_RATE = 16_000  # for each so many bytes that have come: 128 kbit/s
SILENT_SECONDS = 30  # that a client may take nothing of an answer
GONE_SECONDS = 60  # after which a client that acknowledges nothing is gone (Linux)
CLOSING_SECONDS = 2  # that streams have to end by themselves after SIGTERM


class PacedUnreader(SocketUnreader):
    """Reads a request, but does not wait for one that comes byte by byte.

    Args:
        sock: of the connection.
        seconds, rate: see :data:`BODY_SECONDS` and :data:`BODY_RATE`.
    """

    def __init__(self, sock: socket.socket, seconds: float = BODY_SECONDS, rate: float = BODY_RATE) -> None:
        super().__init__(sock)
        self._seconds, self._rate = seconds, rate
        self.begin()

    def begin(self) -> None:
        """The next request begins."""
        self._waited, self._received = 0.0, 0

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The bytes received so far, at least one; none at the end.

        Raises:
            TimeoutError: it takes too long.
        """
        if self._waited > self._seconds + self._received / self._rate:
            raise TimeoutError("the request comes too slowly")
        began = time.monotonic()
        try:
            data = super().chunk(size_hint)
        finally:
            self._waited += time.monotonic() - began
        self._received += len(data)
        return data


class Worker(ThreadWorker):
    """A request gets a thread when its headers are here, and keeps it only while its body comes at some rate: who sends
    halves, slowly, keeps no thread from others for long.

    And streams of events end as soon as the server is asked to.
    """

    def enqueue_req(self, conn: TConn) -> None:
        """Called in the main thread with a connection that is new, or has something to read."""
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = PacedUnreader(conn.sock)
            for option, seconds in ((socket.SO_RCVTIMEO, BODY_SECONDS), (socket.SO_SNDTIMEO, SILENT_SECONDS)):
                conn.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * GONE_SECONDS)
        received = conn.parser.unreader.take_buffered()
        conn.sock.setblocking(False)
        try:
            more = conn.sock.recv(HEADER_BYTES)
            received += more
            complete = not more or b"\r\n\r\n" in received or len(received) >= HEADER_BYTES
        except BlockingIOError:
            complete = b"\r\n\r\n" in received
        except OSError:
            complete = True  # gone: the thread finds out and closes
        conn.parser.unreader.unread(received)
        if complete:
            conn.data_ready, conn.headers_until = True, None
            conn.parser.unreader.begin()
            super().enqueue_req(conn)
            return
        if getattr(conn, "headers_until", None) is None:
            conn.headers_until = time.monotonic() + HEADER_SECONDS
        conn.timeout = conn.headers_until
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM."""
        streams = self.wsgi.extensions["colorization"].streams
        streams.closing.set()
        cut = threading.Timer(CLOSING_SECONDS, streams.cut)
        cut.daemon = True
        cut.start()
        super().handle_exit(sig, frame)
