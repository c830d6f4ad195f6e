"""Colorizing: photos/s of the shipped weights, file to file, against the plain reference, in one run.

    python benchmarks/bench_infer.py [--rounds 3] [--megapixels 12]

Besides, the network alone with its tensors laid out channels first and channels last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, interleaved
from PIL import Image
from reference import colorize_plain

from colorization import checkpoint
from colorization.data.datamodules import sample_photo
from colorization.inference import Colorizer, find_weights


def bench(rounds: int = 3, megapixels: int = 12) -> dict[str, Any]:
    """``{"rows": [{"name", "per_second", "ratio", "against"}], ...}``"""
    weights = find_weights()
    network, _ = checkpoint.load_weights(weights)
    colorizer = Colorizer.load(weights, "cpu")
    size = colorizer.default_size
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source.jpg", Path(scratch) / "target.jpg"
        for name, pixels in (("256x256 photo", 256 * 256), (f"{megapixels}-megapixel photo", megapixels * 1_000_000)):
            height = int((pixels * 3 / 4) ** 0.5) if pixels > 65536 else 256
            width = pixels // height
            Image.fromarray(sample_photo("skimage/coffee")).resize((width, height)).save(source, quality=92)

            def plain() -> int:
                colorize_plain(network, source, target, size)
                return 1

            def ours() -> int:
                with Image.open(source) as image:
                    colorizer.colorize(image).save(target, quality=92)
                return 1

            rows += _rows({f"{name}: plain": plain, f"{name}: ours": ours}, rounds)
    for count, side in ((1, 256), (8, 256), (1, 512)):
        sides = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            net, _ = checkpoint.load_weights(weights)
            batch = torch.rand(count, 1, side, side)
            sides[f"network, {count} x {side}x{side}, {str(layout).removeprefix('torch.')}"] = _forward(
                net.to(memory_format=layout), batch
            )
        rows += _rows(sides, max(5, rounds))
    return {"weights": weights.name, "working_size": size, "threads": torch.get_num_threads(), "rows": rows}


def _forward(network: torch.nn.Module, batch: torch.Tensor) -> Callable[[], int]:
    def run() -> int:
        with torch.inference_mode():
            assert bool(np.isfinite(network(batch).mean().item()))
        return len(batch)

    return run


def _rows(sides: dict[str, Callable[[], int]], rounds: int) -> list[dict[str, Any]]:
    rates = interleaved(sides, rounds)
    first = next(iter(rates))
    return [{"name": n, "per_second": r, "ratio": r / rates[first], "against": first} for n, r in rates.items()]


if __name__ == "__main__":
    arguments(bench)
