"""Evaluation without model and LPIPS: photos/s, loading and metrics, against scikit-image photo by photo, in one run.

    python benchmarks/bench_eval.py [--images 50] [--rounds 2] [--size 256] [--data FOLDER]

Both sides must come to the same figures. The check of the photos and the pack are made before anything is timed.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import arguments, interleaved, photos
from reference import evaluate_plain
from threadpoolctl import threadpool_limits

from colorization.core import color, devices
from colorization.data.datamodules import FolderDataModule
from colorization.evaluation import figures, metrics, scoring
from colorization.evaluation.rows import GREY, MEAN, Row

AB = {GREY: (0.0, 0.0), MEAN: (3.0, 7.0), "shifted": (30.0, -45.0)}  # a*, b* of every pixel
TOLERANCE = {"psnr": 1e-4, "ssim": 1e-4, "delta_e2000": 1e-3, "colorfulness": 1e-2}
Values = list[dict[str, list[float]]]  # for each row metric -> one value a photo


def ours(module: FolderDataModule, names: list[str], device: str, results: dict[str, Values], side: str) -> int:
    """What ``colorization.eval`` does between finding the weights and summing up."""

    def row(name: str) -> Row:
        ab = torch.tensor(AB[name], device=device).view(1, 2, 1, 1) / color.AB_SCALE
        return Row(name, lambda L: ab.expand(len(L), 2, *L.shape[2:]))

    rows = [row(name) for name in names]
    with tempfile.TemporaryDirectory() as folder, closing(module.loader("test", train=False)) as loader:
        comparison = scoring.Comparison(rows, len(loader.dataset), Path(folder))  # type: ignore[arg-type]
        scoring.score(rows, loader, device, scoring.Progress(Path(folder)), [comparison])
    results[side] = [r.values for r in rows]
    return len(loader.dataset)  # type: ignore[arg-type]


def plain(files: list[Path], names: list[str], size: int, results: dict[str, Values], side: str) -> int:
    def constant(ab: tuple[float, float]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda L: np.full((*L.shape, 2), ab)

    results[side] = evaluate_plain(files, size, [constant(AB[n]) for n in names])
    return len(files)


def largest_differences(ours: Values, reference: Values) -> dict[str, float]:
    """Over rows and photos. PSNR is compared up to our limit: scikit-image has none."""
    result = {}
    for metric, tolerance in TOLERANCE.items():
        a, b = (np.array([row[metric] for row in side]) for side in (ours, reference))
        result[metric] = float(np.abs(a - b.clip(max=metrics.PSNR_LIMIT) if metric == "psnr" else a - b).max())
        assert result[metric] < tolerance, f"{metric} differs by {result[metric]} from scikit-image"
    return result


def bench(images: int = 50, rounds: int = 2, size: int = 256, data: str | None = None) -> dict[str, Any]:
    """``{"rows": [{"name", "threads", "images_per_second", "ratio", "against", <metric>: largest difference}], ...}``

    With torch's default number of threads our loader has worker processes, too; with one thread all is one process.
    """
    device = devices.choose("auto", "device")
    rows = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        warnings.catch_warnings(),
        mock.patch.object(metrics, "lpips_network", lambda: (None, "left out")),
        mock.patch.object(figures, "comparison"),
    ):
        warnings.filterwarnings("ignore", "Conversion from CIE-LAB")  # scikit-image, of colours that do not exist
        folder = photos(Path(scratch), images, data, size)
        files = sorted(folder.glob("*.jpg"))
        default = torch.get_num_threads()
        for threads in sorted({default, 1}, reverse=True):
            modules = {}
            for name, cache in (("decoding each photo", "off"), ("raw pack", "raw")):
                modules[name] = FolderDataModule(
                    test_dir=str(folder), cache=cache, cache_dir=scratch, image_size=size, pin_memory=device == "cuda",
                    batch_size=4 if device == "cpu" else 16, num_workers=0 if threads == 1 else "auto",
                )  # fmt: skip
                modules[name].setup("test")
                modules[name].loader("test", train=False)
            torch.set_num_threads(threads)
            for names in (["shifted"], list(AB)):
                rows += _rows(files, modules, names, size, device, threads, rounds)
        torch.set_num_threads(default)
    return {"size": size, "images": len(files), "device": device, "rounds": rounds, "rows": rows}


def _rows(
    files: list[Path], modules: dict[str, FolderDataModule], names: list[str], size: int, device: str, threads: int,
    rounds: int,
) -> list[dict[str, Any]]:  # fmt: skip
    results: dict[str, Values] = {}
    against = f"scikit-image, predictions: {len(names)}"
    sides: dict[str, Callable[[], int]] = {against: lambda: plain(files, names, size, results, against)}
    for kind, module in modules.items():
        name = f"{kind}, predictions: {len(names)}"
        sides[name] = lambda m=module, n=name: ours(m, names, device, results, n)  # type: ignore[misc]
    with threadpool_limits(threads):
        rates = interleaved(sides, rounds)
    rows = []
    for name, rate in rates.items():
        row = {"name": name, "threads": threads, "images_per_second": rate, "ratio": rate / rates[against]}
        agreement = {} if name == against else largest_differences(results[name], results[against])
        rows.append({**row, "against": against, **agreement})
    return rows


if __name__ == "__main__":
    arguments(bench)
