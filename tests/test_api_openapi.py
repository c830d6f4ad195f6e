"""``openapi.json`` is true: valid, and a real server answers as it says to whatever schemathesis thinks of."""

from __future__ import annotations

import json
import re
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
@pytest.mark.parametrize(
    ("token", "phases"), [(None, "examples,coverage,fuzzing,stateful"), (TOKEN, "examples,coverage")]
)
def test_a_server_answers_as_it_says(
    server: Any, tmp_path: Path, token: str | None, phases: str, record_property: Callable[[str, object], None]
) -> None:
    """All checks of schemathesis, which are its default. No data and a closed queue: nothing heavy starts."""
    many = "100000 per minute"
    limits = ("trainings=0", "data_roots=[]", f"rate={many}", f"guesses={many}")
    server.start(*limits, *([f"token={token}"] if token else []))
    command = [str(Path(sys.executable).with_name("schemathesis"))]
    command += ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    command += ["run", f"{server.url}/api/openapi.json", "--phases", phases, "--max-examples", "4"]
    command += ["--generation-deterministic", "--no-color", "--continue-on-failure", "--workers", "1"]
    command += ["--request-timeout", "100", "--max-response-time", "100"]  # a machine may be busy
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    operations = re.search(r"Tested: (\d+)", run.stdout)
    cases = re.search(r"Test cases:\s+(.+)", run.stdout)
    assert operations and cases
    record_property("schemathesis", f"{operations[1]} operations, {phases}: {cases[1]}")
    assert requests.get(f"{server.url}/api/health", timeout=5).ok
    assert "Traceback" not in (server.folder / "server.log").read_text()
