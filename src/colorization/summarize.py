"""Runs as one table: ``python -m colorization.summarize [RUN...]``, e.g. the jobs of a sweep."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from colorization.core.errors import InputError
from colorization.core.machine import print_all_letters
from colorization.core.runs import Run, find_runs
from colorization.evaluation.catalog import BY_NAME, MAIN, METRICS

SHOWN = tuple(m.name for m in METRICS if m.trained and m.better)


def collect(run: Run) -> dict[str, Any]:
    """One row: id, state, overrides, the validation metrics of the best epoch, the test metrics if there are any."""
    status = run.status()
    row: dict[str, Any] = {
        "run": run.id,
        "model": status.get("model"),
        "state": status.get("state"),
        "epochs": status.get("epoch"),
    }
    file = run.path / "overrides.yaml"
    overrides = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else []
    row |= {k.lstrip("+"): v for k, _, v in (str(o).partition("=") for o in overrides or [])}
    row |= run.best_validation((status.get("best") or {}).get("name", f"val/{MAIN}"))
    return row | {
        f"test/{r['name']}": r["value"] for r in run.metrics() if r["split"] == "test" and r["value"] is not None
    }


def epochs(run: Run) -> list[dict[str, Any]]:
    """Every validation of a run: its id, the epochs trained by then, and the metrics."""
    found: dict[int, dict[str, Any]] = {}
    for row in run.metrics():
        if row["split"] == "val":
            here = found.setdefault(row["step"], {"run": run.id, "epoch": row["epoch"] + 1, "step": row["step"]})
            here[row["name"]] = row["value"]
    return [found[step] for step in sorted(found)]


def columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The identity, the overrides in which the runs differ, and the metrics that any of them has."""
    fixed = ["run", "model", "state", "epochs"]
    metrics = [f"{s}/{m}" for s in ("val", "test") for m in SHOWN if any(f"{s}/{m}" in r for r in rows)]
    others = ("val/", "test/", "paths.", "run_id", "hydra.")
    keys = dict.fromkeys(k for r in rows for k in r if k not in fixed and not k.startswith(others))
    differing = [k for k in keys if len({str(r.get(k)) for r in rows}) > 1]
    return fixed + differing + metrics


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows, best validation ΔE2000 first."""
    head = columns(rows)

    def cell(row: Mapping[str, Any], column: str) -> str:
        value = row.get(column)
        if not isinstance(value, float):
            return "" if value is None else str(value)
        metric = BY_NAME.get(column.rpartition("/")[2])
        return f"{value:.{metric.digits}f}" if metric else f"{value:.4g}"

    ordered = sorted(rows, key=lambda r: r.get(f"val/{MAIN}", float("inf")))
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(cell(r, c) for c in head) + " |" for r in ordered])


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The rows under the columns that any of them has."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for r in rows for k in r)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of this command."""
    parser.add_argument(
        "runs", nargs="*", help="run ids, run folders, or folders of runs; default: all below --output-dir"
    )
    parser.add_argument("--output-dir", default="outputs", type=Path)
    parser.add_argument("--csv", type=Path, help="also write all columns there")
    parser.add_argument("--epochs", type=Path, help="also write the metrics of every validation there, as CSV")


def main(given: Sequence[str] | None = None) -> int:
    """The command."""
    print_all_letters()
    parser = argparse.ArgumentParser("python -m colorization.summarize", description=__doc__)
    arguments(parser)
    options = parser.parse_args(given)
    try:
        chosen = [r for name in options.runs for r in _resolve(name, options.output_dir)] or find_runs(
            options.output_dir
        )
        if not chosen:
            raise InputError(f"no runs in {options.output_dir / 'runs'}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [collect(run) for run in chosen]
    print(markdown(rows))
    if options.csv:
        write_csv(options.csv, rows)
    if options.epochs:
        write_csv(options.epochs, [row for run in chosen for row in epochs(run)])
    return 0


def _resolve(name: str, output_dir: Path) -> list[Run]:
    for path in (Path(name), output_dir / "runs" / name):
        if (path / "status.json").is_file():
            return [Run(path)]
        if inner := sorted(path.glob("*/status.json")):
            return [Run(f.parent) for f in inner]
    raise InputError(f"{name}: neither a run in {output_dir / 'runs'} nor a folder of runs")


if __name__ == "__main__":
    sys.exit(main())
