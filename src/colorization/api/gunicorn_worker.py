"""gunicorn's worker of threads, with what a server without a proxy before it needs."""

from __future__ import annotations

import socket
import struct
import time
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import http
from gunicorn.workers.gthread import TConn, ThreadWorker

HEADER_SECONDS = 10  # in which the headers of a request have to arrive
HEADER_BYTES = 64_000
SILENT_SECONDS = 30  # that a client may send or take nothing of a body


class Worker(ThreadWorker):
    """A request gets a thread when its headers are here: who sends half of them, slowly, keeps no thread from others.

    And streams of events end as soon as the server is asked to.
    """

    def enqueue_req(self, conn: TConn) -> None:
        """Called in the main thread with a connection that is new, or has something to read."""
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
            silence = struct.pack("ll", SILENT_SECONDS, 0)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, silence)
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
            super().enqueue_req(conn)
            return
        if getattr(conn, "headers_until", None) is None:
            conn.headers_until = time.monotonic() + HEADER_SECONDS
        conn.timeout = conn.headers_until
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM."""
        self.wsgi.extensions["colorization"].streams.closing.set()
        super().handle_exit(sig, frame)
