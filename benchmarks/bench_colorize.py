"""Colorizing with the shipped weights, file to file, against the plain reference, in one run.

    python benchmarks/bench_colorize.py [--rounds 2] [--megapixels 0.3,3,12,48] [--images 200] [--data FOLDER]

Photos of each size, seconds of both sides, what ours spends on its parts, and the peaks of their processes; then a
folder with all cores, and the cold start. The plain side is left out beyond ``--plain`` megapixels: it takes
minutes, and gigabytes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, photos
from PIL import Image

PARTS = ("decode", "model", "recolor", "encode")
COLORIZE = Path(sys.executable).parent / "colorize"


class Side:
    """``colorize_side.py`` in a process."""

    def __init__(self, name: str, scratch: Path) -> None:
        self._target = scratch / f"{name}.jpg"
        command = [sys.executable, str(Path(__file__).with_name("colorize_side.py")), name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def colorize(self, source: Path, threads: int) -> dict[str, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(source), str(self._target), threads]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def mosaic(files: list[Path], megapixels: float, target: Path) -> None:
    """A JPEG of that size, 4:3, with the detail of real photos: ``files`` side by side, again and again."""
    height = round((megapixels * 750_000) ** 0.5)
    tiles = [np.asarray(Image.open(f).convert("RGB").resize((480, 360))) for f in files]
    across, down = -(-height * 4 // 3 // 480), -(-height // 360)
    rows = [np.concatenate([tiles[(y * 7 + x) % len(tiles)] for x in range(across)], 1) for y in range(down)]
    Image.fromarray(np.concatenate(rows)[:height, : height * 4 // 3]).save(target, quality=92)


def _medians(answers: list[dict[str, float]]) -> dict[str, float]:
    return {k: statistics.median(a[k] for a in answers) for k in answers[0]}


def single(source: Path, warm_up: Path, scratch: Path, rounds: int, plain: bool, threads: int) -> dict[str, Any]:
    """Both sides by turns."""
    names = ("ours", "plain") if plain else ("ours",)
    with ExitStack() as stack:
        sides = {n: stack.enter_context(Side(n, scratch)) for n in names}
        answers: dict[str, list[dict[str, float]]] = {n: [] for n in names}
        for side in sides.values():
            side.colorize(warm_up, threads)
        for _ in range(rounds):
            for name, side in sides.items():
                answers[name].append(side.colorize(source, threads))
    ours = _medians(answers["ours"])
    row: dict[str, Any] = {"ours, s": ours["wall"]}
    row |= {f"{part}, s": ours[part] for part in PARTS}
    row["peak, MB"] = round(ours["peak_mb"])
    if plain:
        theirs = _medians(answers["plain"])
        row |= {"plain, s": theirs["wall"], "ratio": theirs["wall"] / ours["wall"]}
        row["plain peak, MB"] = round(theirs["peak_mb"])
    return row


def cold_start(photo: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """A process that colorizes one small photo, from its start to its end."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run(
            [COLORIZE, photo, "-o", scratch / "cold.jpg", "--overwrite"], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - start)
    return {"ours, s": statistics.median(seconds[1:])}


def folder(files: list[Path], scratch: Path, cold: float, plain: bool, threads: int) -> dict[str, Any]:
    """The command on all of them. ``of the best``: against a rate at which every core does nothing but the parts.

    The cold start is taken off, and what the parts cost is the CPU time of one photo after the other on one core. The
    plain side does every tenth photo.
    """
    with Side("ours", scratch) as side:
        side.colorize(files[0], 1)
        cpu = sum(side.colorize(f, 1)["cpu"] for f in files)
    # The first folder of a machine measures its backends, once.
    subprocess.run([COLORIZE, *files[:2], "-o", scratch / "first"], check=True, stdout=subprocess.DEVNULL)
    start = time.perf_counter()
    subprocess.run([COLORIZE, *files, "-o", scratch / "folder"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    row = {"ours, s": seconds, "of the best": cpu / threads / (seconds - cold)}
    if plain:
        with Side("plain", scratch) as side:
            side.colorize(files[0], threads)
            some = files[::10]
            theirs = sum(side.colorize(f, threads)["wall"] for f in some) * len(files) / len(some)
        row |= {"plain, s": theirs, "ratio": theirs / (seconds - cold)}
    return row


def bench(
    rounds: int = 2, megapixels: str = "0.3,3,12,48", plain: float = 12.0, images: int = 200, data: str | None = None
) -> dict[str, Any]:
    """``{"rows": [...], ...}``"""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = sorted(photos(scratch, max(images, 40), data, side=512).iterdir())
        for size in map(float, megapixels.split(",")):
            source = scratch / "photo.jpg"
            mosaic(files[:40], size, source)
            row = single(source, files[0], scratch, rounds, size <= plain, threads)
            rows.append({"name": f"{size:g} megapixels", **row})
        cold = cold_start(files[0], scratch, rounds)
        rows.append({"name": "cold start", **cold})
        if images:
            row = folder(files[:images], scratch, cold["ours, s"], bool(plain), threads)
            rows.append({"name": f"folder of {images}", **row})
    return {"threads": threads, "rounds": rounds, "rows": rows}


if __name__ == "__main__":
    arguments(bench)
