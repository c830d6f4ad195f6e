"""Pack photos ahead of training: ``python -m colorization.pack datamodule.data_dir=photos``.

Training does the same on first use; this is for preparing a disk, or for a look at what it takes.
"""

from __future__ import annotations

from omegaconf import DictConfig

from colorization import hydra_main
from colorization.data.datamodules import PhotoDataModule
from colorization.data.packed import PackedPhotos


def pack(cfg: DictConfig) -> None:
    """Pack every split as configured: training photos for random crops, the others as evaluation sees them.

    Raises:
        InputError: something in the config cannot work, or the disk has no room.
    """
    datamodule: PhotoDataModule = hydra_main.instantiate(cfg.datamodule)
    datamodule.setup()
    for split in datamodule.photos:
        photos = datamodule.fast(split, train=split == "train")
        where = photos.folder if isinstance(photos, PackedPhotos) else "not packed"
        print(f"{split}: {len(photos.names)} photos, {where}")


if __name__ == "__main__":
    hydra_main.run(pack, "pack")
