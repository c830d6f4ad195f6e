"""One side of bench_colorize.py in a process of its own, so that its memory is its own and ours needs no torch.

    python benchmarks/colorize_side.py ours|plain

colorizes a file for every line ``[source, target, threads]`` (JSON) on standard input, and answers with a line of
seconds: ``wall`` and ``cpu`` of the whole, wall of its parts, and MB of the peak so far.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import cv2


@contextmanager
def _timed(owner: Any, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Adds up what calls of ``owner.name`` take."""
    function = getattr(owner, name)
    seconds[name] = 0.0

    def call(*arguments: Any, **keywords: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds[name] += time.perf_counter() - start

    with mock.patch.object(owner, name, call):
        yield


def ours() -> Callable[..., dict[str, float]]:
    from colorization.colorize.colorizer import Colorizer
    from colorization.core import color, machine
    from colorization.files import pictures

    machine.keep_freed_memory()
    colorizers: dict[int, Colorizer] = {}

    def run(source: Path, target: Path, threads: int) -> dict[str, float]:
        if threads not in colorizers:
            colorizers[threads] = Colorizer.load(device="cpu", threads=threads)
        cv2.setNumThreads(threads)
        parts: dict[str, float] = {}
        wall, cpu = time.perf_counter(), time.process_time()
        with _timed(Colorizer, "predict", parts), _timed(color, "recolor", parts):
            colorizers[threads].colorize_file(source, target)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        start = time.perf_counter()
        with pictures.open_picture(source) as picture:
            for _ in picture:
                pass
        decode = time.perf_counter() - start
        model, recolor = parts["predict"], parts["recolor"]
        rest = max(0.0, wall - decode - model - recolor)
        return {"wall": wall, "cpu": cpu, "decode": decode, "model": model, "recolor": recolor, "encode": rest}

    return run


def plain() -> Callable[..., dict[str, float]]:
    import torch
    from PIL import Image
    from reference import colorize_plain, plain_network

    from colorization.colorize.colorizer import Colorizer, find_weights
    from colorization.models import checkpoint

    Image.MAX_IMAGE_PIXELS = None
    network, _ = checkpoint.load_weights(find_weights())
    plain_network(network)
    size = Colorizer.load(device="cpu").default_size

    def run(source: Path, target: Path, threads: int) -> dict[str, float]:
        torch.set_num_threads(threads)
        wall, cpu = time.perf_counter(), time.process_time()
        colorize_plain(network, source, target, size)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    return run


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells on Linux is never less than the parent's size
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(side: str) -> None:
    run = {"ours": ours, "plain": plain}[side]()
    for request in sys.stdin:
        source, target, threads = json.loads(request)
        answer = run(Path(source), Path(target), threads)
        print(json.dumps({**answer, "peak_mb": _peak_mb()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
