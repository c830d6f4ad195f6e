"""``openapi.json`` is true: valid, and a real server answers as it says to whatever schemathesis thinks of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis

TOKEN = "a-token-of-tests-only"
# Those that clients rely on, whatever else there is.
ROUTES = {
    "POST /api/training/start",
    "GET /api/training/status/{run_id}",
    "GET /api/training/stream/{run_id}",
    "POST /api/training/stop/{run_id}",
    "GET /api/training/runs",
    "POST /api/colorize",
    "POST /api/colorize/batch",
    "GET /api/colorize/result/{result_id}",
    "POST /api/metrics/evaluate",
    "POST /api/metrics/compare",
    "GET /api/models",
    "GET /api/checkpoints",
    "GET /api/checkpoints/{model_type}",
    "GET /api/history/runs",
    "GET /api/history/logs/{run_id}",
    "GET /api/history/tensorboard-data/{model_type}",
    "DELETE /api/history/{run_id}",
}


def test_it_is_valid_and_says_what_errors_are(make_app: Callable[..., Any]) -> None:
    spec = make_app().test_client().get("/api/openapi.json").json
    schemathesis.openapi.from_dict(spec).validate()
    assert {f"{m.upper()} {path}" for path, operations in spec["paths"].items() for m in operations} >= ROUTES
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"].endswith("."), (method, path)
            assert operation["operationId"], (method, path)
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)


def test_the_command_prints_it(tmp_path: Path, make_app: Callable[..., Any]) -> None:
    command = [sys.executable, "-m", "colorization.api.openapi"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True).stdout
    assert json.loads(printed) == json.loads(json.dumps(make_app().spec))
    assert not list(tmp_path.glob("outputs/*.db"))


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_server_answers_as_it_says(server: Any, tmp_path: Path, token: str | None) -> None:
    """All checks of schemathesis; data and limits are such that nothing heavy starts."""
    many = "100000 per minute"
    server.start(f"rate={many}", f"guesses={many}", *([f"token={token}"] if token else []))
    command = [str(Path(sys.executable).with_name("schemathesis"))]
    command += ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    command += ["run", f"{server.url}/api/openapi.json"]
    command += ["--checks", "all", "--generation-deterministic", "--no-color", "--request-timeout", "100"]
    command += ["--max-examples", "6", "--workers", "2", "--continue-on-failure", "--max-response-time", "100"]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    assert requests.get(f"{server.url}/api/health", timeout=5).ok
    assert "Traceback" not in (server.folder / "server.log").read_text()
