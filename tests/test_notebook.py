"""The notebooks run from top to bottom, and show what they gave."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from colorization.core.runs import Run
from colorization.models import descriptions

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


MACHINE = re.compile(r"/(home|root|tmp|work|Users|usr|opt|site-packages)/|[A-Z]:\\\\|[Ww]arning|Traceback")


def test_there_are_few_bytes_of_them() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"look_and_colorize", "train_a_model", "your_own_network"}
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_kept(path: Path) -> None:
    """Of a run from top to bottom, with pictures, and nothing of the machine that it ran on."""
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert {o.output_type for o in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert pictures(outputs) >= 1
    assert not MACHINE.search("".join(str(o.get("text") or o.data.get("text/markdown", "")) for o in outputs))


def pictures(outputs: list[Any]) -> int:
    """How many of the outputs are pictures."""
    return sum(any(kind.startswith("image/") for kind in o.get("data", {})) for o in outputs)


def run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[int, str]:
    """How many pictures a notebook shows and what it prints, run in a folder."""
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    for name in ("COLORIZATION_WEIGHTS", "COLORIZATION_SWEEP", "COLORIZATION_PHOTO", "COLORIZATION_PHOTOS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebooks show their figures inline
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": os.fspath(folder)}}
    ).execute()  # raises where a cell fails
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    return pictures(outputs), printed


def notebook(name: str) -> Path:
    (path,) = (p for p in NOTEBOOKS if p.stem == name)
    return path


@pytest.mark.slow
def test_look_and_colorize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, printed = run(notebook("look_and_colorize"), tmp_path, monkeypatch)
    assert pictures >= 3
    assert "grey       ΔE2000" in printed
    assert "colorized  ΔE2000" in printed


@pytest.mark.slow
def test_train_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, printed = run(notebook("train_a_model"), tmp_path, monkeypatch)
    assert shown == 3
    (trained,) = (Run(folder) for folder in (tmp_path / "outputs/runs").iterdir())
    assert trained.status()["state"] == "finished" and trained.status()["epoch"] == 4
    assert "epoch 2/2 done" in printed and "epoch 4/4 done" in printed  # stopped, and resumed
    assert "| grey |" in (trained.path / "eval/table.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_your_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, _ = run(notebook("your_own_network"), tmp_path, monkeypatch)
    assert shown == 1
    (trained,) = (Run(folder) for folder in (tmp_path / "outputs/runs").iterdir())
    assert descriptions.read(trained.weights_file)["network"]["_target_"] == "mine.networks.Dilated"
    assert "| dilated |" in (trained.path / "eval/table.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_compare_stages(trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    (tmp_path / "outputs" / "runs" / "trained").symlink_to(trained_run, target_is_directory=True)
    pictures, printed = run(notebook("compare_stages"), tmp_path, monkeypatch)
    assert pictures == 2
    assert {"grey", "baseline", "photo"} <= {line.split()[0] for line in printed.splitlines() if "ΔE2000" in line}
    (own,) = (line for line in printed.splitlines() if line.startswith("photo"))
    assert "ΔE2000   0.00" in own


@pytest.mark.slow
def test_read_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, printed = run(notebook("read_a_sweep"), tmp_path, monkeypatch)
    assert pictures == 3
    assert "3 trials of tiny" in printed
    assert sum("tiny-00" in line and "width" in line for line in printed.splitlines()) == 3


@pytest.mark.slow
def test_read_the_sweep_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Path(__file__).parents[1] / "experiments" / "sweep"
    pictures, printed = run(notebook("read_a_sweep"), tmp_path, monkeypatch, COLORIZATION_SWEEP=str(study))
    assert pictures == 3
    best = min((study / "trials.csv").read_text().splitlines()[1:], key=lambda row: float(row.split(",")[3]))
    rows = [line for line in printed.splitlines() if "unet-knobs-0" in line]
    assert rows and best.split(",")[1] in rows[0]
