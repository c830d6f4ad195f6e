"""What benchmarks/scale.py computes, against figures worked out by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "scale.py"


def test_a_step_waits_for_the_slowest_and_then_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    training = runpy.run_path(str(SCRIPT))["training"]
    kind = {
        "batch": 10, "photos/s": 5, "cores": 2, "photos loaded/s a core": 10, "network, bytes/s": 100, "USD an hour": 3,
    }  # fmt: skip
    job = {"photos": 3600, "epochs": 2, "bytes a photo": 7, "storage, bytes/s": 70}
    one = training(1, kind, job, 400)
    assert (one["photos/s"], one["hours"], one["USD"], one["first bottleneck"]) == (
        5,
        0.4,
        pytest.approx(1.2),
        "computing",
    )
    # Of four workers, 40 photos are 280 bytes, 4 s of storage; each sends and receives 1.5 times 400 bytes, 6 s.
    four = training(4, kind, job, 400)
    assert (four["photos/s"], four["of the ideal"], four["first bottleneck"]) == (4, 0.2, "network")


def test_it_reads_what_was_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And docs/scale.md says the same."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    page = (SCRIPT.parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    (row,) = (line for line in said.splitlines() if line.startswith("| training") and "| 2 |" in line)
    _, _, _, predicted, measured, ratio, _ = (cell.strip() for cell in row.split("|"))
    for figure in (predicted, measured, f"{float(ratio):.2f}"):
        assert figure in page
