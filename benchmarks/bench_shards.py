"""Training photos from shards of 1, 10 and 100 GB: how soon the first batch comes, how fast the others, at what memory.

    python benchmarks/bench_shards.py [--gigabytes 1,10,100] [--seconds 8]

Simulated: a few real shards of JPEG photos, of which a larger set has as many links as it would have shards, and an
index as long as it would have. Each row is a process of its own with an empty cache, which reads the shards where they
are, or fetches them from a web server on loopback and keeps at most 2 GB of them; it begins an epoch, or goes on in the
middle of one as a run that was stopped.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import common

from colorization.data import shards
from colorization.data.datamodules import FolderDataModule, ShardsDataModule
from colorization.data.packed import Recipe

CACHE_GB = 2.0
BATCH = 32


def _write(scratch: Path, gigabytes: float, real: Path, one: shards.Index) -> Path:
    """The folder of a set of this size."""
    folder = scratch / f"{gigabytes:g}"
    about = json.loads((real / "shards.json").read_text())
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
    for file in (real / "val").iterdir():
        (folder / "val" / file.name).symlink_to(file)
    train = about["splits"]["train"]
    parts = []
    for copy in range(max(1, round(gigabytes * 1e9 / train["bytes"]))):
        first = copy * train["shards"]
        for shard in range(train["shards"]):
            (folder / "train" / f"{first + shard:05d}.bin").symlink_to(real / "train" / f"{shard:05d}.bin")
        columns = {**one.columns, "shard": one.columns["shard"] + first}
        parts.append(replace(one, names=[f"{copy}/{name}" for name in one.names], columns=columns))
    index = shards.Index.joined(parts)
    about["splits"]["train"] = shards.write_index(folder / "train", index, Recipe(**train["recipe"]))
    (folder / "shards.json").write_text(json.dumps(about))
    return folder


@contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().split()[5]}"
        process.terminate()


def read(data_dir: str, cache_dir: str, seconds: float, share: float) -> dict[str, Any]:
    """Of a row, in this process: an epoch from after a share of it, for some seconds."""
    start = time.perf_counter()
    module = ShardsDataModule(data_dir, cache_dir=cache_dir, cache_gb=CACHE_GB, image_size=256, batch_size=BATCH)
    module.setup("fit")
    loader = module.loader("train", train=True)
    loader.load_state_dict({**loader.state_dict(), "done": int(share * len(loader))})
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - start
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += len(next(batches)["rgb"])
    return {
        "photos": len(module.photos["train"].names),
        "first batch, s": first,
        "photos/s": count / (time.perf_counter() - start),
        "peak, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cache, MB": sum(f.stat().st_size for f in Path(cache_dir).rglob("*.bin")) / 1e6,
    }


def bench(gigabytes: str = "1,10,100", seconds: float = 8.0, photos: int = 12000) -> dict[str, Any]:
    """Shards read where they are, and fetched from a web server on loopback.

    Args:
        gigabytes: of the sets, with commas.
        seconds: of reading, each.
        photos: real ones.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        common.photos(scratch, photos)
        module = FolderDataModule(
            train_dir=f"{scratch}/train", val_dir=f"{scratch}/val", cache="jpeg", cache_dir=f"{scratch}/cache",
            image_size=256, cache_side=256,
        )  # fmt: skip
        module.setup()
        real = scratch / "real"
        splits = {}
        for split in ("train", "val"):
            found, facts = module.scanned(split)
            splits[split] = shards.write(found, facts, module.recipe(split == "train"), real / split)
        about = {"schema": shards.SCHEMA, "name": "simulated", "image_size": 256, "splits": splits}
        (real / "shards.json").write_text(json.dumps(about))
        one = shards.Index.of_bytes((real / "train" / "index.npz").read_bytes())
        for size in map(float, gigabytes.split(",")):
            folder = _write(scratch, size, real, one)
            for where, share in itertools.product(("here", "web server"), (0.0, 0.5)):
                with tempfile.TemporaryDirectory() as cache, _web_server(scratch) as url:
                    place = str(folder) if where == "here" else f"{url}/{folder.name}"
                    command = [sys.executable, __file__, "--read", place, cache, str(seconds), str(share)]
                    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                rows.append({"GB": size, "where": where, "from": share, **json.loads(said.stdout.splitlines()[-1])})
                print(rows[-1])
    return {"rows": rows}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read(sys.argv[2], sys.argv[3], *map(float, sys.argv[4:]))))
    else:
        common.arguments(bench)
