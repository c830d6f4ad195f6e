"""The server itself: its start, its errors."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import requests
from conftest import PATIENCE


def test_errors_are_problem_documents(make_app: Callable[..., Any]) -> None:
    client = make_app().test_client()
    for answer, status in ((client.get("/api/nope"), 404), (client.post("/api/health"), 405)):
        assert answer.status_code == status and answer.content_type == "application/problem+json"
        assert answer.json["status"] == status and answer.json["title"] and answer.json["detail"]


def test_a_server_starts_refuses_a_taken_port_and_ends(server: Any) -> None:
    server.start()
    assert requests.get(f"{server.url}/api/health", timeout=PATIENCE).json()["status"] == "ok"
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "colorization.api.server", "serve", "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, cwd=server.folder, timeout=PATIENCE)
    assert second.returncode == 2 and second.stderr.count("\n") == 1, second.stderr
    named = int(second.stderr.split("; --port ")[1].split()[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", named))
    server.process.terminate()
    assert server.process.wait(20) == 0
