"""The notebooks run from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_outputs_are_kept(path: Path) -> None:
    cells = nbformat.read(path, 4).cells
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")


def run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[int, str]:
    """How many pictures a notebook shows and what it prints, run in a folder."""
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    for name in ("COLORIZATION_WEIGHTS", "COLORIZATION_SWEEP", "COLORIZATION_PHOTO"):
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
    return len([o for o in outputs if "image/png" in o.get("data", {})]), printed


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
