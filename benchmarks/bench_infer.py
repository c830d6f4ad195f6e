"""The network alone: photos/s of the shipped weights, its tensors channels first and channels last, in one run.

python benchmarks/bench_infer.py [--rounds 5]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import arguments, interleaved

from colorization import checkpoint
from colorization.inference import find_weights


def bench(rounds: int = 5) -> dict[str, Any]:
    """``{"rows": [{"name", "per_second", "ratio", "against"}], ...}``"""
    weights = find_weights()
    rows = []
    for count, side in ((1, 256), (8, 256), (1, 512)):
        sides = {}
        for layout in (torch.contiguous_format, torch.channels_last):
            net, _ = checkpoint.load_weights(weights)
            batch = torch.rand(count, 1, side, side)
            sides[f"network, {count} x {side}x{side}, {str(layout).removeprefix('torch.')}"] = _forward(
                net.to(memory_format=layout), batch
            )
        rows += _rows(sides, rounds)
    return {"weights": weights.name, "threads": torch.get_num_threads(), "rows": rows}


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
