"""How long ImageNet and an archive of 100 million scans take, and what is short first, from measured rates.

    python benchmarks/scale.py [--rates benchmarks/scale.json]

The models are the simplest that can be wrong: a rate for each part that all photos pass, of which the slowest decides.
``docs/scale.md`` explains them and shows the tables; the rates of one worker, and of the parts that workers share, are
measured, those of a network and of a storage that this machine has not got are assumed, and marked so in the JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import common

WORKERS = (1, 8, 64, 512)


def colorizing(rates: dict[str, Any], workers: int, local: bool = False) -> dict[str, Any]:
    """A folder by ``workers`` processes of one core each.

    Args:
        rates: content of the JSON.
        workers: how many.
        local: on the measured machine, whose disk is not what limits it.

    Returns:
        ``images/s``, and ``limit``: the part that is the slowest.
    """
    measured, assumed = rates["colorize"], rates["assumed"]
    parts = {"workers": workers * measured["worker, images/s"]}
    # One process plans, writes the manifest, and renames what is finished.
    parts["driver"] = measured["driver, images/s"]
    if not local:
        megabytes = measured["input, MB"] + measured["output, MB"]
        parts["storage"] = assumed["storage, MB/s"] / megabytes
    limit = min(parts, key=parts.__getitem__)
    return {"images/s": parts[limit], "limit": limit}


def training(rates: dict[str, Any], workers: int, local: bool = False) -> dict[str, Any]:
    """Data-parallel training with the same batch on each of ``workers``.

    A step is the computation of a batch, then a ring all-reduce of the gradients: each worker sends and receives
    2 (n - 1) / n times the gradients' bytes (Patarasuk and Yuan 2009), in 2 (n - 1) messages.
    """
    measured, assumed = rates["train"], rates["assumed"]
    batch = measured["batch"]
    compute = batch / measured["worker, images/s"]
    speed = measured["all-reduce of two, MB/s"] if local else assumed["network, MB/s"]
    latency = 0.0 if local else assumed["latency, s"]
    reduce = 2 * (workers - 1) / workers * measured["gradients, MB"] / speed + 2 * (workers - 1) * latency
    rate = workers * batch / (compute + reduce)
    limit = "workers" if reduce < compute else "network"
    if not local and (most := assumed["storage, MB/s"] / measured["packed photo, MB"]) < rate:
        rate, limit = most, "storage"
    return {"images/s": rate, "limit": limit, "of a step in all-reduce": reduce / (compute + reduce)}


def tables(rates: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What is predicted: for this machine beside what was measured, and for what nobody here has."""
    found: dict[str, list[dict[str, Any]]] = {"this machine": [], "100 million scans": [], "ImageNet, 90 epochs": []}
    for what, model in (("colorize", colorizing), ("train", training)):
        for workers, key in ((1, "worker, images/s"), (2, "two workers, images/s")):
            predicted, seen = model(rates, workers, local=True)["images/s"], rates[what][key]
            row = {"task": what, "workers": workers, "predicted, images/s": predicted, "measured, images/s": seen}
            found["this machine"].append({**row, "error": f"{predicted / seen - 1:+.0%}"})
    price = rates["assumed"]["core-hour, $"]
    jobs = (
        ("100 million scans", colorizing, 100e6, 1),
        ("ImageNet, 90 epochs", training, 90 * 1.281e6, rates["train"]["cores of a worker"]),
    )
    for name, model, photos, cores in jobs:
        for workers in WORKERS:
            result = model(rates, workers)
            hours = photos / result["images/s"] / 3600
            row = {"workers": workers, "images/s": result["images/s"], "first limit": result["limit"]}
            found[name].append({**row, "days": hours / 24, "core-hours, $": hours * workers * cores * price})
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, default=Path(__file__).with_name("scale.json"))
    options = parser.parse_args()
    for title, rows in tables(json.loads(options.rates.read_text(encoding="utf-8"))).items():
        print(f"**{title}**\n\n{common.table(rows)}\n")


if __name__ == "__main__":
    main()
