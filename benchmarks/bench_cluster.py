"""Folders colorized by one and two workers of a Ray cluster of this machine, and by as many threads of one process.

    python benchmarks/bench_cluster.py [--photos 60] [--side 1200] [--data FOLDER]

The same photos each time. A command's start (Ray's, and loading the model once a worker) is told apart by a second
folder of half as many: what the other half takes is the rate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

COLORIZE = [sys.executable, "-m", "colorization.cli"]


def bench(photos: int = 60, side: int = 1200, data: str | None = None) -> dict[str, Any]:
    """Images per second, and what the start takes, on one machine.

    Args:
        photos: in the larger folder.
        side: short side of the photos, pixels, where they are not of ``data``.
        data: folder of photos.
    """
    rows: list[dict[str, Any]] = []
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory() as scratch:
        whole = common.photos(Path(scratch), photos, data, side)
        half = Path(scratch, "half")
        half.mkdir()
        for file in sorted(whole.iterdir())[: photos // 2]:
            (half / file.name).symlink_to(file.resolve())
        for engine in ("local", "ray"):
            for workers in (1, 2):
                seconds = []
                for folder in (half, whole):
                    target = f"{scratch}/{engine}-{workers}-{folder.name}"
                    options = ["-o", target, "--engine", engine, "--workers", str(workers), "--backend", "onnx"]
                    start = time.perf_counter()
                    said = subprocess.run(
                        [*COLORIZE, str(folder), *options], capture_output=True, text=True, env=environment
                    )
                    seconds.append(time.perf_counter() - start)
                    assert said.returncode == 0, said.stderr
                rate = (photos - photos // 2) / (seconds[1] - seconds[0])
                rows.append(
                    {"engine": engine, "workers": workers, "images/s": rate, "start, s": seconds[1] - photos / rate}
                )
    for row in rows:
        one = next(r for r in rows if r["engine"] == row["engine"])
        row["of one worker's rate"] = row["images/s"] / one["images/s"]
    return {"rows": rows}


if __name__ == "__main__":
    common.arguments(bench)
