"""Loading: images/s from files to Lab batches on one core, against the plain reference, in one run.

    python benchmarks/bench_data.py [--images 256] [--size 256] [--rounds 5] [--data FOLDER]

The pack is built before anything is timed, and every file has been read once: both sides read from memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import arguments, interleaved, one_thread, photos
from reference import PlainPhotos
from torch.utils.data import DataLoader

from colorization.core import color
from colorization.data.datamodules import FolderDataModule

BATCH = 16


def ours(folder: Path, size: int, cache_dir: str, train: bool, **settings: Any) -> Callable[[], int]:
    """One pass over the photos, to Lab, as training (or evaluation) makes it."""
    module = FolderDataModule(
        train_dir=str(folder), val_dir=str(folder.parent / "val"), image_size=size, batch_size=BATCH, num_workers=0,
        cache_dir=cache_dir, **settings,
    )  # fmt: skip
    module.setup()
    loader = module.loader("train", train=train)

    def run() -> int:
        count = 0
        for batch in loader:
            L, ab = color.split(color.rgb_to_lab(batch["rgb"]))
            count += len(L)
            assert ab.shape[1:] == (2, size, size)
        return count

    return run


def plain(folder: Path, size: int, train: bool) -> Callable[[], int]:
    loader = DataLoader(PlainPhotos(sorted(folder.glob("*.jpg")), size, train), batch_size=BATCH)
    return lambda: sum(len(L) for L, _ in loader)


def bench(images: int = 256, size: int = 256, rounds: int = 5, data: str | None = None) -> dict[str, Any]:
    """``{"rows": [{"name", "images_per_second", "ratio", "against"}], ...}``"""
    with tempfile.TemporaryDirectory() as scratch, one_thread():
        folder = photos(Path(scratch), images, data)
        resized, cropped = "plain: square resize", "plain: random crop, flip"
        sides = {
            resized: plain(folder, size, train=False),
            cropped: plain(folder, size, train=True),
            "raw pack, no augmentation": ours(folder, size, scratch, train=False, cache="raw"),
            "raw pack, random crop, flip": ours(folder, size, scratch, train=True, cache="raw"),
            "raw pack, short side 1.125 x size, random crop, flip": ours(
                folder, size, scratch, train=True, cache="raw", cache_side=size * 9 // 8
            ),
            "raw pack, random crop, flip, damage": ours(folder, size, scratch, train=True, cache="raw", damage=1.0),
            "jpeg pack, random crop, flip": ours(folder, size, scratch, train=True, cache="jpeg"),
            "no pack, random crop, flip": ours(folder, size, scratch, train=True, cache="off"),
        }
        rates = interleaved(sides, rounds)
    rows = []
    for name, rate in rates.items():
        against = resized if "resize" in name or "no augmentation" in name else cropped
        rows.append({"name": name, "images_per_second": rate, "ratio": rate / rates[against], "against": against})
    return {"size": size, "batch": BATCH, "images": images, "threads": 1, "rounds": rounds, "rows": rows}


if __name__ == "__main__":
    arguments(bench)
