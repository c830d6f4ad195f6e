"""The network alone: photos/s of each backend that is here against plain PyTorch (float32, channels first), in one run.

    python benchmarks/bench_infer.py [--rounds 5]

For the weights that ship, and for the U-Net of `model=unet` at its full width (54 M parameters; random ones, which run
as fast as others).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, interleaved
from reference import plain_network

from colorization.colorize.colorizer import find_weights
from colorization.core import machine
from colorization.core.errors import InputError
from colorization.models import backends, checkpoint, descriptions, loading
from colorization.networks.unet import UNet

FULL = {"_target_": "colorization.networks.unet.UNet"}


def bench(rounds: int = 5) -> dict[str, Any]:
    """``{"rows": [{"network", "photos", "plain", <backend>: photos/s, "best ratio"}], ...}``"""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[machine.CACHE_VARIABLE] = scratch
        full = Path(scratch) / "full.safetensors"
        checkpoint.save_weights(full, UNet(), descriptions.describe("unet", FULL, {}))
        for name, path, works in (
            ("shipped U-Net", find_weights(), ((1, 256), (8, 256), (1, 512))),
            ("full-width U-Net", full, ((1, 256), (8, 256))),
        ):
            there = {}
            for backend in loading.NAMES:
                try:
                    there[backend] = loading.load(path, "cpu", backend)
                except InputError as error:
                    print(error)
            network = plain_network(checkpoint.load_weights(path)[0])
            for count, side in works:
                L = np.random.default_rng(0).random((count, 1, side, side), np.float32)
                sides = {"plain": _plain(network, L), **{n: _run(b, L) for n, b in there.items()}}
                rates = interleaved(sides, rounds)
                best = max(rates[n] for n in there)
                rows.append(
                    {"network": name, "photos": f"{count} x {side}x{side}", **rates, "ratio": best / rates["plain"]}
                )
    return {"threads": torch.get_num_threads(), "rows": rows}


def _plain(network: torch.nn.Module, L: np.ndarray) -> Callable[[], int]:
    def run() -> int:
        with torch.inference_mode():
            network(torch.from_numpy(L)).numpy()
        return len(L)

    return run


def _run(backend: backends.Backend, L: np.ndarray) -> Callable[[], int]:
    def run() -> int:
        backend(L)
        return len(L)

    return run


if __name__ == "__main__":
    arguments(bench)
