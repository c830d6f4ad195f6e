"""The server itself: its start, its tables, its errors, its jobs and streams."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from colorization.api.database import Base, Database


def test_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'd.db'}")
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_errors_are_problem_documents(make_app: Callable[..., Any]) -> None:
    client = make_app().test_client()
    for answer, status in ((client.get("/api/nope"), 404), (client.post("/api/health"), 405)):
        assert answer.status_code == status and answer.content_type == "application/problem+json"
        assert answer.json["status"] == status and answer.json["title"] and answer.json["detail"]


def test_a_server_starts_refuses_a_taken_port_and_ends(server: Any) -> None:
    server.start()
    assert requests.get(f"{server.url}/api/health", timeout=5).json()["status"] == "ok"
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "colorization.api.server", "serve", "--port", port]
    second = subprocess.run(command, capture_output=True, text=True, cwd=server.folder, timeout=60)
    assert second.returncode == 2 and second.stderr.count("\n") == 1, second.stderr
    named = int(second.stderr.split("; --port ")[1].split()[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", named))
    server.process.terminate()
    assert server.process.wait(20) == 0
