"""The sweep: Hydra's grammar as Optuna's distributions, trials as runs, going on, what is reported."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import forks
import pytest
from conftest import SMALL_RUN, wait_for
from hydra import compose
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from colorization import sweep
from colorization.core.errors import InputError
from colorization.core.runs import Run

SPACE = "space={model.optimizer.lr:'tag(log, interval(1e-5, 1e-1))',model.network.width:'choice(2, 4)'}"


def arguments(name: str, trials: int, overrides: list[str] = SMALL_RUN) -> list[str]:
    return [
        f"name={name}",
        f"trials={trials}",
        "startup_trials=2",
        f"overrides={overrides}",
        "~space",
        f"+{SPACE}",
    ]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "outputs" / "sweeps" / name / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0, 1)", FloatDistribution(0, 1)),
        ("tag(log, interval(1e-4, 1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("int(interval(3, 9))", IntDistribution(3, 9)),
        ("tag(log, int(interval(16, 64)))", IntDistribution(16, 64, log=True)),
        ("range(8, 33, step=8)", IntDistribution(8, 32, step=8)),
        ("range(0.5, 2.1, step=0.5)", FloatDistribution(0.5, 2.0, step=0.5)),
        ("choice(16, 32)", CategoricalDistribution([16, 32])),
        ("choice(l1, 'huber')", CategoricalDistribution(["l1", "huber"])),
        ("a,b", CategoricalDistribution(["a", "b"])),
    ],
)
def test_hydras_grammar_is_understood(text, expected) -> None:
    assert sweep.distribution("key", text) == expected


@pytest.mark.parametrize("text", ["3", "interval(2, 1)", "tag(log, interval(0, 1))"])
def test_what_is_no_range_is_refused_by_its_key(text) -> None:
    with pytest.raises(InputError, match=r"space: model\.width="):
        sweep.distribution("model.width", text)


def test_the_shipped_space_fits_the_trials_that_the_study_runs(compose_train: Callable[..., DictConfig]) -> None:
    space = {str(k): sweep.distribution(str(k), str(v)) for k, v in compose("sweep", ["name=s"]).space.items()}
    lowest = {k: d.choices[0] if isinstance(d, CategoricalDistribution) else d.low for k, d in space.items()}
    trial = [f"{k}={v}" for k, v in lowest.items()]
    config = compose_train("experiment=cifar10/sweep", *trial)  # refuses a key that is not there
    assert len(space) == 5 and config.trainer.max_epochs == 4


@pytest.mark.slow
def test_trials_are_runs_and_score_their_best_epoch(run_main: Callable[..., int], tmp_path: Path) -> None:
    assert run_main(sweep.main, *arguments("s", 3)) == 0
    rows = table(tmp_path, "s")
    assert [r["run"] for r in rows] == ["s-000", "s-001", "s-002"] and {r["state"] for r in rows} == {"complete"}
    for row in rows:
        run = Run(tmp_path / "outputs" / "runs" / row["run"])
        values = [r["value"] for r in run.metrics() if (r["split"], r["name"]) == ("val", "delta_e2000")]
        assert len(values) == 2 and float(row["value"]) == min(values)
        assert f"model.optimizer.lr={row['model.optimizer.lr']}" in (run.path / "overrides.yaml").read_text()
    folder = tmp_path / "outputs" / "sweeps" / "s"
    with (folder / "importance.csv").open() as file:
        importances = {r["setting"]: float(r["importance"]) for r in csv.DictReader(file)}
    assert importances.keys() == {"model.optimizer.lr", "model.network.width"}
    assert sum(importances.values()) == pytest.approx(1)
    assert (folder / "importance.png").is_file()
    # More trials go on from these, and done trials are not trained again.
    assert run_main(sweep.main, *arguments("s", 4)) == 0
    assert table(tmp_path, "s")[:3] == rows and len(table(tmp_path, "s")) == 4
    assert run_main(sweep.main, *arguments("s", 4, [*SMALL_RUN, "seed=7"])) == 2


@pytest.mark.slow
def test_a_killed_sweep_goes_on_within_its_trial_and_ends_as_one_that_was_not(run_main, tmp_path: Path) -> None:
    whole = [*SMALL_RUN, "checkpoint_steps=1"]
    assert run_main(sweep.main, *arguments("s", 2, whole), "paths.output_dir=whole/outputs") == 0
    process = forks.Process(tmp_path, *arguments("s", 2, whole), code="from colorization.sweep import main; main()")
    run = Run(tmp_path / "outputs" / "runs" / "s-001")
    wait_for(run.last_checkpoint.is_file)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert run.status()["state"] == "running"
    started = json.loads(run.status_file.read_text())["started"]
    assert run_main(sweep.main, *arguments("s", 2, whole)) == 0
    assert run.status()["started"] == started and run.status()["state"] == "finished"
    assert table(tmp_path, "s") == table(tmp_path / "whole", "s")


@pytest.mark.slow
def test_a_trial_that_fails_costs_itself_alone(run_main: Callable[..., int], tmp_path: Path, capsys) -> None:
    broken = ["~space", "+space={datamodule.batch_size:'choice(-1, 2)'}"]
    assert run_main(sweep.main, *arguments("s", 4)[:-2], *broken) == 0
    states = {(r["datamodule.batch_size"], r["state"]) for r in table(tmp_path, "s")}
    assert states == {("-1", "fail"), ("2", "complete")}
    assert run_main(sweep.main, *arguments("t", 1, [*SMALL_RUN, "optimized_metric=val/none"])) == 2
    assert "no trial of this sweep" in capsys.readouterr().err
