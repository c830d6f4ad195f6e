"""Folders colorized by one and two workers of a Ray cluster of this machine, and by as many threads of one process.

    python benchmarks/bench_cluster.py [--photos 400] [--side 1200] [--data FOLDER]

The same photos each time. The rate is that of the results' times after the first tenth: a command's start (Ray's, and
loading the model once a worker) is told apart.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

COLORIZE = [sys.executable, "-m", "colorization.colorize.cli"]


def bench(photos: int = 400, side: int = 1200, rounds: int = 2, data: str | None = None) -> dict[str, Any]:
    """Images per second, and what the start takes, on one machine; medians.

    Args:
        rounds: of all rows by turns.
        photos: in the folder.
        side: short side of the photos, pixels, where they are not of ``data``.
        data: folder of photos.
    """
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = common.photos(Path(scratch), photos, data, side)
        for number, engine, workers in itertools.product(range(rounds), ("local", "ray"), (1, 2)):
            target = Path(scratch, f"{engine}-{workers}-{number}")
            options = ["-o", str(target), "--engine", engine, "--workers", str(workers), "--backend", "onnx"]
            start = time.time()
            said = subprocess.run([*COLORIZE, str(folder), *options], capture_output=True, text=True, env=environment)
            assert said.returncode == 0, said.stderr
            done = sorted(f.stat().st_mtime for f in target.glob("*.jpg"))
            begun = photos // 10
            rate = (photos - 1 - begun) / (done[-1] - done[begun])
            found.setdefault((engine, workers), []).append((rate, done[0] - start))
    rows: list[dict[str, Any]] = []
    for (engine, workers), each in found.items():
        rate, begin = map(statistics.median, zip(*each, strict=True))
        rows.append({"engine": engine, "workers": workers, "images/s": rate, "first result, s": begin})
    for row in rows:
        one = next(r for r in rows if r["engine"] == row["engine"])
        row["of one worker's rate"] = row["images/s"] / one["images/s"]
    return {"rows": rows}


if __name__ == "__main__":
    common.arguments(bench)
