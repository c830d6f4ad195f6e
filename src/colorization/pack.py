"""Pack photos ahead of training: ``python -m colorization.pack datamodule.data_dir=photos``.

Training does the same on first use; this is for preparing a disk, or for a look at what it takes. With ``to=FOLDER`` (a
path or URL) it writes shards for ``datamodule=shards`` instead, which many machines can train on.
"""

from __future__ import annotations

from typing import Any

from filelock import Timeout
from omegaconf import DictConfig

from colorization.core import hydra_main
from colorization.core.errors import InputError
from colorization.core.runs import DISK_FULL
from colorization.data import datamodules, shards
from colorization.data.datamodules import FolderDataModule, PhotoDataModule
from colorization.data.packed import PackedPhotos
from colorization.files import locations


def pack(cfg: DictConfig) -> None:
    """Pack every split as configured: training photos for random crops, the others as evaluation sees them.

    Raises:
        InputError: something in the config cannot work, or the disk has no room.
    """
    datamodule = datamodules.configured(cfg.datamodule)
    if cfg.to is not None:
        write_shards(datamodule, cfg.to, cfg.shard_mb)
        return
    datamodule.setup()
    for split in datamodule.photos:
        photos = datamodule.fast(split, train=split == "train")
        where = photos.folder if isinstance(photos, PackedPhotos) else "not packed"
        print(f"{split}: {len(photos.names)} photos, {where}")


def write_shards(datamodule: PhotoDataModule, to: str, shard_mb: float) -> None:
    """All readable photos, also near-grey ones: training leaves those out if asked to.

    Raises:
        InputError: these are no photos of folders, or the place cannot be written.
    """
    if not isinstance(datamodule, FolderDataModule):
        raise InputError(f"to={to}: shards are made of photos in folders (datamodule=folder, coco, ...)")
    if datamodule.cache == "off":
        raise InputError("datamodule.cache=off: shards are raw, jpeg, or auto")
    if shard_mb <= 0:
        raise InputError(f"shard_mb={shard_mb}: should be above 0")
    datamodule.setup()
    folder = locations.location(to)
    splits: dict[str, Any] = {}
    try:
        locations.make_folder(folder)
        with locations.lock(folder / "packing.lock"):
            for split in datamodule.photos:
                photos, facts = datamodule.scanned(split)
                recipe = datamodule.recipe(split == "train")
                done = splits[split] = shards.write(photos, facts, recipe, folder / split, int(shard_mb * 2**20))
                size = f"{done['shards']} shards, {done['bytes'] / 1e6:.1f} MB"
                print(f"{split}: {done['photos']} photos, {size}", flush=True)
            about = {"schema": shards.SCHEMA, "name": datamodule.name, "image_size": datamodule.image_size}
            locations.write_json(folder / "shards.json", {**about, "splits": splits})
    except Timeout as error:
        raise InputError(f"to={to}: another process is packing into this folder") from error
    except OSError as error:
        full = "; what is written is kept; run the same command to resume" if error.errno in DISK_FULL else ""
        raise InputError(f"to={to}: cannot be written ({error.strerror or error}){full}") from error


if __name__ == "__main__":
    hydra_main.run(pack, "pack")
