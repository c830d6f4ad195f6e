"""What the benchmarks share: photos, fair timing, the result file and its table."""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from colorization.core import atomic, runs
from colorization.data.datamodules import sample_photo

RESULTS = Path(__file__).parent / "results"


def photos(scratch: Path, count: int, data: str | None = None, side: int = 256) -> Path:
    """A folder of ``count`` JPEGs: the first of ``data``, else seeded crops of the photos that scikit-image ships.

    ``<scratch>/val`` gets one more, because the data module asks for a validation set.
    """
    folder = scratch / "train"
    for each in (folder, scratch / "val"):
        each.mkdir()
    sources = [sample_photo(f"skimage/{n}") for n in ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")]
    rng = np.random.default_rng(0)
    files = sorted(p for p in Path(data).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")) if data else []
    for i in range(count + 1):
        target = (folder if i else scratch / "val") / f"{i:05d}.jpg"
        if data:
            target.symlink_to(files[i % len(files)].resolve())
            continue
        photo = sources[i % len(sources)]
        height = int(rng.integers(220, min(photo.shape[:2]) + 1))
        width = min(photo.shape[1], height * 4 // 3)
        y, x = int(rng.integers(photo.shape[0] - height + 1)), int(rng.integers(photo.shape[1] - width + 1))
        size = (side * width // height, side)
        Image.fromarray(photo[y : y + height, x : x + width]).resize(size).save(target, quality=95)
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and OpenCV on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(sides: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Things per second of each side: every round runs every side once, after one that is not timed; medians.

    Each side returns how many things it did.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            count = run()
            if i:
                rates[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(r) for name, r in rates.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        cpu = found.group(1) if found else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "git": runs.git_state(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as Markdown."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def save(results: Mapping[str, Any]) -> Path:
    """Write ``results/<date>-<machine>.json``; what an earlier run of the same day wrote for other parts stays."""
    facts = machine()
    name = re.sub(r"[^a-z0-9]+", "-", (facts["gpu"] or facts["cpu"]).lower()).strip("-")
    path = RESULTS / f"{facts['time'][:10]}-{name}-{facts['cores']}-cores.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    atomic.write_json(path, {**before, "machine": facts, **results}, indent=1)
    return path


def arguments(bench: Callable[..., dict[str, Any]]) -> None:
    """The command line of a benchmark: its parameters as options; prints the table, and saves on request."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(bench))
    for name, parameter in inspect.signature(bench).parameters.items():
        kind = str if parameter.default is None else type(parameter.default)
        parser.add_argument(f"--{name}", type=kind, default=parameter.default)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = vars(parser.parse_args())
    save_it = options.pop("save")
    result = bench(**options)
    for rows in result["tables"].values() if "tables" in result else [result["rows"]]:
        print(table(rows), end="\n\n")
    if save_it:
        name = Path(inspect.getfile(bench)).stem.removeprefix("bench_")
        name = " ".join(filter(None, (name, options.get("overrides"))))
        print(save({name: result}))
