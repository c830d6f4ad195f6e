"""CIFAR-10 (Krizhevsky 2009): 60,000 photographs of 32x32."""

from __future__ import annotations

import hashlib
import logging
import lzma
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
from tqdm import tqdm

from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError
from colorization.data.datamodules import PhotoDataModule
from colorization.data.loading import PhotoSet
from colorization.data.photos import ArrayPhotos, read_rgb
from colorization.data.splits import split_names

log = logging.getLogger(__name__)


class CIFAR10DataModule(PhotoDataModule):
    """CIFAR-10 in memory, from torchvision's download or from a local archive of class folders.

    Args:
        data_dir: folder for the download and for the unpacked arrays.
        archive: a tar file with ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``; ``None`` downloads.
        val_photos: photos of the training set that are set aside for validation.
        others: see :class:`PhotoDataModule`.
    """

    def __init__(
        self, data_dir: str, archive: str | None = None, val_photos: int = 2000, name: str = "cifar10", **others: Any
    ) -> None:
        super().__init__(name, **others)
        if not 0 < val_photos < 50_000:
            raise InputError(f"datamodule.val_photos={val_photos}: should be between 1 and 49999")
        self.data_dir, self.val_photos = Path(data_dir), val_photos
        self.archive = Path(archive) if archive else None
        self.classes: list[str] = []  # known after setup
        self._class_of: dict[str, int] = {}  # photo -> its place in classes

    def class_numbers(self, split: str) -> list[int]:
        """The class of each photo of a split, in the order of its photos, as a place in ``classes``."""
        return [self._class_of[name] for name in self.photos[split].names]

    def load_splits(self) -> dict[str, PhotoSet]:
        training, test = self._from_archive() if self.archive else self._from_torchvision()
        if self.val_photos >= len(training.names):
            raise InputError(
                f"datamodule.val_photos={self.val_photos}: there are {len(training.names)} training photos"
            )
        share = self.val_photos / len(training.names)
        parts = split_names(training.names, {"val": share, "train": 1 - share}, self.seed)
        return {"train": training.subset(parts["train"]), "val": training.subset(parts["val"]), "test": test}

    def _from_torchvision(self) -> tuple[ArrayPhotos, ArrayPhotos]:
        from torchvision.datasets import CIFAR10

        sets = []
        for train in (True, False):
            try:
                data = CIFAR10(str(self.data_dir), train=train, download=True)
            except (URLError, RuntimeError, OSError) as error:
                raise InputError(
                    f"datamodule=cifar10: the download failed ({getattr(error, 'reason', error)}); give a local copy "
                    "with datamodule.archive=<tar file of train/<class>/*.jpg and test/<class>/*.jpg>"
                ) from error
            prefix = "train" if train else "test"
            sets.append(ArrayPhotos([f"{prefix}/{i:05d}" for i in range(len(data.data))], data.data))
            self.classes = list(data.classes)
            self._class_of |= dict(zip(sets[-1].names, data.targets, strict=True))
        return sets[0], sets[1]

    def _from_archive(self) -> tuple[ArrayPhotos, ArrayPhotos]:
        """Decode the archive once; the arrays are kept beside it under a name that changes with the archive."""
        assert self.archive is not None
        if not self.archive.is_file():
            raise InputError(f"datamodule.archive={self.archive}: no such file")
        stat = self.archive.stat()
        key = hashlib.sha256(os.fsencode(f"{self.archive.resolve()}:{stat.st_size}:{stat.st_mtime_ns}")).hexdigest()[
            :12
        ]
        cache = self.data_dir / f"cifar10-{key}.npz"
        if not cache.is_file():
            log.info("unpacking %s to %s", self.archive, cache)
            self._unpack(cache)
        with np.load(cache, allow_pickle=False) as content:
            names, arrays = content["names"], content["arrays"]
        sets = []
        for prefix in ("train/", "test/"):
            chosen = np.char.startswith(names, prefix)
            if not chosen.any():
                raise InputError(f"datamodule.archive={self.archive}: no {prefix}<class>/*.jpg in it")
            sets.append(ArrayPhotos(names[chosen].tolist(), arrays[chosen]))
        folders = {name: name.split("/")[-2] for photos in sets for name in photos.names}
        self.classes = sorted(set(folders.values()))
        self._class_of = {name: self.classes.index(folder) for name, folder in folders.items()}
        return sets[0], sets[1]

    def _unpack(self, cache: Path) -> None:
        assert self.archive is not None
        photos: dict[str, np.ndarray] = {}
        try:
            with tarfile.open(self.archive) as tar:
                for member in tqdm(tar, f"unpacking {self.archive.name}", unit="file", disable=None):
                    file = tar.extractfile(member) if member.isfile() else None
                    if file is not None and member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                        photos[member.name.removeprefix("./")] = read_rgb(member.name, file.read())
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
            raise InputError(
                f"datamodule.archive={self.archive}: not a whole tar archive of photos ({error})"
            ) from error
        if {p.shape for p in photos.values()} != {(32, 32, 3)}:
            raise InputError(f"datamodule.archive={self.archive}: should hold 32x32 photographs only")
        names = sorted(photos)
        with atomic_path(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, names=np.array(names), arrays=np.stack([photos[n] for n in names]))
