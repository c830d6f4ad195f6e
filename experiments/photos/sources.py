"""The figures of an evaluation by source, the first folder of a photograph's path.

python experiments/photos/sources.py outputs/eval/photos/test/per_image.csv
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from colorization.evaluation.statistics import bootstrap

ROW, SMALL = "classes", "unet"


def main() -> None:
    """Print one line for each source, the largest first."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    with Path(sys.argv[1]).open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            values = {k: float(line[k]) for k in ("delta_e2000", "colorfulness", "true_colorfulness", "stains")}
            found[line["photo"].split("/")[0]][line["model"]][line["photo"]] = values
    print(f"| source | photographs | grey | {ROW} | − grey, paired | − {SMALL}, paired | CF (truth) | stains % |")
    print("|---|---|---|---|---|---|---|---|")
    for source, rows in sorted(found.items(), key=lambda item: -len(item[1][ROW])):

        def mean(model: str, metric: str, rows: dict[str, dict[str, dict[str, float]]] = rows) -> float:
            return float(np.mean([values[metric] for values in rows[model].values()]))

        def paired(other: str, rows: dict[str, dict[str, dict[str, float]]] = rows) -> str:
            d = np.array([v["delta_e2000"] - rows[other][photo]["delta_e2000"] for photo, v in rows[ROW].items()])
            interval = bootstrap(lambda i: d[i].mean(1), len(d), 2000, 42)
            return f"{d.mean():.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")

        cells = [f"`{source}`", str(len(rows[ROW])), f"{mean('grey', 'delta_e2000'):.2f}"]
        cells += [f"{mean(ROW, 'delta_e2000'):.2f}", paired("grey"), paired(SMALL)]
        cells += [
            f"{mean(ROW, 'colorfulness'):.1f} ({mean(ROW, 'true_colorfulness'):.1f})",
            f"{mean(ROW, 'stains'):.1f}",
        ]
        print("| " + " | ".join(cells).replace("-", "−") + " |")


if __name__ == "__main__":
    main()
