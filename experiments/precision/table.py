"""Print what ``run.sh`` has trained: each precision's validation figures over its seeds, and the paired difference."""

import sys
from pathlib import Path

import numpy as np

from colorization.core.runs import Run

METRICS = ("l1", "delta_e2000", "psnr")
PRECISIONS = ("32-true", "bf16-mixed")
SEEDS = (1, 2, 3)

values = {}
for precision in PRECISIONS:
    for seed in SEEDS:
        rows = Run(Path(sys.argv[1]) / "runs" / f"precision-{precision}-{seed}").metrics()
        last = {row["name"]: row["value"] for row in rows if row["split"] == "val"}
        values[precision, seed] = [last[m] for m in METRICS]

print("| precision | seed | " + " | ".join(METRICS) + " |\n|---|---|" + "---|" * len(METRICS))
for (precision, seed), row in values.items():
    print(f"| {precision} | {seed} | " + " | ".join(f"{v:.4f}" for v in row) + " |")
full, half = (np.array([values[p, s] for s in SEEDS]) for p in PRECISIONS)
for name, row in (
    ("mean bf16-mixed - 32-true", (half - full).mean(0)),
    ("spread (standard deviation) of 32-true", full.std(0, ddof=1)),
):
    print(f"| {name} | | " + " | ".join(f"{v:.4f}" for v in row) + " |")
