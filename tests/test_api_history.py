"""The history: what runs have left, read back from a real run folder and from made ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_STAGES
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from colorization import train
from colorization.api.http.redact import without_paths
from colorization.core.runs import Run


@pytest.fixture
def trained(run_main: Callable[..., int], tmp_path: Path) -> Run:
    """A small run of the command line."""
    data = ["=sample", ".image_size=32", ".batch_size=4", ".crops=2", ".num_workers=0"]
    options = [f"datamodule{d}" for d in data]
    options += ["accelerator=cpu", "trainer.log_every_n_steps=1", "trainer.max_epochs=3"]
    given = [*SMALL_STAGES["baseline"], *options, "run_id=mine", f"paths.output_dir={tmp_path / 'outputs'}"]
    assert run_main(train.main, *given) == 0
    return Run(tmp_path / "outputs" / "runs" / "mine")


def test_a_run_of_the_command_line_is_read_back(trained: Run, make_app: Callable[..., Any], tmp_path: Path) -> None:
    client = make_app().test_client()
    (listed,) = client.get("/api/history/runs").json["runs"]
    assert (listed["id"], listed["state"], listed["origin"]) == ("mine", "finished", "command line")
    assert listed["progress"] == 1 and listed["resumable"]

    logs = client.get("/api/history/logs/mine").json
    rows = trained.metrics()
    assert [e["epoch"] for e in logs["epochs"]] == [0, 1, 2]
    for epoch in logs["epochs"]:
        losses = [r["value"] for r in rows if (r["split"], r["name"], r["epoch"]) == ("train", "loss", epoch["epoch"])]
        assert epoch["train"]["loss"] == pytest.approx(np.mean(losses)) and epoch["lr"] == pytest.approx(1e-3)
        assert epoch["val"]["delta_e2000"] > 0
    assert logs["test"] == {r["name"]: r["value"] for r in rows if r["split"] == "test" and r["value"] is not None}
    assert logs["test"]["delta_e2000"] > 0
    text = (trained.path / "train.log").read_text().splitlines()
    assert [line["text"] for line in logs["lines"]] == without_paths(text, tmp_path / "outputs")
    assert [line["number"] for line in logs["lines"]] == list(range(1, len(text) + 1)) and logs["total"] == len(text)
    found = client.get("/api/history/logs/mine?q=EPOCH%202/3").json
    assert found["total"] == 1 and "epoch 2/3 done" in found["lines"][0]["text"]
    second = client.get("/api/history/logs/mine?page=2&per_page=2").json["lines"]
    assert second == logs["lines"][2:4]

    events = EventAccumulator(str(trained.path / "tensorboard"))
    events.Reload()
    tags = client.get("/api/history/tensorboard-data/baseline").json["tags"]
    assert set(tags) == {t for t in events.Tags()["scalars"] if "/" in t}
    for tag, (curve,) in tags.items():
        known = events.Scalars(tag)
        assert curve["steps"] == [e.step for e in known] and curve["run_id"] == "mine"
        assert curve["values"] == pytest.approx([e.value for e in known], rel=1e-6)
    (whole,), (few,) = (
        client.get(f"/api/history/tensorboard-data/baseline{query}").json["tags"]["train/loss"]
        for query in ("", "?points=3")
    )
    assert len(few["steps"]) == 3 < len(whole["steps"])
    assert (few["steps"][0], few["values"][-1]) == (whole["steps"][0], whole["values"][-1])
    assert client.get("/api/history/tensorboard-data/baseline?run=mine").json["tags"] == tags
    assert client.get("/api/history/tensorboard-data/unet?run=mine").json["tags"] == {}
    assert client.get("/api/history/tensorboard-data/baseline?run=other").status_code == 404
    assert client.get("/api/history/tensorboard-data/unet").json["tags"] == {}
    assert client.get("/api/history/tensorboard-data/nope").status_code == 404

    answer = client.post("/api/training/start", json={"resume": "mine"})
    assert answer.status_code == 422 and list(answer.json["errors"]) == ["epochs"]  # it has done all of its own

    config = client.get("/api/history/config/mine")
    assert config.json["config"]["datamodule"]["image_size"] == 32 and "model=baseline" in config.json["overrides"]
    assert str(tmp_path) not in config.text + json.dumps(logs) + json.dumps(listed)

    samples = client.get("/api/history/samples/mine").json["samples"]
    assert [s["epoch"] for s in samples] == [0, 1, 2]
    for sample in samples:
        answer = client.get(sample["url"])
        assert answer.mimetype == "image/png"
        picture = Image.open(io.BytesIO(answer.data))
        assert np.array_equal(picture, Image.open(trained.path / "samples" / sample["name"]))
    for name in ("..%2fstatus.json", "status.json", "%2e%2e", "epoch_9999.png", "epoch_0000.png%00"):
        assert client.get(f"/api/history/samples/mine/{name}").status_code == 404

    assert client.delete("/api/history/mine?files=maybe").status_code == 422
    assert client.delete("/api/history/mine").status_code == 204
    assert trained.weights_file.is_file() and client.get("/api/history/runs").json["total"] == 0
    assert client.delete("/api/history/mine").status_code == 404
    client = make_app_again(make_app, client)
    assert client.get("/api/training/status/mine").status_code == 404  # nor does a restart bring it back


def make_app_again(make_app: Callable[..., Any], client: Any) -> Any:
    client.application.extensions["colorization"].close()
    return make_app().test_client()


def test_deletion_takes_the_files_along_and_no_others(make_app: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "runs"
    elsewhere = tmp_path / "elsewhere"
    for path in (folder / "one", folder / "two", elsewhere):
        path.mkdir(parents=True)
        Run(path).update_status(state="failed", model="unet", error=f"{path}/x.ckpt could not be written")
    (folder / "link").symlink_to(elsewhere)
    (folder / ".deleted-half").mkdir()
    client = make_app().test_client()
    assert not (folder / ".deleted-half").exists()
    assert {r["id"] for r in client.get("/api/history/runs").json["runs"]} == {"one", "two", "link"}
    assert "x.ckpt could not be written" in client.get("/api/training/status/one").json["error"]
    assert str(tmp_path) not in client.get("/api/training/runs").text
    assert client.delete("/api/history/one?files=true").status_code == 204
    assert client.delete("/api/history/link?files=true").status_code == 204
    assert [f.name for f in folder.iterdir()] == ["two"] and (elsewhere / "status.json").is_file()
    assert [r["id"] for r in client.get("/api/history/runs").json["runs"]] == ["two"]
    for id in ("..", "%2e%2e", "two%2f..", "nope"):
        assert client.delete(f"/api/history/{id}?files=true").status_code == 404
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("datamodule.data_dir=/srv/my data/coco: no photographs", "datamodule.data_dir=coco: no photographs"),
        ("/srv/my data", "my data"),
        ("/home/me/x.ckpt and 'C:\\Users\\me\\y.ckpt'", "x.ckpt and 'y.ckpt'"),
        ("val/psnr 12, 3/4, https://example.org/a/b", "val/psnr 12, 3/4, https://example.org/a/b"),
        ('File "/usr/lib/python3/x.py", line 3', 'File "x.py", line 3'),
    ],
)
def test_paths_are_shortened_and_nothing_else(text: str, short: str) -> None:
    assert without_paths({"a": [text]}, "/srv/my data") == {"a": [short]}
