"""The studies in experiments/: their figures are drawn again from their tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import forks
import numpy as np
import pytest
from conftest import finish
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def draw(folder: Path, code: int = 0) -> str:
    script = f"import runpy; runpy.run_path({str(EXPERIMENTS / 'figures.py')!r}, run_name='__main__')"
    return finish(forks.Process(EXPERIMENTS, str(folder), code=script), code)


@pytest.mark.parametrize("study", ["cifar10/stages", "imagenet-sample/test-256", "uncertainty/test"])
def test_figures_follow_the_tables(study: str, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in (EXPERIMENTS / study).iterdir():
        if file.suffix in (".csv", ".json"):
            shutil.copy(file, changed)
    draw(changed)
    first = {p.name: np.asarray(Image.open(p)) for p in changed.glob("*.png")}
    assert "differences.png" in first
    report = json.loads((changed / "metrics.json").read_text(encoding="utf-8"))
    pairs = [p for p in report["comparisons"] if (p["metric"], p["b"]) == ("delta_e2000", "grey")]
    pairs[-1] |= {"mean": pairs[-1]["mean"] + 0.1, "ci95": [end + 0.1 for end in pairs[-1]["ci95"]]}
    (changed / "metrics.json").write_text(json.dumps(report), encoding="utf-8")
    draw(changed)
    second = np.asarray(Image.open(changed / "differences.png"))
    assert first["differences.png"].shape != second.shape or (first["differences.png"] != second).any()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "none: no such folder" in draw(tmp_path / "none", code=1)


@pytest.mark.parametrize("study", ["cifar10", "imagenet-sample", "uncertainty", "photos"])
def test_a_study_starts_its_runs_from_runs_that_are_there(study: str, compose_train, tmp_path: Path) -> None:
    """What its commands would be: overrides that Hydra reads and experiments that compose; every run once, and nothing
    from a run that no study has trained before."""
    told = tmp_path / "python"
    told.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >> {tmp_path}/commands\necho >> {tmp_path}/commands\n')
    told.chmod(0o755)
    (tmp_path / "runs" / "imagenet-128-unet").mkdir(parents=True)  # the last command lists what is there
    done = subprocess.run(
        ["sh", EXPERIMENTS / study / "run.sh", "data"],
        env=os.environ | {"PYTHON": str(told), "OUT": str(tmp_path), "SCALE": "tiny"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs: list[str] = []
    commands = [line.split("\0")[:-1] for line in (tmp_path / "commands").read_text().splitlines()]
    for command in (c[2:] for c in commands if c[1] in ("colorization.train", "colorization.eval")):
        OverridesParser.create().parse_overrides(command)
    for command in (c[2:] for c in commands if c[1] == "colorization.train"):
        compose_train(*command)
        given = dict(part.split("=", 1) for part in command)
        assert given["run_id"] not in runs
        runs.append(given["run_id"])
        start = given.get("init_weights")
        assert start is None or start in runs or (study != "cifar10" and start.startswith("cifar10-")), command
    assert len(runs) == {"cifar10": 15, "imagenet-sample": 20, "uncertainty": 2, "photos": 6}[study]
