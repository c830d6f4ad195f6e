"""The rates from which scale.py computes what more machines would do, and what one and two workers here really do.

    python benchmarks/bench_scale.py [--stage unet] [--batches 12]

A worker is a process on one core. Idle cores: two workers share what else goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_cluster
import bench_shards
import common
import torch
import torch.distributed as dist

from colorization.colorize import folder
from colorization.networks.unet import UNet

ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def training(workers: int, batches: int, batch: int, scratch: str) -> float:
    """Photos per second of all processes that train a U-Net of 256x256 together, each with ``batch`` photos."""
    options = [
        "model=unet", "datamodule=sample", "datamodule.image_size=256", "datamodule.num_workers=0",
        f"datamodule.batch_size={workers * batch}", f"datamodule.crops={batches * batch}", "trainer=ddp",
        f"trainer.devices={workers}", "accelerator=cpu", "trainer.max_epochs=1",
        f"trainer.limit_train_batches={batches}", "trainer.limit_val_batches=1", "trainer.log_every_n_steps=1",
        "test=false", "logger.tensorboard=null", f"paths.output_dir={scratch}", f"run_id=scale-{workers}",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "colorization.train", *options], env=ONE_CORE, check=True)
    lines = Path(scratch, "runs", f"scale-{workers}", "metrics.jsonl").read_text().splitlines()
    rates = [row["value"] for row in map(json.loads, lines) if row.get("name") == "images_per_second"]
    return statistics.median(rates[2:])


def _reduce(rank: int, world: int, file: str, count: int, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    gradient = torch.ones(count)
    seconds = []
    for _ in range(8):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(gradient)
        seconds.append(time.perf_counter() - start)
    results.put(statistics.median(seconds))
    dist.destroy_process_group()


def all_reduce(count: int, scratch: str) -> float:
    """Bytes per second that a process sends and receives while two here sum ``count`` float32 by gloo."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    args = (2, f"{scratch}/meet", count, results)
    processes = [context.Process(target=_reduce, args=(rank, *args)) for rank in range(2)]
    for process in processes:
        process.start()
    seconds = max(results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    return 4 * count / seconds  # each sends half of them twice


def driver(files: int, scratch: str) -> dict[str, float]:
    """What the one process that hands out a folder's photos can do: files listed and planned, and lines written."""
    source = next(common.photos(Path(scratch), 1).iterdir())
    seconds, peaks = [], []
    for count in (files // 2, files):
        scans = Path(scratch, f"scans-{count}")
        for i in range(count):
            target = scans / f"{i // 1000:03d}" / f"{i:06d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
        start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "colorization.colorize.cli",
            str(scans),
            "-o",
            f"{scratch}/out",
            "-r",
            "--dry-run",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            peak = 0
            while process.poll() is None:
                found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
                peak = int(found[1]) * 1024 if found else peak
                time.sleep(0.02)
        assert process.returncode == 0
        seconds.append(time.perf_counter() - start)
        peaks.append(peak)
    more = files - files // 2
    output = Path(scratch, "manifest")
    output.mkdir()
    manifest = folder.Manifest(output)
    manifest.begin({})
    row = {"source": "s" * 40, "target": "t" * 40, "state": "done", "input": {"sha256": "0" * 64, "bytes": 1}}
    start = time.perf_counter()
    for _ in range(files):
        manifest.append(**row)
    written = files / (time.perf_counter() - start)
    manifest.close()
    return {
        "files listed/s": more / (seconds[1] - seconds[0]),
        "bytes of memory a file": (peaks[1] - peaks[0]) / more,
        "manifest lines/s": written,
    }


def bench(
    batches: int = 12, batch: int = 2, files: int = 200_000, photos: int = 400, side: int = 1200, rounds: int = 2
) -> dict[str, Any]:
    """Rates of one and two workers here.

    Args:
        batches: of training, each.
        batch: photos a worker.
        files: of the folder that is listed.
        photos, side, rounds: see bench_cluster.py.
    """
    parameters = sum(p.numel() for p in UNet().parameters())
    with tempfile.TemporaryDirectory() as scratch:
        trained = {workers: training(workers, batches, batch, scratch) for workers in (1, 2)}
        reduced = all_reduce(parameters, scratch)
        alone = driver(files, scratch)
        scans = Path(scratch, "some")
        scans.mkdir()
        some = [f.stat().st_size for f in common.photos(scans, 20, None, side).iterdir()]
    cluster = [r for r in bench_cluster.bench(photos, side, rounds)["rows"] if r["engine"] == "ray"]
    one, two = (r["images/s"] for r in cluster)
    rows = [
        {"rate": "training 256x256, photos/s", "1 worker": trained[1], "2 workers": trained[2]},
        {"rate": "photos a worker's batch", "1 worker": batch},
        {"rate": "parameters", "1 worker": parameters},
        {"rate": "gradients summed, bytes/s", "2 workers": reduced},
        {"rate": "photos loaded from shards/s", "1 worker": bench_shards.bench("1", 8.0, 3000)["rows"][0]["photos/s"]},
        {"rate": "scans colorized/s", "1 worker": one, "2 workers": two},
        {"rate": "bytes a scan", "1 worker": sum(some) / len(some)},
        *({"rate": rate, "1 worker": value} for rate, value in alone.items()),
    ]
    return {"rows": rows}


if __name__ == "__main__":
    common.arguments(bench)
