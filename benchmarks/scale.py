"""What more machines would do, from the rates that bench_scale.py has measured here and from what scale.json assumes.

    python benchmarks/scale.py

Training, a step of P workers with b photos each: ``max(b / rate, b / loading, P b bytes / storage) + 2 (P - 1) / P
gradients / network``: loading goes on beside computing, summing gradients does not (DDP overlaps some of it, so this is
the worst case). Colorizing: ``min(P rate, storage / bytes, driver)``, after the list of the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import common

WORKERS = (1, 8, 64, 512)


def training(workers: int, kind: dict[str, float], job: dict[str, float], gradients: float) -> dict[str, Any]:
    """A row: ``workers`` of a kind train the job."""
    batch = kind["batch"]
    seconds = {
        "computing": batch / kind["photos/s"],
        "loading": batch / (kind["cores"] * kind["photos loaded/s a core"]),
        "storage": workers * batch * job["bytes a photo"] / job["storage, bytes/s"],
        "network": 2 * (workers - 1) / workers * gradients / kind["network, bytes/s"],
    }
    step = max(seconds["computing"], seconds["loading"], seconds["storage"]) + seconds["network"]
    rate = workers * batch / step
    hours = job["photos"] * job["epochs"] / rate / 3600
    return {
        "workers": workers,
        "batch of all": int(workers * batch),
        "photos/s": rate,
        "of the ideal": rate / (workers * kind["photos/s"]),
        "from storage, MB/s": rate * job["bytes a photo"] / 1e6,
        "hours": hours,
        "USD": hours * workers * kind["USD an hour"],
        "first bottleneck": max(seconds, key=lambda name: seconds[name]),
    }


def colorizing(workers: int, rates: dict[str, float], job: dict[str, float]) -> dict[str, Any]:
    """A row: ``workers`` cores colorize the scans."""
    limits = {
        "computing": workers * rates["scans colorized/s"],
        "storage": job["storage, bytes/s"] / (2 * rates["bytes a scan"]),  # a result is about as large
        "driver": rates["manifest lines/s"] * job["drivers"],
    }
    first = min(limits, key=lambda name: limits[name])
    hours = job["scans"] * (1 / limits[first] + 1 / (rates["files listed/s"] * job["drivers"])) / 3600
    return {
        "workers": workers,
        "scans/s": limits[first],
        "from and to storage, MB/s": limits[first] * 2 * rates["bytes a scan"] / 1e6,
        "hours": hours,
        "USD": hours * workers * job["USD a core hour"],
        "first bottleneck": first,
    }


def checked(one: dict[str, float], two: dict[str, float]) -> list[dict[str, Any]]:
    """What is predicted for one and two workers here, beside what was measured."""
    rows = []
    batch, gradients = one["photos a worker's batch"], 4 * one["parameters"]
    step = batch / one["training 256x256, photos/s"]
    predictions = {
        "training 256x256, photos/s": 2 * batch / (step + gradients / two["gradients summed, bytes/s"]),
        "scans colorized/s": 2 * one["scans colorized/s"],
    }
    for rate, predicted in predictions.items():
        rows.append({"": rate, "workers": 1, "predicted": one[rate], "measured": one[rate], "ratio": 1.0})
        found = two[rate]
        rows.append({"": rate, "workers": 2, "predicted": predicted, "measured": found, "ratio": found / predicted})
    return rows


def main() -> None:
    """Print the tables."""
    assumed = json.loads(Path(__file__).with_name("scale.json").read_text())
    newest = max(f for f in common.RESULTS.glob("*.json") if "scale" in json.loads(f.read_text()))
    rows = json.loads(newest.read_text())["scale"]["rows"]
    one, two = ({r["rate"]: r[key] for r in rows if key in r} for key in ("1 worker", "2 workers"))
    print(f"Rates: {newest.name}\n\nHere\n\n{common.table(checked(one, two))}\n")
    core = {"photos/s": one["training 256x256, photos/s"], **assumed["core"]}
    for name, kind in (("cores like these", core), ("GPUs", assumed["gpu"])):
        kind = {"photos loaded/s a core": one["photos loaded from shards/s"], **kind}
        table = [training(workers, kind, assumed["imagenet"], 4 * one["parameters"]) for workers in WORKERS]
        print(f"Training on ImageNet, {name}\n\n{common.table(table)}\n")
    table = [colorizing(workers, one, assumed["scans"]) for workers in WORKERS]
    memory = one["bytes of memory a file"] * assumed["scans"]["scans"] / assumed["scans"]["drivers"] / 1e9
    print(f"Colorizing, cores like these ({memory:.1f} GB of memory a driver)\n\n{common.table(table)}")


if __name__ == "__main__":
    main()
