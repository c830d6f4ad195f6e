"""Evaluations and comparisons: the figures of the command, progress, cancelling, and a life beyond a killed server."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import schemathesis
from conftest import PATIENCE, wait_for
from PIL import Image

from colorization import eval as evaluation

FINAL = ("finished", "failed", "cancelled")


def ended(client: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended; ``client`` is Flask's."""

    def ask() -> Any:
        found = client.get(job["url"]).json
        return found if found["state"] in FINAL else None

    return wait_for(ask)


@pytest.fixture
def outputs(tmp_path: Path, trained_run: Path, photo_folder: Path) -> Path:
    """The server's output folder with the run `trained`, and `data/photos` with twelve photos."""
    shutil.copytree(trained_run, tmp_path / "outputs" / "runs" / "trained")
    (tmp_path / "data").mkdir(exist_ok=True)
    shutil.move(photo_folder, tmp_path / "data" / "photos")
    return tmp_path / "outputs"


def test_evaluate_and_compare_give_the_figures_of_the_command(
    make_app: Callable[..., Any], outputs: Path, tmp_path: Path, run_main: Callable[..., int]
) -> None:
    app = make_app()
    client = app.test_client()
    asked = {"data": "photos", "weights": ["trained", "shipped-unet"], "ensemble": "mean", "uncertainty": False}
    answer = client.post("/api/metrics/evaluate", json=asked)
    assert answer.status_code == 202
    photo = (tmp_path / "data" / "photos" / "00.jpg").read_bytes()
    form = {"weights": "trained,shipped-unet", "file": (io.BytesIO(photo), "../Urlaub ü.jpg")}
    comparison = client.post("/api/metrics/compare", data=form)
    assert comparison.status_code == 202, comparison.text
    job = ended(client, answer.json)
    assert job["state"] == "finished", job
    assert job["done"] == job["total"] == 12

    # By hand, on the same folder.
    weights = f"weights=[{outputs}/runs/trained/weights.safetensors,shipped-unet]"
    data = [f"datamodule.test_dir={tmp_path / 'data' / 'photos'}", "datamodule.num_workers=0"]
    assert run_main(evaluation.main, weights, *data, "ensemble=mean", "eval_dir=by-hand", "accelerator=cpu") == 0
    expected = json.loads((tmp_path / "by-hand" / "metrics.json").read_text())
    ids = ("trained", "shipped-unet")
    for row, id in zip(expected["rows"][2:4], ids, strict=True):
        row["weights"] = id
    expected["rows"][1]["training_data"] = "trained"
    found = client.get(job["result"]["url"]).json
    for report in (job["result"], found):
        for part in ("rows", "comparisons", "uncertainty"):
            assert report[part] == expected[part]
        assert {**report["protocol"], "time": 0} == {**expected["protocol"], "time": 0}
    assert found["data"] == "photos" and found["weights"] == list(ids)

    # Photo by photo, in order, in part.
    with (tmp_path / "by-hand" / "per_image.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["model"] for line in lines[::12]] == ["grey", "mean colour", "baseline", "unet", "mean of all"]
    page = client.get(found["images"] + "?model=unet&sort=psnr&descending=true&per_page=5&page=2").json
    by_psnr = sorted((x for x in lines if x["model"] == "unet"), key=lambda x: -float(x["psnr"]))
    assert page["total"] == 12
    assert [i["photo"] for i in page["images"]] == [x["photo"] for x in by_psnr[5:10]]
    assert page["images"][0]["psnr"] == float(by_psnr[5]["psnr"])
    assert page["images"][0]["strip"] == f"{found['url']}/files/{by_psnr[5]['strip']}"
    strip = Image.open(io.BytesIO(client.get(page["images"][0]["strip"]).data))
    assert strip.size == (3 * strip.height, found["image_size"])
    assert client.get(found["images"] + "?model=grey").json["images"][0]["strip"] is None

    # Its files, none of which says where the server has them.
    files = {f["name"]: client.get(f["url"]) for f in found["files"]}
    assert {"table.md", "metrics.json", "per_image.csv", "distributions.png", "comparison.png"} <= set(files)
    assert len([n for n in files if n.startswith("000-")]) == 3  # strips of the two and of their mean
    for name, answer in files.items():
        assert answer.status_code == 200
        if name.endswith(".png"):
            assert Image.open(io.BytesIO(answer.data)).format == "PNG"
        else:
            assert str(tmp_path) not in answer.text and "site-packages" not in answer.text
    assert json.loads(files["metrics.json"].text)["rows"] == expected["rows"]
    assert files["per_image.csv"].data == (tmp_path / "by-hand" / "per_image.csv").read_bytes()
    for name in ("eval.log", "../metrics.json", "..%2f..%2fruns%2ftrained%2fstatus.json", "status.json"):
        assert client.get(f"{found['url']}/files/{name}").status_code == 404

    # The comparison: each column scored as the command scores that photo.
    compared = ended(client, comparison.json)
    assert compared["state"] == "finished", compared
    columns = {c["name"]: c for c in compared["result"]["columns"]}
    assert list(columns) == ["trained", "shipped-unet", "ensemble"]
    for row, column in zip(("baseline", "unet", "mean of all"), columns.values(), strict=True):
        (line,) = [x for x in lines if x["model"] == row and x["photo"] == "00.jpg"]
        for metric in ("psnr", "ssim", "delta_e2000", "colorfulness"):  # onnxruntime here, torch there
            assert column["metrics"][metric] == pytest.approx(float(line[metric]), rel=2e-3, abs=2e-3)
        picture = Image.open(io.BytesIO(client.get(column["result"]["url"]).data))
        assert picture.size == Image.open(io.BytesIO(photo)).size and picture.format == "JPEG"
    for metric, sign in {"psnr": 1, "ssim": 1, "delta_e2000": -1}.items():
        best = max(columns, key=lambda n: sign * columns[n]["metrics"][metric])
        assert compared["result"]["best"][metric] == best
    assert "lpips" not in compared["result"]["best"]
    assert client.get(compared["result"]["photo"]["url"]).data == photo
    assert not (outputs / "server" / "jobs" / compared["id"]).exists()

    # All of it is as the API's description says.
    described = schemathesis.openapi.from_dict(app.spec)
    finished = [("/api/jobs/{job_id}", url) for url in (job["url"], compared["url"])]
    finished += [("/api/metrics/evaluations/{evaluation_id}", found["url"])]
    finished += [("/api/metrics/evaluations/{evaluation_id}/images", found["images"])]
    for path, url in finished:
        described[path]["GET"].validate_response(client.get(url))

    # The command's own evaluations are listed, and all can be removed.
    shutil.move(tmp_path / "by-hand", outputs / "eval" / "by-hand")
    listed = client.get("/api/metrics/evaluations").json
    assert listed["total"] == 2 and {e["id"] for e in listed["evaluations"]} == {found["id"], "by-hand"}
    assert all(e["weights"] == list(ids) and e["photos"] == 12 for e in listed["evaluations"])
    assert str(tmp_path) not in json.dumps(listed)
    assert client.delete("/api/metrics/evaluations/by-hand").status_code == 204
    assert not (outputs / "eval" / "by-hand").exists()
    assert client.get("/api/metrics/evaluations/by-hand").status_code == 404
    assert client.get("/api/metrics/evaluations").json["total"] == 1


def test_a_column_fails_alone(make_app: Callable[..., Any], outputs: Path, photo_bytes: Callable[..., bytes]) -> None:
    shutil.copytree(outputs / "runs" / "trained", outputs / "runs" / "torn")
    (outputs / "runs" / "torn" / "weights.safetensors").write_bytes(b"torn")
    client = make_app().test_client()
    form = {"weights": ["torn", "trained"], "ensemble": "none", "file": (io.BytesIO(photo_bytes(64)), "a.jpg")}
    job = ended(client, client.post("/api/metrics/compare", data=form).json)
    assert job["state"] == "finished", job
    assert [c["name"] for c in job["result"]["columns"]] == ["trained"]
    (failed,) = job["result"]["failed"]
    assert failed["name"] == "torn" and "safetensors" in failed["error"]
    assert str(outputs) not in client.get(job["url"]).text
    assert client.get(job["result"]["photo"]["url"]).status_code == 200
    everything = client.get("/api/checkpoints").json["checkpoints"]
    assert "torn" not in {c["id"] for c in everything} and "torn.best" in {c["id"] for c in everything}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": "nowhere"}, "data"),
        ({"data": "../outputs"}, "data"),
        ({"data": "/etc"}, "data"),
        ({"data": 5}, "data"),
        ({"weights": ["no-such"]}, "weights"),
        ({"weights": ["../../etc/passwd"]}, "weights"),
        ({"weights": []}, "weights"),
        ({"image_size": 16}, "image_size"),
        ({"image_size": "64"}, "image_size"),
        ({"ensemble": "best"}, "ensemble"),
        ({"ensemble": "mean", "weights": ["trained"]}, "ensemble"),
        ({"overrides": ["eval_dir=/tmp"]}, "overrides"),
    ],
)
def test_a_mistake_is_refused_before_anything_starts(
    changes: dict[str, Any], field: str, make_app: Callable[..., Any], outputs: Path, tmp_path: Path
) -> None:
    client = make_app().test_client()
    answer = client.post("/api/metrics/evaluate", json={"data": "photos", **changes})
    assert answer.status_code == 422 and any(name.startswith(field) for name in answer.json["errors"]), answer.text
    assert str(tmp_path) not in answer.text
    assert client.get("/api/jobs").json["total"] == 0


def test_a_bad_upload_is_refused_and_leaves_nothing(make_app: Callable[..., Any], outputs: Path) -> None:
    client = make_app().test_client()
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    for url, field in (("/api/metrics/compare", "file"), ("/api/metrics/evaluate/uploads", "files")):
        assert client.post(url, data={field: (io.BytesIO(svg), "a.jpg")}).status_code == 415
        assert client.post(url, data={}, content_type="multipart/form-data").status_code == 422
        assert client.post(url, json={}).status_code == 415
    assert client.get("/api/jobs").json["total"] == 0
    jobs = outputs / "server" / "jobs"
    assert not jobs.exists() or not list(jobs.iterdir())


def process_of(folder: Path) -> psutil.Process | None:
    """The process that evaluates into that folder, as ``status.json`` names it."""
    try:
        return psutil.Process(json.loads((folder / "status.json").read_text())["pid"])
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def test_an_evaluation_survives_a_killed_server_and_can_be_cancelled(
    server: Any, tmp_path: Path, outputs: Path
) -> None:
    server.start()

    def job(url: str) -> Any:
        return requests.get(server.url + url, timeout=PATIENCE).json()

    # Uploads. Server and process killed together: it is started again. The server alone: the same process goes on.
    photos = sorted((tmp_path / "data" / "photos").glob("*.jpg"))[:2]
    names = ["../../Garten am See.jpg", "b.png"]  # the second lies about its type
    files = [("files", (name, photo.read_bytes())) for photo, name in zip(photos, names, strict=True)]
    form = {"weights": "trained", "image_size": "32"}
    first = requests.post(f"{server.url}/api/metrics/evaluate/uploads", form, files=files, timeout=PATIENCE).json()
    folder = outputs / "eval" / first["id"]
    process = wait_for(lambda: process_of(folder))
    server.kill()
    process.kill()
    server.start()
    again = wait_for(lambda: (p := process_of(folder)) and p.pid != process.pid and p)
    server.kill()
    server.start()
    done = wait_for(lambda: (j := job(first["url"]))["state"] in FINAL and j)
    assert done["state"] == "finished", done
    assert json.loads((folder / "status.json").read_text())["pid"] == again.pid
    assert done["done"] == done["total"] == 2
    found = job(done["result"]["url"])
    assert found["data"] == "2 uploaded photos" and found["photos"] == 2 and found["image_size"] == 32
    images = job(found["images"])["images"]
    assert {i["photo"] for i in images} == {"0000-Garten_am_See.jpg", "0001-b.jpg"}
    assert job("/api/metrics/evaluations")["total"] == 1
    assert not (outputs / "server" / "jobs" / first["id"]).exists()
    stream = requests.get(server.url + first["stream"], timeout=PATIENCE).text
    assert "event: progress" in stream and '"state": "finished"' in stream.rsplit("event:", 1)[1]

    # Cancelled: its process ends by itself. One that is killed says so.
    asked = {"data": "photos", "weights": ["trained"], "image_size": 1024, "uncertainty": True}
    second, third = (
        requests.post(f"{server.url}/api/metrics/evaluate", json=asked, timeout=PATIENCE).json() for _ in "ab"
    )
    folders = [outputs / "eval" / j["id"] for j in (second, third)]
    running = [wait_for(lambda f=f: process_of(f)) for f in folders]  # type: ignore[misc]
    assert requests.delete(server.url + second["url"], timeout=PATIENCE).ok
    os.kill(running[1].pid, signal.SIGKILL)
    states = [wait_for(lambda u=j["url"]: (x := job(u))["state"] in FINAL and x) for j in (second, third)]  # type: ignore[misc]
    assert states[0]["state"] == "cancelled"
    assert states[1]["state"] == "failed" and states[1]["error"] == "the evaluation was killed by SIGKILL"
    wait_for(lambda: not any(p.is_running() for p in running))
    assert not folders[0].exists()
    assert job("/api/metrics/evaluations")["total"] == 1
