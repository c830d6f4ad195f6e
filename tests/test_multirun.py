"""Multiruns over a grid: what one trial does to the others, what is listed, and going on, with every launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import clusters
import forks
import psutil
import pytest
from conftest import SMALL_RUN, finish, wait_for

from colorization.core.runs import Run


def start(folder: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "colorization.train", "-m", *SMALL_RUN, *overrides]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=os.environ | environment, start_new_session=True, **said)  # type: ignore[call-overload]


def fork(folder: Path, *overrides: str, **environment: str) -> forks.Process:
    """:func:`start` without a start of Python, for what no launcher's way of starting others matters to."""
    return forks.Process(folder, "-m", *SMALL_RUN, *overrides, environment=os.environ | environment)


def trials(folder: Path, sweep: str = "s") -> dict[str, tuple[str, Any]]:
    rows = json.loads((folder / "outputs" / "sweeps" / sweep / "trials.json").read_text())
    return {row["run"]: (row["state"], row["error"]) for row in rows}


def run_of(folder: Path, id: str) -> Run:
    return Run(folder / "outputs" / "runs" / id)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_trial_that_fails_costs_itself_alone(
    launcher: str, tmp_path: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster: Any = nullcontext({})
    options = [f"hydra/launcher={launcher}"]
    if launcher == "ray":
        cluster = nullcontext(request.getfixturevalue("ray_cluster").environment)
    if launcher == "submitit_slurm":
        cluster = clusters.slurm(tmp_path_factory.mktemp("slurm"))
        options += ["hydra.launcher.cpus_per_task=1"]
    wrong = "seed=-2: should be a whole number, 0 or more"
    with cluster as environment:
        said = finish(start(tmp_path, *options, "seed=-2,1", "sweep=s", **environment), code=2)
    assert f"s-000 (seed=-2): failed: {wrong}" in said and f"\nerror: {wrong}\n" in said
    assert "sweep=s: 1 of 2 trials have finished" in said
    assert trials(tmp_path) == {"s-000": ("failed", wrong), "s-001": ("finished", None)}


@pytest.mark.slow
def test_a_trial_that_is_killed_leaves_the_others_alone_and_goes_on(tmp_path: Path, ray_cluster: clusters.Ray) -> None:
    options = ["hydra/launcher=ray", "trainer.max_epochs=1,40", "sweep=s", "checkpoint_steps=1"]
    process = fork(tmp_path, *options, **ray_cluster.environment)
    long = run_of(tmp_path, "s-001")
    wait_for(lambda: long.status().get("step", 0) >= 4 and long.last_checkpoint.is_file())
    psutil.Process(long.status()["pid"]).kill()
    said = finish(process, code=2)
    assert "s-001 (trainer.max_epochs=40): its process died" in said
    assert "error: a trial's process died (WorkerCrashedError)" in said
    assert trials(tmp_path) == {"s-000": ("finished", None), "s-001": ("its process died", None)}
    started, ended = long.status()["started"], run_of(tmp_path, "s-000").status()["time"]

    said = finish(fork(tmp_path, *options, **ray_cluster.environment), code=0)
    assert "2 of 2 trials have finished" in said
    assert {state for state, _ in trials(tmp_path).values()} == {"finished"}
    assert run_of(tmp_path, "s-000").status()["time"] == ended and long.status()["started"] == started
    epochs = [r["epoch"] for r in long.metrics() if (r["split"], r["name"]) == ("val", "delta_e2000")]
    assert epochs == list(range(40))


@pytest.mark.slow
def test_a_stopped_multirun_goes_on(tmp_path: Path) -> None:
    """Its trials have names though it was given none."""
    process = fork(tmp_path, "trainer.max_epochs=1,30", "checkpoint_steps=1")
    wait_for(lambda: list(tmp_path.glob("outputs/runs/sweep-*-001/checkpoints/last.ckpt")))
    os.killpg(process.pid, signal.SIGTERM)
    finish(process, code=143)
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert [state for state, _ in trials(tmp_path, folder.name).values()] == ["finished", "stopped"]
    said = finish(fork(tmp_path, "checkpoint_steps=1", "trainer.max_epochs=1,30", f"sweep={folder.name}"))
    assert "2 of 2 trials have finished" in said
    # A name stands for its trials, whose runs have no other.
    said = finish(fork(tmp_path, "trainer.max_epochs=1,2", f"sweep={folder.name}"), code=2)
    assert "these are not the trials in" in said
    assert "named by sweep=<name>" in finish(fork(tmp_path, "run_id=a,b"), code=2)


@pytest.mark.slow
def test_trials_are_single_processes(tmp_path: Path) -> None:
    """Lightning would start the whole multirun again as the second process of a trial."""
    said = finish(fork(tmp_path, "trainer=ddp", "trainer.devices=2", "seed=1,2"), code=2)
    assert "trainer.devices=2: the trials of a multirun (-m) are single processes here" in said


def test_ray_is_named_where_it_is_missing(tmp_path: Path) -> None:
    blocked = tmp_path / "ray.py"
    blocked.write_text("raise ImportError")
    said = finish(start(tmp_path, "hydra/launcher=ray", "seed=1,2", PYTHONPATH=str(tmp_path)), code=2)
    assert (
        said.strip().splitlines()[-1] == 'error: hydra/launcher=ray: needs Ray: pip install "lab-colorization[scale]"'
    )
