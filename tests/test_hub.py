"""A model hub, played by a local server that speaks the part of its HTTP API that is needed; no network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml

import colorization.push
from colorization import eval as evaluation
from colorization.colorize.colorizer import find_weights
from colorization.core import hydra_main
from colorization.models import checkpoint, descriptions, hub
from colorization.networks.baseline import BaselineCNN

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}


def save(path: Path, bias: float = 0.3, stage: str = "baseline") -> Path:
    torch.manual_seed(0)
    network = BaselineCNN(width=4)
    torch.nn.init.constant_(network.head.bias, bias)
    data = {"name": "photos", "photos": 12, "hash": "abc", "image_size": 64}
    checkpoint.save_weights(path, network, descriptions.describe(stage, SPEC, {"resnet": "random"}, data))
    return path


@dataclass
class Hub:
    """What the server has and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # of owner/name at main and at COMMIT
    asked: list[str] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture
def server() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, code: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self) -> None:
            state.asked.append(f"{self.command} {self.path}")
            parts = self.path.lstrip("/").split("/")
            if parts[:2] != ["owner", "name"]:
                return self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            revision, name = parts[3], parts[4]
            if revision not in ("main", COMMIT):
                return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            if name not in state.files:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            content = state.files[name]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append(f"POST {self.path}")
            state.bodies[self.path] = body
            if self.path.endswith("/repos/create"):
                reply: dict = {"url": f"{state.url}/owner/name", "name": "owner/name"}
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                reply = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            elif "/commit/" in self.path:
                reply = {"commitUrl": f"{state.url}/owner/name/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            else:
                reply = {"errors": [], "warnings": []}
            self.answer(200, json.dumps(reply).encode(), Content_Type="application/json")

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def push(server: Hub, run_main: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``push(*overrides)``: the command in this process, with ``server`` as the hub; returns its exit code."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)  # read from the environment when imported
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return lambda *overrides: run_main(lambda: hydra_main.run(colorization.push.push, "push"), *overrides)


def process(server: Hub, home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process for which ``server`` is the hub and ``home`` its cache."""
    own = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home / "hf"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    without_proxy = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home,
        env={**without_proxy, **own, **environment},
        check=False,
    )


LOAD = """
import sys
from colorization import Colorizer
from colorization.core.errors import InputError
try:
    backend = Colorizer.load(sys.argv[1], "cpu").backends[0]
except InputError as error:
    sys.exit(str(error))
print(backend.name, backend.digest, "torch" in sys.modules)
"""


def test_weights_come_from_the_hub_with_their_twin_and_then_from_the_cache(server, tmp_path) -> None:
    from colorization.models import onnx_export

    source = save(tmp_path / "w.safetensors")
    onnx_export.export(source, tmp_path / "w.onnx")
    server.files = {hub.WEIGHTS_FILE: source.read_bytes(), hub.TWIN_FILE: (tmp_path / "w.onnx").read_bytes()}
    expected = f"onnx {hashlib.sha256(source.read_bytes()).hexdigest()} False"
    for reference in ("owner/name", f"owner/name@{COMMIT}"):
        done = process(server, tmp_path, "-c", LOAD, reference)
        assert done.stdout.strip() == expected, done.stderr
    downloads = [a for a in server.asked if a.startswith("GET")]
    assert len(downloads) == 2, server.asked  # each file once
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = process(server, tmp_path, "-c", LOAD, "owner/name", **environment)
        assert done.stdout.strip() == expected, done.stderr


def test_a_repository_without_a_twin_will_do_where_torch_is(server, tmp_path) -> None:
    source = save(tmp_path / "w.safetensors")
    server.files = {hub.WEIGHTS_FILE: source.read_bytes()}
    done = process(server, tmp_path, "-c", LOAD, "owner/name")
    assert done.stdout.split()[1] == hashlib.sha256(source.read_bytes()).hexdigest(), done.stderr


@pytest.mark.parametrize(
    ("reference", "environment", "words"),
    [
        ("owner/name@v9", {}, ["owner/name", "no revision v9"]),
        ("owner/other", {}, ["owner/other", "no such repository"]),
        ("owner/name", {}, ["no weights.safetensors"]),
        ("owner/name", {"HF_HUB_OFFLINE": "1"}, ["not in the cache"]),
        ("owner/name", {"HF_ENDPOINT": "http://127.0.0.1:9"}, ["not in the cache", "cannot be reached"]),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(reference, environment, words, server, tmp_path) -> None:
    done = process(server, tmp_path, "-c", LOAD, reference, **environment)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert all(w in message for w in [reference, *words]), done.stderr


def test_without_the_package_the_sentence_names_it(server, tmp_path) -> None:
    done = process(server, tmp_path, "-c", 'import sys; sys.modules["huggingface_hub"] = None\n' + LOAD, "owner/name")
    assert "lab-colorization[hub]" in done.stderr.strip().splitlines()[-1]
    assert server.asked == []


def test_a_file_or_a_run_of_that_name_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    save(tmp_path / "owner" / "name" / "weights.safetensors")
    assert find_weights("owner/name") == Path("owner/name/weights.safetensors")
    assert not hub.is_reference("weights/typo.safetensors")
    assert not hub.is_reference("outputs/runs/some-run")
    assert hub.is_reference("owner/name@refs/pr/1")


@pytest.fixture
def evaluated(run_main, tmp_path, photo_folder) -> tuple[Path, Path]:
    """Weights, and the metrics.json of their evaluation beside others."""
    files = [save(tmp_path / "mine.safetensors"), save(tmp_path / "other.safetensors", 0.1, "unet")]
    code = run_main(
        evaluation.main,
        "datamodule.num_workers=0",
        "accelerator=cpu",
        f"weights=[{files[0]},{files[1]}]",
        f"datamodule.test_dir={photo_folder}",
        "datamodule.image_size=64",
        "eval_dir=out",
    )
    assert code == 0
    return files[0], tmp_path / "out" / "metrics.json"


def test_push_uploads_weights_twin_and_a_card_with_the_evaluation(server, push, evaluated, capsys) -> None:
    weights, metrics = evaluated
    arguments = (f"weights={weights}", "repo=owner/name", f"metrics={metrics}")
    assert push(*arguments, "dry_run=true") == 0
    assert "# name" in capsys.readouterr().out
    assert server.asked == []

    assert push(*arguments) == 0
    assert json.loads(server.bodies["/api/repos/create"])["name"] == "name"
    lines = [json.loads(line) for line in server.bodies["/api/models/owner/name/commit/main"].splitlines()]
    files = {x["value"]["path"]: base64.b64decode(x["value"]["content"]) for x in lines if x["key"] == "file"}
    assert set(files) == {"README.md", hub.WEIGHTS_FILE, hub.TWIN_FILE}
    assert files[hub.WEIGHTS_FILE] == weights.read_bytes()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest.encode() in files[hub.TWIN_FILE]

    card = files["README.md"].decode()
    header, text = card.removeprefix("---\n").split("\n---\n", 1)
    facts = yaml.safe_load(header)
    report = json.loads(metrics.read_text())
    (row,) = (r for r in report["rows"] if r["name"] == "baseline (random resnet)")
    (model,) = facts["model-index"]
    found = {m["type"]: m["value"] for result in model["results"] for m in result["metrics"]}
    assert found["delta_e2000"] == row["delta_e2000"]["mean"]
    assert found["psnr"] == row["psnr"]["mean"]
    assert facts["license"] == "other"
    low, high = row["delta_e2000"]["ci95"]
    assert f"{row['delta_e2000']['mean']:.2f} [{low:.2f}, {high:.2f}]" in text
    assert "| grey |" in text and "| unet" not in text
    assert all(w in text for w in (digest, "12 of photos", "resnet: random", report["protocol"]["data_hash"]))


def test_a_push_that_cannot_be_is_one_sentence(server, push, evaluated, tmp_path, capsys) -> None:
    save(tmp_path / "unknown.safetensors", 0.2, "fusion")
    for changes, words in (
        ({"metrics": "nothing.json"}, ["metrics=nothing.json"]),
        ({"weights": "unknown.safetensors"}, ["unknown.safetensors", "not an evaluation"]),
        ({"repo": "owner/na me"}, ["repo=owner/na me"]),
    ):
        capsys.readouterr()
        given = {"weights": evaluated[0], "repo": "owner/name", "metrics": evaluated[1], **changes}
        assert push(*(f"{k}={v}" for k, v in given.items())) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert all(w in error for w in words), error
    assert not any("commit" in a for a in server.asked)
