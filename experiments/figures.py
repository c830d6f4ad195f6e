"""Draw the figures of studies again, from the tables that lie beside them.

    python experiments/figures.py [FOLDER ...]        (default: all; with the folders in them)

| from | figure |
|---|---|
| metrics.json | differences.png: ΔE2000 of each row minus grey's, paired, with its interval |
| epochs.csv | epochs.png: validation ΔE2000 of each run |
| curve.csv, metrics.json | curve.png: ΔE2000 against colorfulness |
| importance.csv | importance.png: what a sweep's settings explain |
"""

import csv
import json
import sys
from pathlib import Path

from colorization.evaluation import figures
from colorization.evaluation.report import HEADINGS

METRIC = "delta_e2000"


def read(file: Path) -> list[dict[str, str]]:
    """The lines of a CSV file; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def draw(study: Path) -> None:
    """All figures of one folder."""
    metrics = study / "metrics.json"
    report = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {"rows": [], "comparisons": []}
    subsets = {"all": "all photographs", "without_near_grey": "without near-grey ones"}
    rows: dict[str, dict[str, tuple[float, float, float]]] = {}
    for pair in report["comparisons"]:
        if pair["metric"] == METRIC and pair["b"] == "grey" and pair["ci95"] is not None:
            rows.setdefault(pair["a"], {})[subsets[pair["subset"]]] = (pair["mean"], *pair["ci95"])
    if rows:
        figures.differences(rows, "ΔE2000 minus that of grey (below 0 is better)", study / "differences.png")

    runs: dict[str, tuple[list[float], list[float]]] = {}
    for line in read(study / "epochs.csv"):
        if line[METRIC]:
            epochs, values = runs.setdefault(line["run"], ([], []))
            epochs.append(float(line["epoch"]))
            values.append(float(line[METRIC]))
    if runs:
        figures.learning_curves(runs, f"validation {HEADINGS[METRIC]}", study / "epochs.png")

    if points := read(study / "curve.csv"):
        numbers = [{k: v if k == "model" else float(v) for k, v in p.items() if v} for p in points]
        grey = report["rows"][0]  # whose distance from the true colorfulness is that colorfulness
        means = grey[METRIC]["mean"], grey["delta_colorfulness"]["mean"]
        figures.chroma_curve(numbers, *means, study / "curve.png")

    if shares := read(study / "importance.csv"):
        figures.importance({s["setting"]: float(s["importance"]) for s in shares}, study / "importance.png")


if __name__ == "__main__":
    here = Path(__file__).parent
    for folder in map(Path, sys.argv[1:] or [here]):
        if not folder.is_dir():
            sys.exit(f"error: {folder}: no such folder")
        for inner in sorted({file.parent for file in folder.rglob("*") if file.suffix in (".csv", ".json")}):
            draw(inner)
