"""Models, weights, the machine, figures for Prometheus, folders of photographs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from colorization import ensemble
from colorization.api.colorizing import weights
from colorization.api.http.problems import Problem
from colorization.core.runs import Run
from colorization.models import checkpoint
from colorization.models.weights import resolve_weights, shipped_weights
from colorization.networks.building import build_network

STAGES = ["baseline", "unet", "gan", "fusion", "encoder_unet", "classes", "hinted"]
SHIPPED = ["shipped-baseline", "shipped-classes", "shipped-hinted", "shipped-unet"]


@pytest.fixture
def with_run(make_app: Callable[..., Any], tmp_path: Path, trained_run: Path) -> Any:
    """A client of the app whose output folder holds the run `trained`."""
    shutil.copytree(trained_run, tmp_path / "outputs" / "runs" / "trained")
    return make_app().test_client()


def test_all_stages_and_the_ensemble_are_listed_without_any_weights(make_app: Any, compose_train: Any) -> None:
    configs = {n: compose_train(f"model={n}", "accelerator=cpu") for n in STAGES}
    models = {m["name"]: m for m in make_app().test_client().get("/api/models").json["models"]}
    assert list(models) == [*STAGES, "ensemble"]
    for name, config in configs.items():
        network = build_network(config.model.network)  # really, not on the meta device
        model = models[name]
        assert model["parameters"] == sum(p.numel() for p in network.parameters())
        assert model["frozen_parameters"] == sum(p.numel() for p in network.parameters() if not p.requires_grad)
        assert (model["discriminator_parameters"] or 0) == (2_765_633 if name in ("gan", "fusion") else 0)
        assert model["defaults"]["lr"] == config.model.optimizer.lr
        assert model["defaults"]["epochs"] == config.trainer.max_epochs
        assert model["defaults"]["image_size"] == config.datamodule.image_size
        assert model["defaults"]["image_sizes"]["cifar10"] == 32
        assert model["defaults"]["l1_weight"] == config.loss.get("l1_weight")
        assert model["title"] != name and model["description"] and model["idea"]
        assert model["loss"]["name"] == config.loss.name
    assert models["fusion"]["frozen_parameters"] == 11_176_512  # ResNet-18 without its last layer
    assert models["ensemble"]["parameters"] == sum(models[n]["parameters"] for n in STAGES)
    for name in ("baseline", "unet", "classes", "hinted"):
        assert [w["id"] for w in models[name]["weights"]] == [f"shipped-{name}"]
    assert models["fusion"]["weights"] == models["gan"]["weights"] == []


def test_a_server_that_has_described_the_models_once_needs_no_torch_for_it(make_app: Any, tmp_path: Path) -> None:
    before = make_app()
    models = before.test_client().get("/api/models").json
    before.extensions["colorization"].close()
    code = (
        "import json, sys; from colorization.api.app import create_app; from colorization.api.settings import load;"
        "app = create_app(load(output_dir=sys.argv[1])); client = app.test_client();"
        "print(json.dumps([client.get('/api/models').json, client.get('/api/system').json, 'torch' in sys.modules]));"
        "app.extensions['colorization'].close()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "outputs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    again, system, torch = json.loads(done.stdout)
    assert again == models and system["version"] and not torch


def test_checkpoints_of_a_type_without_any_are_an_empty_list(make_app: Any) -> None:
    client = make_app().test_client()
    for name in ("fusion", "ensemble"):
        answer = client.get(f"/api/checkpoints/{name}")
        assert answer.status_code == 200 and answer.json == {"checkpoints": []}
    answer = client.get("/api/checkpoints/vgg")
    assert answer.status_code == 404 and "fusion" in answer.json["detail"]
    assert client.get("/api/checkpoints?page=1").status_code == 422


def test_a_run_is_listed_with_its_weights_and_checkpoints(with_run: Any, tmp_path: Path) -> None:
    found = {c["id"]: c for c in with_run.get("/api/checkpoints?sha256=true").json["checkpoints"]}
    assert list(found) == ["trained.last", "trained.best", "trained", *SHIPPED]
    run = Run(tmp_path / "outputs" / "runs" / "trained")
    files = {"trained": run.weights_file, "trained.best": run.best_checkpoint, "trained.last": run.last_checkpoint}
    for id, file in {**files, "shipped-unet": resolve_weights("shipped-unet")}.items():
        assert found[id]["bytes"] == file.stat().st_size
        assert found[id]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert weights.find(id, tmp_path / "outputs").samefile(file)
        assert weights.id_of(file, tmp_path / "outputs") == id
    description = checkpoint.read_description(run.weights_file)
    assert found["trained"]["training_data"] == description["training_data"]
    assert found["trained"]["metrics"] == description["metrics"]
    assert found["trained"]["model"] == "baseline" and found["trained"]["state"] == "finished"
    text = with_run.get("/api/models").text + with_run.get("/api/checkpoints/baseline").text
    assert str(tmp_path) not in text and "/" + "weights.safetensors" not in text
    # While a run trains its id means its best checkpoint; once it has any at all it is listed.
    run.weights_file.unlink()
    assert weights.find("trained", tmp_path / "outputs") == run.best_checkpoint
    assert [c["id"] for c in with_run.get("/api/checkpoints/baseline").json["checkpoints"]] == [
        "trained.last",
        "trained.best",
        "shipped-baseline",
    ]


def test_a_stage_means_its_newest_finished_run_or_file(with_run: Any, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    trained = Run(outputs / "runs" / "trained")
    for id, state, started in (
        ("older", "finished", "2020-01-01T00:00:00+00:00"),
        ("newer", "finished", "2120-01-01T00:00:00+00:00"),
        ("broken", "failed", "2121-01-01T00:00:00+00:00"),
    ):
        shutil.copytree(trained.path, outputs / "runs" / id)
        Run(outputs / "runs" / id).update_status(state=state, started=started)
    assert weights.find("baseline", outputs).parent.name == "newer"
    assert weights.find("unet", outputs) == resolve_weights("shipped-unet")
    assert weights.defaults(outputs) == ["newer", *SHIPPED]
    # An ensemble in one file, as `python -m colorization.ensemble` writes it.
    network, description = checkpoint.load_weights(trained.weights_file)
    merged = ensemble.assemble([network, network], [description["network"]] * 2, "mean")
    document = ensemble.describe([{"weights": "a", "sha256": "0", **description}] * 2, "mean", 32, 9.0)
    checkpoint.save_weights(outputs / "ensemble.safetensors", merged, document)
    (outputs / "foreign.safetensors").write_bytes(b"\0" * 64)
    (listed,) = with_run.get("/api/checkpoints/ensemble").json["checkpoints"]
    assert listed["id"] == "file-ensemble" and listed["kind"] == "file"
    for id in ("ensemble", "file-ensemble"):
        assert weights.find(id, outputs) == outputs / "ensemble.safetensors"


@pytest.mark.parametrize(
    "id",
    [
        *(
            "..",
            ".",
            "",
            "../runs/trained",
            "trained/../trained",
            "/etc/passwd",
            "a/../trained.best",
            "..\\trained",
        ),
        *("file-../ensemble", ".best", "...best", "trained\0", "trained.", "no-such", "shipped-nothing", "file-"),
        "é" * 500,
    ],
)
def test_an_id_is_never_a_path(id: str, tmp_path: Path, trained_run: Path) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(trained_run, outputs / "runs" / "trained")
    shutil.copytree(trained_run / "checkpoints", outputs / "checkpoints")  # what `runs/..@best` would be
    with pytest.raises(Problem) as caught:
        weights.find(id, outputs)
    assert caught.value.status_code == 422 and str(tmp_path) not in str(caught.value.message)


def test_what_weights_say_is_read_once(tmp_path: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "outputs"
    for i in range(30):
        folder = outputs / "runs" / f"run{i:04d}"
        folder.mkdir(parents=True)
        for name in ("status.json", "weights.safetensors"):
            os.link(trained_run / name, folder / name)
    read: list[Path] = []
    real = weights.descriptions.read
    monkeypatch.setattr(weights.descriptions, "read", lambda path: read.append(path) or real(path))
    first = weights.listing(outputs)
    assert len(first) == 30 + len(shipped_weights()) and len(read) >= 30
    read.clear()
    assert weights.listing(outputs) == first and read == []


def test_the_system_tells_the_machine(make_app: Any, tmp_path: Path) -> None:
    client = make_app(trainings=3).test_client()
    found = client.get("/api/system").json
    assert found["memory"]["total_bytes"] == psutil.virtual_memory().total
    assert found["disk"]["total_bytes"] == shutil.disk_usage(tmp_path).total
    assert found["device"]["kind"] in ("cpu", "cuda", "mps") and found["device"]["name"]
    assert found["trainings"] == 3 and found["data_roots"] == ["data"]
    assert found["runs"] == {} and found["jobs"] == {} and found["streams"] == {"open": 0, "limit": 24}
    assert str(tmp_path) not in client.get("/api/system").text


def test_prometheus_counts_requests_by_route(make_app: Any) -> None:
    client = make_app().test_client()
    for _ in range(3):
        client.get("/api/checkpoints/gan")
    client.get("/api/checkpoints/vgg")
    client.open("/api/health", method="BREW")
    client.get("/api/nowhere/4711")
    answer = client.get("/api/prometheus")
    assert answer.content_type.startswith("text/plain")
    samples = {
        (s.name, *(s.labels.get(k, "") for k in ("method", "route", "status"))): s.value
        for family in text_string_to_metric_families(answer.text)
        for s in family.samples
    }
    route = "/api/checkpoints/<model_type>"
    assert samples["colorization_requests_total", "GET", route, "200"] == 3
    assert samples["colorization_requests_total", "GET", route, "404"] == 1
    assert samples["colorization_requests_total", "GET", "none", "404"] == 1
    assert samples["colorization_request_seconds_count", "GET", route, ""] == 4
    assert not any("BREW" in key or "4711" in str(key) for key in samples)
    resident = samples["process_resident_memory_bytes", "", "", ""]
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_folders_of_photographs_below_the_roots(make_app: Any, tmp_path: Path, photo_folder: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for root in (data, other):
        root.mkdir()
    shutil.move(photo_folder, data / "photos")
    (other / "empty").mkdir()
    for hidden in (other / ".hidden", other / "@eaDir", data / "photos" / "@eaDir"):
        hidden.mkdir()
        (hidden / "a.jpg").touch()
    (data / "photos" / "._00.jpg").touch()
    (data / "escape").symlink_to(tmp_path)
    (data / "photos" / "linked").symlink_to(other)
    (data / "notes.txt").write_text("no photo")
    client = make_app(data_roots=[str(data), str(other)]).test_client()
    assert client.get("/api/data").json == {
        "path": "",
        "folders": [
            {"path": "photos", "photos": 12, "links": 1, "complete": True},
            {"path": "empty", "photos": 0, "links": 0, "complete": True},
        ],
    }
    assert client.get("/api/data?path=photos").json["folders"] == [
        {"path": "photos/linked", "photos": 0, "links": 0, "complete": True},
        {"path": "photos/more", "photos": 2, "links": 0, "complete": True},
    ]
    outside = ("..", "photos/../..", "photos/more/../../..", "/etc", "escape", "escape/outputs", "C:/x", "~", "%5c%5cx")
    for path in (*outside, "nowhere", "photos%00"):
        answer = client.get(f"/api/data?path={path}")
        assert answer.status_code in (404, 422), path
        assert str(tmp_path) not in answer.text
