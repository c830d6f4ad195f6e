"""Training over the API: what may be asked, the queue, stopping, streams, and the truth after kills."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clusters
import psutil
import pytest
import requests
from conftest import PATIENCE, wait_for
from filelock import FileLock

from colorization.api.http.redact import without_paths
from colorization.api.training import processes
from colorization.api.training.plan import quoted
from colorization.core.runs import Run

# A training of seconds, whose epochs come quickly.
SMALL = {
    "model": "unet",
    "datamodule": "sample",
    "image_size": 32,
    "batch_size": 8,
    "accelerator": "cpu",
    "overrides": [
        "model.network.width=4",
        "datamodule.num_workers=0",
        "datamodule.crops=2",
        "trainer.log_every_n_steps=1",
        "test=false",
    ],
}
LONG = {**SMALL, "epochs": 100_000}


def run_of(folder: Path, id: str) -> Run:
    return Run(folder / "outputs" / "runs" / id)


def training_processes(folder: Path) -> list[psutil.Process]:
    """Those of runs in ``folder``, without their loaders."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "colorization.train" in command and f"paths.output_dir={quoted(str(folder / 'outputs'))}" in command:
            found.append(process)
    return found


@pytest.fixture
def no_orphans(tmp_path: Path) -> Iterator[None]:
    """Ends the runs that a test leaves."""
    yield
    for process in training_processes(tmp_path):
        process.kill()


@pytest.fixture
def client(make_app: Callable[..., Any], no_orphans: None) -> Any:
    """A test client of a server that starts no run: its queue is closed."""
    return make_app(trainings=0).test_client()


def refused(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 422, answer.json
    assert answer.content_type == "application/problem+json" and str(Path.cwd()) not in answer.text
    return answer.json["errors"]


# What may be asked


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=os.system",
        "model.network._target_=os.system",
        "datamodule._target_=os.system",
        "callbacks.best._target_=os.system",
        "hydra.run.dir=x",
        "hydra.searchpath=[x]",
        "paths.output_dir=x",
        "paths.data_dir=x",
        "datamodule.data_dir=x",
        "datamodule.train_dir=x",
        "datamodule.cache_dir=x",
        "callbacks.best.dirpath=x",
        "callbacks.best.filename=x",
        "model.resnet_weights=evil",
        "model.resnet_weights=/etc/passwd",
        "init_weights=x",
        "ckpt_path=last",
        "run_id=x",
        "logger=wandb",
        "paths=default",
        "logger.tensorboard.save_dir=x",
        "+model.evil=1",
        "++model.name=x",
        "~model",
        "model.name=../x",
        "seed=${oc.env:HOME}",
        "model.network.upsampling=${oc.env:HOME}",
        "model.network={_target_: os.system}",
        "model.network.width=1,2",
        "model.network.width=choice(1,2)",
        "model.network.width=glob(*)",
        "model.network.upsampling='a/b'",
        "model.network.upsampling=a/b",
        "experiment=cifar10/../quickstart",
        "model=classifier/resnet18",
        "experiment=/etc/passwd",
        "experiment=cifar10",
        "model@x=unet",
        "experiment=../secret",
        "datamodule=_common",
        "model.network=4",
        "model.network.depth=1000000000",
        "datamodule.num_workers=100000",
        "seed=inf",
        "nonsense",
        "=",
        "",
    ],
)
def test_overrides_reach_no_code_no_file_and_no_environment(override: str, client: Any) -> None:
    errors = refused(client.post("/api/training/start", json={**SMALL, "overrides": [override]}))
    assert any(field.startswith("overrides") for field in errors)
    assert client.get("/api/training/runs").json["total"] == 0


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"model": "nope"}, "model"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "3"}, "epochs"),
        ({"lr": -1.0}, "lr"),
        ({"l1_weight": 5.0}, "l1_weight"),
        ({"batch_size": 0}, "batch_size"),
        ({"image_size": 31}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"accelerator": "cuda" if not Path("/dev/nvidia0").exists() else "mps"}, "accelerator"),
        ({"data": "."}, "data"),
        ({"datamodule": "folder", "data": "nope", "overrides": []}, "data"),
        ({"datamodule": "folder", "overrides": []}, "data"),
        ({"resume": "nope"}, "resume"),
        ({"paths.output_dir": "x"}, "paths.output_dir"),
        ({"overrides": ["datamodule.crops=many"]}, "overrides"),
        ({"overrides": ["loss=gan_l1"]}, "overrides"),
        ({"overrides": ["trainer.nope=1"]}, "overrides"),
        ({"overrides": ["datamodule.flip=2"]}, "overrides"),
        ({"overrides": ["trainer.precision=nonsense"]}, "overrides"),
    ],
)
def test_a_field_that_cannot_work_is_named_before_anything_starts(
    asked: dict[str, Any], field: str, client: Any, tmp_path: Path
) -> None:
    base = {} if "resume" in asked else SMALL
    assert field in refused(client.post("/api/training/start", json={**base, **asked}))
    assert not (tmp_path / "outputs" / "runs").exists()


def test_data_lie_below_the_roots_whatever_links_say(client: Any, photo_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "out").symlink_to(photo_folder)
    (data / "few").mkdir()
    photo_folder.rename(data / "mine")
    (tmp_path / "secret").mkdir()
    (data / "leak").symlink_to(tmp_path / "secret")
    asked = {**SMALL, "datamodule": "folder", "overrides": SMALL["overrides"][:2]}
    outside = ("leak", "../secret", "mine/../../secret", str(tmp_path / "secret"), "/etc", "a\0b", "x" * 999)
    for name in (*outside, "few", "out"):
        errors = refused(client.post("/api/training/start", json={**asked, "data": name}))
        assert list(errors) == ["data"]
    for name in ("mine", "./mine/", str(data / "mine")):
        answer = client.post("/api/training/start", json={**asked, "data": name})
        assert answer.status_code == 201, answer.json
    file = run_of(tmp_path, answer.json["id"]).status_file
    assert json.loads(file.read_text())["state"] == "queued"
    assert [r["state"] for r in client.get("/api/training/runs").json["runs"]] == ["queued"] * 3


def test_the_queue_keeps_its_order_over_restarts(
    make_app: Callable[..., Any], no_orphans: None, tmp_path: Path
) -> None:
    app = make_app(trainings=0)
    client = app.test_client()
    ids = [client.post("/api/training/start", json=SMALL).json["id"] for _ in range(3)]
    assert client.post(f"/api/training/stop/{ids[1]}").json["state"] == "stopped"
    assert client.post(f"/api/training/stop/{ids[1]}").status_code == 409
    assert client.delete(f"/api/history/{ids[0]}").status_code == 409
    run_of(tmp_path, ids[2]).status_file.unlink()  # as if the server had died before it wrote that
    app.extensions["colorization"].close()
    client = make_app(trainings=0).test_client()
    places = [client.get(f"/api/training/status/{id}").json["position"] for id in ids]
    assert places == [1, None, 2]
    assert run_of(tmp_path, ids[1]).status()["state"] == "stopped"


def test_an_experiment_in_a_folder_of_the_config_tree(client: Any, tmp_path: Path) -> None:
    asked = {"overrides": ["experiment=cifar10/unet"], "accelerator": "cpu"}
    answer = client.post("/api/training/start", json=asked)
    assert answer.status_code == 201, answer.json
    assert answer.json["model"] == "unet"


def test_unknown_runs_are_404(client: Any) -> None:
    for id in ("nope", "..", "%2e%2e", "a%00b", "%ff", "..%2fx"):
        assert client.get(f"/api/training/status/{id}").status_code == 404
        assert client.get(f"/api/training/stream/{id}").status_code == 404
        assert client.post(f"/api/training/stop/{id}", json={}).status_code == 404


# Runs of other origin


def make_run(folder: Path, id: str, **status: Any) -> Run:
    run = run_of(folder, id)
    run.path.mkdir(parents=True)
    run.update_status(**{"state": "running", "model": "unet", "started": "2026-01-01T00:00:00+00:00", **status})
    return run


def test_a_resume_that_never_began_leaves_the_run_as_it_was(client: Any, trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "outputs" / "runs" / "trained")
    run = run_of(tmp_path, "trained")
    before = run.status()
    wait_for(lambda: client.get("/api/training/status/trained").status_code == 200)
    answer = client.post("/api/training/start", json={"resume": "trained", "epochs": 3})
    assert answer.status_code == 201 and run.status()["state"] == "queued"
    assert client.post("/api/training/stop/trained", json={}).status_code in (200, 202)
    after = run.status()
    assert [after[k] for k in ("state", "max_epochs", "epoch", "best")] == [
        before[k] for k in ("state", "max_epochs", "epoch", "best")
    ]


def test_the_dead_are_failed_and_the_living_and_the_far_are_not(make_app: Callable[..., Any], tmp_path: Path) -> None:
    me = {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "host": platform.node()}
    make_run(tmp_path, "alive", **me)
    make_run(tmp_path, "pid-used-again", **{**me, "process_started": me["process_started"] - 60})
    make_run(tmp_path, "far", **{**me, "pid": 2**22 - 1, "host": "elsewhere"})
    resumable = make_run(tmp_path, "gone", **{**me, "pid": 2**22 - 1})
    resumable.last_checkpoint.parent.mkdir()
    resumable.last_checkpoint.touch()
    held = make_run(tmp_path, "held", pid=2**22 - 1)
    (tmp_path / "outputs/runs/odd").mkdir()
    (tmp_path / "outputs/runs/odd/status.json").write_text("[")
    with FileLock(held.path / ".lock"):  # its process lives, whatever its pid says
        client = make_app().test_client()

        def states() -> dict[str, str]:
            return {r["id"]: r["state"] for r in client.get("/api/training/runs").json["runs"]}

        wait_for(lambda: states()["gone"] == states()["pid-used-again"] == "failed")
        assert states() == {
            "alive": "running", "pid-used-again": "failed", "far": "running", "gone": "failed", "held": "running",
        }  # fmt: skip
    wait_for(lambda: states()["held"] == "failed")
    gone = client.get("/api/training/status/gone").json
    assert gone["error"] == "its process ended without saying why" and gone["resumable"]
    assert resumable.status()["state"] == "failed"
    assert client.post("/api/training/stop/far", json={}).status_code == 409
    assert client.delete("/api/history/far?files=true").status_code == 409
    assert run_of(tmp_path, "far").status()["state"] == "running"
    assert client.post("/api/training/stop/far", json={"force": True}).json["state"] == "failed"


def test_many_runs_are_listed_from_the_table(make_app: Callable[..., Any], tmp_path: Path) -> None:
    """How quickly, ``benchmarks/bench_api.py`` measures with ten thousand."""
    folder = tmp_path / "outputs" / "runs"
    for i in range(1200):
        state, model = ("finished", "failed", "stopped")[i % 3], ("unet", "gan")[i % 2]
        (folder / f"{model}-{i:05d}").mkdir(parents=True)
        status = {"state": state, "model": model, "started": f"2026-01-01T00:{i // 60 % 60:02d}:{i % 60:02d}+00:00"}
        (folder / f"{model}-{i:05d}" / "status.json").write_text(json.dumps(status))
    client = make_app().test_client()
    page = client.get("/api/training/runs?per_page=100&page=3").json
    assert page["total"] == 1200 and len(page["runs"]) == 100
    assert client.get("/api/training/runs?state=failed&model=gan").json["total"] == 200
    found = client.get("/api/history/runs?q=NET-0001&sort=id").json
    assert [r["id"] for r in found["runs"]] == [f"unet-{i:05d}" for i in range(10, 20, 2)]
    assert client.get("/api/training/runs?sort=-created").json["runs"][0]["created"] == "2026-01-01T00:19:59+00:00"
    assert client.get("/api/training/runs?page=0").status_code == 422


# Real runs


def events_of(url: str, last: str | None = None, until: int | None = None) -> list[tuple[str, str, Any]]:
    """(id, type, data) of a stream to its end, or of its first ``until`` events."""
    found: list[tuple[str, str, Any]] = []
    headers = {} if last is None else {"Last-Event-ID": last}
    with requests.get(url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/event-stream")
        one: dict[str, str] = {}
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            key, _, value = line.partition(": ")
            one[key] = value
            if not line and "data" in one:
                found.append((one["id"], one["event"], json.loads(one["data"])))
                one = {}
                if len(found) == until:
                    break
    return found


@pytest.fixture(params=["local", "ray", "slurm"])
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any, Any]]:
    """Where runs train, with the server's arguments and variables for that."""
    runner = f"runner={request.param}"
    if request.param == "local":
        yield request.param, [runner], {}
    elif request.param == "ray":
        yield request.param, [runner, f"ray_address={request.getfixturevalue('ray_cluster').dashboard}"], {}
    else:
        with clusters.slurm(tmp_path_factory.mktemp("slurm")) as environment:
            yield request.param, [runner], environment


@pytest.mark.slow
def test_a_run_is_started_watched_stopped_and_gone_on_with(
    server: Any, where: tuple[str, Any, Any], tmp_path: Path, no_orphans: None
) -> None:
    runner, arguments, environment = where
    server.start(*arguments, **environment)
    api = f"{server.url}/api"
    answer = requests.post(f"{api}/training/start", json=LONG, timeout=PATIENCE)
    assert answer.status_code == 201, answer.text
    id = answer.json()["id"]
    waiting = requests.post(f"{api}/training/start", json={**SMALL, "epochs": 1}, timeout=PATIENCE).json()["id"]
    first = events_of(f"{api}/training/stream/{id}", until=40)
    run = run_of(tmp_path, id)
    assert requests.get(f"{api}/training/status/{waiting}", timeout=PATIENCE).json()["position"] == 1
    assert requests.delete(f"{api}/history/{id}?files=true", timeout=PATIENCE).status_code == 409
    assert requests.post(f"{api}/training/start", json={"resume": id}, timeout=PATIENCE).status_code == 409
    wait_for(lambda: run.status().get("epoch", 0) >= 2)
    now = requests.get(f"{api}/training/status/{id}", timeout=PATIENCE).json()
    assert now["state"] == "running" and now["metrics"]["train/loss"] > 0 and now["eta_seconds"] > 0
    pid = run.status()["pid"]
    if runner == "local":
        assert os.getsid(pid) == pid  # nothing that ends the server's group ends it

    answer = requests.post(f"{api}/training/stop/{id}", json={}, timeout=PATIENCE)
    assert answer.status_code == 202 and answer.json()["stopping"]
    rest = events_of(f"{api}/training/stream/{id}", last=first[-1][0])
    status = run.status()
    assert status["state"] == "stopped" and run.last_checkpoint.is_file()
    assert rest[-1][1] == "end" and rest[-1][2]["state"] == "stopped" and rest[-1][2]["resumable"]
    told = [*first, *rest]
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    for row in rows:
        del row["schema"]
    assert [data for _, type, data in told if type == "metrics"] == without_paths(rows, tmp_path / "outputs")
    lines = (run.path / "train.log").read_text().splitlines()
    assert [d["text"] for _, type, d in told if type == "log"] == without_paths(lines, tmp_path / "outputs")
    pictures = sorted(f.name for f in (run.path / "samples").iterdir())
    assert [d["name"] for _, type, d in told if type == "sample"] == pictures
    again = requests.get(f"{api}/training/stream/{id}", headers={"Last-Event-ID": rest[-1][0]}, timeout=PATIENCE)
    assert again.status_code == 204 and not again.content
    assert events_of(f"{api}/training/stream/{id}", last="no-such-place")[-1] == rest[-1]

    for wrong in ({"epochs": 1}, {"lr": 0.1}, {"overrides": ["seed=1"]}):
        answer = requests.post(f"{api}/training/start", json={"resume": id, **wrong}, timeout=PATIENCE)
        assert answer.status_code == 422 and list(answer.json()["errors"]) == list(wrong)
    wait_for(lambda: run_of(tmp_path, waiting).status()["state"] == "running")  # its turn came


@pytest.mark.slow
def test_after_a_kill_of_the_server_every_run_has_its_true_state(
    server: Any, where: tuple[str, Any, Any], tmp_path: Path, no_orphans: None
) -> None:
    """Killed while one run trains and one has just been started; the first is killed, too, in between."""
    runner, arguments, environment = where
    server.start("trainings=2", *arguments, **environment)
    ids = [
        requests.post(f"{server.url}/api/training/start", json=asked, timeout=PATIENCE).json()["id"]
        for asked in (LONG, LONG)
    ]
    first, second = (run_of(tmp_path, id) for id in ids)
    wait_for(lambda: first.last_checkpoint.is_file() and training_processes(tmp_path)[1:])
    server.kill()
    pids = {p.pid for p in training_processes(tmp_path)}
    assert len(pids) == 2  # they go on
    killed = first.status()["pid"]
    os.kill(killed, signal.SIGKILL)
    assert first.status()["state"] == "running"
    server.start("trainings=2", *arguments, **environment)

    def status(id: str) -> dict[str, Any]:
        return requests.get(f"{server.url}/api/training/status/{id}", timeout=PATIENCE).json()

    dead = wait_for(lambda: (now := status(ids[0])) and now["state"] == "failed" and now)
    by_signal = "killed by signal 9"
    unknown = "its process ended without saying why"
    assert dead["error"] == (by_signal if runner == "ray" else unknown) and dead["resumable"]  # Ray remembers
    wait_for(lambda: second.status().get("state") == "running")
    assert second.status()["pid"] in pids  # adopted, not started a second time
    assert len(training_processes(tmp_path)) == 1

    requests.post(f"{server.url}/api/training/stop/{ids[1]}", json={"force": True}, timeout=PATIENCE)
    wait_for(lambda: status(ids[1])["state"] == "stopped")
    wait_for(lambda: not training_processes(tmp_path))
    again = requests.post(f"{server.url}/api/training/start", json={"resume": ids[0]}, timeout=PATIENCE)
    assert again.status_code == 201, again.text
    step = dead["step"]
    wait_for(lambda: (first.status().get("step") or 0) > step and first.status()["state"] == "running")
    child = first.status()["pid"]
    os.kill(child, signal.SIGKILL)
    dead = wait_for(lambda: (now := status(ids[0])) and now["state"] == "failed" and now)
    assert dead["error"] == (unknown if runner == "slurm" else by_signal) and not training_processes(tmp_path)


@pytest.mark.slow
def test_a_lost_cluster_shows_as_such(server: Any, tmp_path: Path, no_orphans: None) -> None:
    with clusters.ray() as cluster:
        server.start("trainings=2", "runner=ray", f"ray_address={cluster.dashboard}")

        def start() -> str:
            return requests.post(f"{server.url}/api/training/start", json=LONG, timeout=PATIENCE).json()["id"]

        def status(id: str) -> dict[str, Any]:
            return requests.get(f"{server.url}/api/training/status/{id}", timeout=PATIENCE).json()

        first = start()
        wait_for(run_of(tmp_path, first).last_checkpoint.is_file)
        cluster.kill()
        silent = f"the Ray cluster at {cluster.dashboard} does not answer"
        lost = wait_for(lambda: (now := status(first)) and now["state"] == "failed" and now)
        assert lost["error"] == f"{silent}, and its process is gone" and lost["resumable"]
        second = start()  # waits, and says for what
        assert wait_for(lambda: status(second)["notice"]) == silent and status(second)["state"] == "queued"
        cluster.start()
        wait_for(lambda: status(second)["state"] == "running")
        assert status(second)["notice"] is None
        # Another cluster at the same address, which does not know it.
        cluster.kill()
        cluster.start()
        lost = wait_for(lambda: (now := status(second)) and now["state"] == "failed" and now)
        forgotten = f"the Ray cluster at {cluster.dashboard} has lost it"
        assert lost["error"] in (forgotten, f"{silent}, and its process is gone")


def test_a_process_whose_pid_was_never_noted_is_found(make_app: Callable[..., Any], tmp_path: Path) -> None:
    """The server died between the start of a process and its note of the pid."""
    app = make_app(trainings=0)
    id = app.test_client().post("/api/training/start", json=SMALL).json["id"]
    app.extensions["colorization"].close()
    arguments = ["colorization.train", f"run_id={quoted(id)}", f"paths.output_dir={quoted(str(tmp_path / 'outputs'))}"]
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", *arguments])
    try:
        assert wait_for(lambda: processes.find(arguments))
        client = make_app(trainings=1).test_client()
        assert client.get(f"/api/training/status/{id}").json["position"] is None  # it waits for nothing
        time.sleep(1.5)  # some rounds, in which it is not started again
        assert not (run_of(tmp_path, id).path / "process.log").exists()
        process.kill()
        process.wait()
        wait_for(lambda: client.get(f"/api/training/status/{id}").json["state"] == "failed")
    finally:
        process.kill()
        process.wait()


def test_a_run_that_cannot_start_says_why(make_app: Callable[..., Any], no_orphans: None, tmp_path: Path) -> None:
    client = make_app().test_client()
    asked = {**SMALL, "overrides": [*SMALL["overrides"], "trainer.val_check_interval=-2"]}
    id = client.post("/api/training/start", json=asked).json["id"]
    failed = wait_for(lambda: (now := client.get(f"/api/training/status/{id}").json)["state"] == "failed" and now)
    assert (
        "val_check_interval" in failed["error"] and not failed["resumable"] and str(tmp_path) not in json.dumps(failed)
    )
    lines = client.get(f"/api/history/logs/{id}").json["lines"]
    assert lines and str(tmp_path) not in json.dumps(lines)
