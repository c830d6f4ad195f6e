"""``openapi.json`` is true: valid, and a real server answers as it says to whatever schemathesis thinks of."""

from __future__ import annotations

import importlib
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
import schemathesis
from conftest import PATIENCE, wait_for
from PIL import Image

from colorization.api.http.problems import CONTENT_TYPE
from colorization.api.storage.uploads import MEDIA_TYPES

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
    printed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, check=True).stdout
    assert json.loads(printed) == json.loads(json.dumps(make_app().spec))
    assert not list(tmp_path.glob("outputs/*.db"))


def cancel_jobs(url: str, over: threading.Event) -> None:
    """Cancel every job of the server, again and again."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        while not over.wait(0.2):
            for state in ("queued", "running"):
                for job in session.get(f"{url}/api/jobs", params={"state": state}, timeout=PATIENCE).json()["jobs"]:
                    session.delete(f"{url}{job['url']}", timeout=PATIENCE)


@pytest.mark.slow
def test_a_server_answers_as_it_says(
    server: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """All checks of schemathesis, which are its default, on a server with a token (it also tries without, and with a
    wrong one). No data, a closed queue of trainings, and jobs that are soon cancelled: nothing heavy runs for long."""
    many, phases = "100000 per minute", "examples,coverage,fuzzing,stateful"
    server.start("trainings=0", "data_roots=[]", f"rate={many}", f"guesses={many}", f"token={TOKEN}")
    command = [str(Path(sys.executable).with_name("schemathesis"))]
    command += ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    command += ["run", f"{server.url}/api/openapi.json", "--phases", phases, "--max-examples", "4"]
    command += ["--generation-deterministic", "--no-color", "--continue-on-failure", "--workers", "1"]
    command += ["--request-timeout", "100", "--max-response-time", "100"]  # a machine may be busy
    command += ["--header", f"Authorization: Bearer {TOKEN}"]
    over = threading.Event()
    canceller = threading.Thread(target=cancel_jobs, args=(server.url, over), daemon=True)
    canceller.start()
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    over.set()
    canceller.join(PATIENCE)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    operations = re.search(r"Tested: (\d+)", run.stdout)
    cases = re.search(r"Test cases:\s+(.+)", run.stdout)
    assert operations and cases
    record_property("schemathesis", f"{operations[1]} operations, {phases}: {cases[1]}")
    assert requests.get(f"{server.url}/api/health", timeout=PATIENCE).ok
    assert "Traceback" not in (server.folder / "server.log").read_text()


# How a generated client treats media types that it has no type for.
BYTES = dict.fromkeys([*sorted(set(MEDIA_TYPES.values())), "application/zip"], "application/octet-stream")
CONFIG = {"content_type_overrides": {**BYTES, CONTENT_TYPE: "application/json"}, "post_hooks": []}


@pytest.mark.slow
def test_a_client_generated_from_it_colorizes_batches_and_trains(
    server: Any, photo_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start("trainings=1")
    (config := tmp_path / "config.json").write_text(json.dumps(CONFIG))
    command = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--fail-on-warning"]
    command += ["--url", f"{server.url}/api/openapi.json", "--meta", "none", "--config", str(config)]
    run = subprocess.run([*command, "--output-path", "generated"], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    monkeypatch.syspath_prepend(tmp_path)

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"generated.{name}")

    models, File = module("models"), module("types").File
    api = module("client").Client(server.url, timeout=120, raise_on_unexpected_status=True)

    def photo(name: str) -> Any:
        return File(io.BytesIO(photo_bytes(48)), name, "image/jpeg")

    for flips in (True, False):
        body = models.ColorizeIn(photo("日本 – 1950.jpg"), weights=["unet"], flips=flips)
        done = module("api.colorize.post_colorize_colorize").sync(client=api, body=body)
        got = module("api.colorize.get_colorize_result").sync_detailed(done.result.id, client=api, download=flips)
        assert Image.open(got.parsed.payload).size == (48, 48)
        assert done.result.name == "日本 – 1950-colorized.jpg"
        assert got.headers["Content-Disposition"].startswith("attachment" if flips else "inline")

    body = models.BatchIn([photo("a.jpg"), photo("b.jpg")], uncertainty=True)
    job = module("api.colorize.post_colorize_batch").sync(client=api, body=body)

    def ended() -> Any:
        found = module("api.jobs.get_jobs_job").sync(job.id, client=api)
        return found if found.state == models.JobWithItemsOutState.FINISHED else None

    assert [item.result["uncertainty"] is None for item in wait_for(ended).items] == [False, False]

    start = models.StartIn(model="baseline", datamodule=models.StartInDatamodule.SAMPLE, overrides=["test=false"])
    run = module("api.training.post_training_start").sync(client=api, body=start)

    def state() -> str:
        return module("api.training.get_training_status").sync(run.id, client=api).state.value

    try:
        wait_for(lambda: state() == "running")
    finally:
        module("api.training.post_training_stop").sync(run.id, client=api, body=models.StopIn(force=True))
        wait_for(lambda: state() not in ("queued", "running"))
    assert state() == "stopped"
