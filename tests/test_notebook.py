"""The notebook runs from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from colorization.inference import DEFAULT_WEIGHTS, shipped_weights

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "look_and_colorize.ipynb"


def test_no_outputs_are_kept() -> None:
    cells = nbformat.read(NOTEBOOK, 4).cells
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("COLORIZATION_WEIGHTS", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook shows its figures inline
    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": os.fspath(tmp_path)}}
    ).execute()  # raises where a cell fails
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) >= 3
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert "grey       ΔE2000" in printed
    if DEFAULT_WEIGHTS in [f.name for f in shipped_weights()]:
        assert "colorized  ΔE2000" in printed
