"""The data modules: a folder (or three), CIFAR-10, and the photos that scikit-image and scikit-learn ship."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from colorization.core import hydra_main, machine
from colorization.core.color import NEAR_GREY
from colorization.core.errors import InputError
from colorization.data import duplicates, shards
from colorization.data.augment import Augment
from colorization.data.loading import PhotoDataset, PhotoLoader, PhotoSet, auto_workers
from colorization.data.packed import PackedPhotos, Recipe, pack
from colorization.data.photos import ArrayPhotos, Facts, FolderPhotos
from colorization.data.splits import (
    by_identity,
    data_hash,
    first_by_hash,
    identity,
    same_content,
    split_hash,
    split_names,
)

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


def is_number(value: object) -> bool:
    """Whether a config value is a number (YAML also gives strings and booleans)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class PhotoDataModule(pl.LightningDataModule):
    """Photos in three splits, checked before training starts.

    Batches are ``{"rgb": (B, 3, S, S) uint8, "index": (B,) int64}`` and, in training with damage,
    ``"grey": (B, 1, S, S) uint8``.

    Args:
        name: of this data in tables.
        image_size: side of the square crops, pixels.
        batch_size: photos a batch, of all processes that train together.
        num_workers: loader processes; ``auto``: see :func:`colorization.data.loading.auto_workers`.
        pin_memory: page-locked batches, for accelerators that copy.
        seed: of the split, the order and the augmentation.
        min_colorfulness: training leaves out photos below this (:func:`colorization.core.color.colorfulness`; 15 drops
            the near-grey ones, 0 none).
        max_photos: training takes this many of what is left, chosen by a hash of the name, so that a smaller number
            is a part of a larger one (for learning curves); ``None``: all.
        max_unreadable: share of unreadable files above which the run refuses.
        shuffle: ``False`` gives the same training batches in every epoch (for overfitting on purpose).
        crop_scale, flip, damage, frames: see :class:`colorization.data.augment.Augment`.
        intervals: whether evaluation may claim confidence intervals on this data.
        find_duplicates: tell which photos look alike (:mod:`colorization.data.duplicates`) and where they lie in
            different splits; decodes every photo once more.

    Subclasses say where the photos are: :meth:`load_splits`.
    """

    def __init__(
        self,
        name: str,
        image_size: int = 256,
        batch_size: int = 4,
        num_workers: int | str = "auto",
        pin_memory: bool = False,
        seed: int = 42,
        min_colorfulness: float = 0.0,
        max_photos: int | None = None,
        max_unreadable: float = 0.05,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: float = 0.5,
        damage: float = 0.0,
        frames: float = 0.0,
        shuffle: bool = True,
        intervals: bool = True,
        find_duplicates: bool = False,
    ) -> None:
        super().__init__()
        for key, value, low in (("image_size", image_size, 32), ("batch_size", batch_size, 1)):
            if not isinstance(value, int) or value < low:
                raise InputError(f"datamodule.{key}={value}: should be a whole number, {low} or more")
        for key, share in (("max_unreadable", max_unreadable), ("flip", flip), ("damage", damage), ("frames", frames)):
            if not is_number(share) or not 0 <= share <= 1:
                raise InputError(f"datamodule.{key}={share}: should be between 0 and 1")
        pair = isinstance(crop_scale, Sequence) and len(crop_scale) == 2 and all(map(is_number, crop_scale))
        if not pair or not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise InputError(f"datamodule.crop_scale={crop_scale}: should be two shares, 0 < low <= high <= 1")
        smallest, largest = crop_scale
        if not is_number(min_colorfulness):
            raise InputError(f"datamodule.min_colorfulness={min_colorfulness}: should be a number")
        if max_photos is not None and (not isinstance(max_photos, int) or max_photos < 1):
            raise InputError(f"datamodule.max_photos={max_photos}: should be null or a whole number, 1 or more")
        if num_workers == "auto":
            num_workers = auto_workers()
        if not isinstance(num_workers, int) or num_workers < 0:
            raise InputError(f"datamodule.num_workers={num_workers}: should be auto or a whole number, 0 or more")
        self.name, self.image_size, self.batch_size, self.seed = name, image_size, batch_size, seed
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.shuffle, self.intervals, self.find_duplicates = shuffle, intervals, find_duplicates
        self.min_colorfulness, self.max_photos, self.max_unreadable = min_colorfulness, max_photos, max_unreadable
        self.crop_scale = (float(smallest), float(largest))
        self.augmentation = {"crop_scale": self.crop_scale, "flip": flip, "damage": damage, "frames": frames}
        self.photos: dict[str, Any] = {}  # of the subclass's kind of PhotoSet
        self.scans: dict[str, list[Facts]] = {}  # of all photos, also excluded ones
        self.facts: dict[str, list[Facts]] = {}
        self.unreadable: list[Facts] = []
        self.left_out: list[Facts] = []
        self.near_grey: dict[str, int] = {}
        self.copies = 0  # photos with the content of another one
        self.alike: list[tuple[str, str]] = []  # with find_duplicates, as <split>/<name>
        self._loaders: list[PhotoLoader] = []
        self._split: Mapping[str, Any] | None = None  # of a run, as in its split.json
        self._description: dict[str, Any] = {}

    def take_split(self, manifest: Mapping[str, Any]) -> None:
        """Split the photos as a run has, of which this is the ``split.json``; before :meth:`setup`.

        Only one folder is split here; data that come in splits stay as they are.
        """
        self._split = manifest

    def owns(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the photos are to be split here, and a run with this ``split.json`` has split these."""
        return False

    def check_same(self, manifest: Mapping[str, Any], run_id: str) -> None:
        """That these are the very photos of a run in the same splits; after :meth:`setup`.

        Raises:
            InputError: they are not; says how they differ.
        """
        now = self.manifest()["photos"]
        was = {(p["split"], p["path"]): p for p in manifest["photos"]}
        for p in now:
            old = was.pop((p["split"], p["path"]), None)
            if old is None or identity(old) != identity({**p, "digest": p["digest"] if old.get("digest") else None}):
                changed = "has another content" if old else f"is not in its {p['split']} split"
                raise InputError(self._other_photos(run_id, f"{p['path']} {changed}"))
        if was:
            (split, path), others = next(iter(was)), len(was) - 1
            more = f", as {others} more" if others else ""
            raise InputError(self._other_photos(run_id, f"{path} of its {split} split cannot be found or read{more}"))

    def _source(self) -> str:
        """The key that says where the photos are, with its value."""
        return f"datamodule={self.name}"

    def _other_photos(self, run_id: str, how: str) -> str:
        return (
            f"{self._source()}: these are not the photos of {run_id} ({how}); give it those, or start a new run "
            f"with init_weights={run_id}"
        )

    def load_splits(self) -> Mapping[str, PhotoSet]:
        """The photos of each split, before any is left out. May lack splits that were not asked for."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Find, check and split the photos; once, for any ``stage`` of Lightning."""
        if self.photos:
            return
        photos = self.load_splits()
        scans = self.scans = {split: p.scan() for split, p in photos.items()}
        self._tell_copies()
        self.unreadable = [f for facts in scans.values() for f in facts if f.error is not None]
        total = sum(map(len, scans.values()))
        for f in self.unreadable:
            log.warning("unreadable, skipped: %s (%s)", f.name, f.error)
        if len(self.unreadable) > self.max_unreadable * total:
            raise InputError(
                f"{len(self.unreadable)} of {total} photos of {self.name} are unreadable, more than "
                f"datamodule.max_unreadable={self.max_unreadable} allows; repair or remove them, or raise the share"
            )
        for split, facts in scans.items():
            readable = [i for i, f in enumerate(facts) if f.error is None]
            grey = [i for i in readable if facts[i].is_below(NEAR_GREY)]
            self.near_grey[split] = len(grey)
            left_out = [i for i in readable if split == "train" and facts[i].is_below(self.min_colorfulness)]
            kept = sorted(set(readable) - set(left_out))
            if not kept and left_out:
                raise InputError(
                    f"datamodule.min_colorfulness={self.min_colorfulness} leaves no photo of {self.name} for training"
                )
            if not kept:
                raise InputError(f"the {split} split of {self.name} has no photo left; give it more photographs")
            if split == "train" and self.max_photos is not None:
                chosen = first_by_hash([facts[i].name for i in kept], self.max_photos, self.seed)
                kept = [kept[i] for i in chosen]
            self.left_out += [facts[i] for i in left_out]
            self.photos[split] = photos[split].subset(kept)
            self.facts[split] = [facts[i] for i in kept]
            log.info(
                "%s: %d photos (%d near-grey, %d of them excluded, %d unreadable)",
                split, len(kept), len(grey), len(left_out), len(facts) - len(readable),
            )  # fmt: skip
        if self.find_duplicates:
            self._tell_alike()

    def _tell_alike(self) -> None:
        """Which photos look alike; those that lie in different splits by name."""
        names = [(split, name) for split, photos in self.photos.items() for name in photos.names]
        pairs = duplicates.alike(np.concatenate([duplicates.fingerprints(p) for p in self.photos.values()]))
        self.alike = [(f"{a[0]}/{a[1]}", f"{b[0]}/{b[1]}") for a, b in ((names[i], names[j]) for i, j in pairs)]
        parted = [pair for pair in self.alike if pair[0].partition("/")[0] != pair[1].partition("/")[0]]
        log.info("%d pairs of photos look alike, %d of them in different splits", len(pairs), len(parted))
        for pair in parted[:20]:
            log.warning("look alike: %s and %s", *pair)

    def manifest(self) -> dict[str, Any]:
        """Every photo with its split, bytes and colorfulness, and the photos in no split, for ``split.json``."""
        return {
            "schema": 1,
            "name": self.name,
            "seed": self.seed,
            "photos": [
                {"path": f.name, "split": split, "bytes": f.bytes, "colorfulness": f.colorfulness, "digest": f.digest}
                for split, facts in self.facts.items()
                for f in facts
            ],
            "copies": self.copies,
            "look_alike": self.alike,
            "left_out_near_grey": [{"path": f.name, "colorfulness": f.colorfulness} for f in self.left_out],
            "unreadable": [{"path": f.name, "error": f.error} for f in self.unreadable],
        }

    def describe(self) -> dict[str, Any]:
        """The training data for the description of weights: name, count, hash, mean a*b* (Lab units), image size, and
        :func:`colorization.data.splits.split_hash` of the run's ``split.json``."""
        if "train" not in self.facts or self._description:
            return self._description
        facts = self.facts["train"]
        mean = np.mean([f.mean_ab for f in facts if f.mean_ab is not None], axis=0)
        self._description = {
            "name": self.name,
            "photos": len(facts),
            "hash": data_hash(facts),
            "mean_ab": [round(float(m), 4) for m in mean],
            "image_size": self.image_size,
            "split": split_hash(self.manifest()),
        }
        return self._description

    def _tell_copies(self) -> None:
        """How many photos have the content of another, and which of them lie in different splits."""
        splits = [split for split, facts in self.scans.items() for _ in facts]
        facts = [f for of_split in self.scans.values() for f in of_split]
        names = [f"{split}/{f.name}" for split, f in zip(splits, facts, strict=True)]
        groups = [g for g in same_content(names, [f.digest for f in facts]) if len(g) > 1]
        self.copies = sum(len(g) - 1 for g in groups)
        if self.copies:
            log.info("%d photos are copies of others, byte for byte", self.copies)
        if parted := [g for g in groups if len({splits[i] for i in g}) > 1]:
            some = ", ".join(names[i] for i in parted[0][:3])
            log.warning("%d photos lie in several splits, as files of the same content (%s)", len(parted), some)

    def loader(self, split: str, train: bool) -> PhotoLoader:
        """A loader over a split; ``train``: augmented and, unless ``shuffle`` is off, shuffled."""
        if split not in self.photos:
            raise InputError(f"{self.name} has no {split} photos; set datamodule.{split}_dir or datamodule.data_dir")
        photos = self.fast(split, train)
        augment = Augment(self.image_size, train, **(self.augmentation if train else {}))  # type: ignore[arg-type]
        dataset = PhotoDataset(photos, augment, self.seed, replace=train)
        shuffle = train and self.shuffle
        self._loaders.append(PhotoLoader(dataset, self.batch_size, shuffle, self.num_workers, self.pin_memory))
        return self._loaders[-1]

    def fast(self, split: str, train: bool) -> PhotoSet | PackedPhotos:
        """The photos of a split in the form that is read fastest, for training or for evaluation."""
        return self.photos[split]

    def has(self, split: str) -> bool:
        """Whether there are photos for ``train``, ``val`` or ``test``; after :meth:`setup`."""
        return split in self.photos

    def names(self, split: str) -> Sequence[str]:
        """The photos of a split, in order."""
        return self.photos[split].names

    def training_names(self, index: torch.Tensor) -> list[str]:
        """The photos of a training batch by its ``index``."""
        return [self.photos["train"].names[i] for i in index.tolist()]

    def some_photos(self, number: int) -> Iterator[np.ndarray]:
        """So many training photos, spread over all, each (3, H, W) uint8."""
        photos = self.fast("train", True)
        last = len(photos.names) - 1
        for i in np.linspace(0, last, min(number, last + 1)).round().astype(int).tolist():
            yield photos.read(i).transpose(2, 0, 1)

    def first_photos(self, batch: Mapping[str, Any], number: int) -> dict[str, torch.Tensor] | None:
        """The first validation photos as a batch; ``None`` if none of them can be read. ``batch`` is not used."""
        dataset: Any = self.val_dataloader().dataset
        return dataset.__getitems__([(0, i) for i in range(min(number, len(dataset)))])

    def protocol(self) -> dict[str, Any]:
        """The facts of an evaluation about its photos."""
        return {
            "data": self.name,
            "data_hash": data_hash(self.facts["test"]),
            "unreadable": len(self.unreadable),
            "crop": "short side resized to the size, then centre crop; aspect ratio kept",
            "size": self.image_size,
        }

    def close(self) -> None:
        """End the processes of all loaders."""
        for loader in self._loaders:
            loader.close()

    def train_dataloader(self) -> PhotoLoader:
        return self.loader("train", train=True)

    def val_dataloader(self) -> PhotoLoader:
        return self.loader("val", train=False)

    def test_dataloader(self) -> PhotoLoader:
        return self.loader("test", train=False)


class FolderDataModule(PhotoDataModule):
    """One folder, split by hash, or a folder for each split.

    Args:
        data_dir: the one folder; ignored if ``train_dir`` or ``test_dir`` is given.
        train_dir, val_dir, test_dir: a folder for each split. Training needs the first two, fitting an
            ensemble only the second, evaluation only the last.
        val_fraction, test_fraction: shares of ``data_dir``.
        cache_dir: keeps the check of the photos and the packed photos for other runs; ``None`` keeps neither.
        cache: how photos are packed (:mod:`colorization.data.packed`): ``raw``, ``jpeg`` (a fifth of the size),
            ``auto`` (raw up to 32 GB) or ``off`` (each photo is decoded each time).
        cache_side: short side of packed training photos, pixels; ``auto``: the smallest crop of a square photo still
            has ``image_size``.
        exclude: pattern or patterns of photos and folders to leave out, see :func:`.photofiles.matches`.
        others: see :class:`PhotoDataModule`.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        train_dir: str | None = None,
        val_dir: str | None = None,
        test_dir: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        cache_dir: str | None = None,
        cache: str = "auto",
        cache_side: int | str = "auto",
        exclude: str | Sequence[str] = (),
        name: str = "folder",
        **others: Any,
    ) -> None:
        super().__init__(name, **others)
        self.exclude = [exclude] if isinstance(exclude, str) else list(exclude or ())
        if not all(isinstance(pattern, str) for pattern in self.exclude):
            raise InputError(
                f"datamodule.exclude={exclude}: should be a pattern such as thumbs or *-small.jpg, or several"
            )
        self.data_dir, self.dirs = data_dir, {"train": train_dir, "val": val_dir, "test": test_dir}
        shares = (val_fraction, test_fraction)
        if not all(map(is_number, shares)) or not (min(shares) > 0 and sum(shares) < 1):
            raise InputError(
                f"datamodule.val_fraction={val_fraction} and datamodule.test_fraction={test_fraction}: "
                "should be above 0 and leave something for training"
            )
        if train_dir and not val_dir:
            raise InputError("datamodule.train_dir is set but datamodule.val_dir is not; training needs both")
        self.fractions = {"val": val_fraction, "test": test_fraction, "train": 1 - val_fraction - test_fraction}
        self.cache_dir = Path(cache_dir) if cache_dir else None
        if cache not in ("auto", "raw", "jpeg", "off"):
            raise InputError(f"datamodule.cache={cache}: should be auto, raw, jpeg or off")
        if cache_side == "auto":
            cache_side = math.ceil(self.image_size / math.sqrt(self.crop_scale[0]))
        if not isinstance(cache_side, int) or cache_side < self.image_size:
            raise InputError(
                f"datamodule.cache_side={cache_side}: should be auto or a whole number, image_size or more"
            )
        self.cache, self.cache_side = cache, cache_side
        self._packed: dict[tuple[str, bool], PackedPhotos] = {}
        self._folder: FolderPhotos | None = None  # all photos of data_dir

    def recipe(self, train: bool) -> Recipe:
        """How photos are packed, for training or for evaluation."""
        return Recipe(self.cache, self.cache_side if train else self.image_size, square=not train)

    def fast(self, split: str, train: bool) -> PhotoSet | PackedPhotos:
        """The packed photos: for training the whole folder, for other seeds' splits."""
        if self.cache == "off" or self.cache_dir is None:
            return self.photos[split]
        if (split, train) not in self._packed:
            root = self.photos[split].root
            together = [s for s in self.photos if s == split or (train and self.photos[s].root == root)]
            photos, facts = self.scanned(*together)
            packed = pack(photos, facts, self.recipe(train), self.cache_dir)
            positions = {name: i for i, name in enumerate(packed.names)}
            self._packed[split, train] = packed.subset(positions[name] for name in self.photos[split].names)
        return self._packed[split, train]

    def scanned(self, *splits: str) -> tuple[FolderPhotos, list[Facts]]:
        """All photos of splits of one folder by name, also excluded ones."""
        facts = sorted((f for split in splits for f in self.scans[split]), key=lambda f: f.name)
        one = self.photos[splits[0]]
        return FolderPhotos(one.root, one.key, [f.name for f in facts]), facts

    def load_splits(self) -> Mapping[str, PhotoSet]:
        if any(self.dirs.values()):
            sets = {
                s: FolderPhotos(d, f"datamodule.{s}_dir", None, self.cache_dir, self.exclude)
                for s, d in self.dirs.items()
                if d
            }
            seen: dict[Path, str] = {}
            for split, photos in sets.items():
                for i in range(len(photos.names)):
                    path = photos.path(i).resolve()
                    if path in seen:
                        raise InputError(
                            f"datamodule.{split}_dir={self.dirs[split]}: {path.name} is also in "
                            f"datamodule.{seen[path]}_dir; the splits must not share photos"
                        )
                    seen[path] = split
            return sets
        photos = self.find_folder()
        facts = photos.scan()
        if self._split is not None:
            known = by_identity(self._split, ({"path": f.name, "bytes": f.bytes, "digest": f.digest} for f in facts))
            paths = {p["path"] for p in self._split["photos"]}
            there = {f.digest for f in facts if f.name in paths}
            copies = [f.name not in paths and f.digest in there for f in facts]  # of the run's photos, made since
            known = [None if copy else split for split, copy in zip(known, copies, strict=True)]
            grey = {p["path"] for p in self._split["left_out_near_grey"]}
            known = [split or ("train" if f.name in grey else None) for f, split in zip(facts, known, strict=True)]
            if new := known.count(None):
                log.info("%d of %d photos in %s are none of the run's", new, len(known), self.data_dir)
            return {s: photos.subset(i for i, k in enumerate(known) if k == s) for s in SPLITS if s in known}
        digests = [f.digest for f in facts]
        if (different := len(same_content(photos.names, digests))) < 3:
            raise InputError(
                f"datamodule.data_dir={self.data_dir}: only {different} of its photos differ, too few for three splits"
            )
        parts = split_names(photos.names, self.fractions, self.seed, digests)
        return {s: photos.subset(parts[s]) for s in SPLITS}

    def _source(self) -> str:
        key = next((f"{split}_dir" for split, d in self.dirs.items() if d), "data_dir")
        return f"datamodule.{key}={self.data_dir if key == 'data_dir' else self.dirs[key.removesuffix('_dir')]}"

    def owns(self, manifest: Mapping[str, Any]) -> bool:
        """Whether ``data_dir`` is to be split and holds test photos of the run."""
        if any(self.dirs.values()) or not self.data_dir:
            return False
        facts = self.find_folder().scan()
        return "test" in by_identity(manifest, ({"path": f.name, "bytes": f.bytes, "digest": f.digest} for f in facts))

    def find_folder(self) -> FolderPhotos:
        """The photos of the one folder, not read yet. Raises ``InputError``."""
        if not self.data_dir:
            raise InputError("datamodule.data_dir is not set; give a folder of photographs")
        if self._folder is None:
            photos = FolderPhotos(self.data_dir, "datamodule.data_dir", None, self.cache_dir, self.exclude)
            if len(photos.names) < 3:
                raise InputError(
                    f"datamodule.data_dir={self.data_dir}: {len(photos.names)} photos are too few for three splits"
                )
            self._folder = photos
        return self._folder


class ShardsDataModule(PhotoDataModule):
    """Shards that ``python -m colorization.pack to=...`` wrote, see :mod:`colorization.data.shards`.

    Args:
        data_dir: their folder: a path, or a URL that fsspec knows.
        lanes: of each epoch's order; where this is a multiple of the number of processes, each reads its share of the
            shards alone. Another number is another order.
        cache_dir: for remote shards, a local folder of this machine alone. ``None``: the user's cache.
        cache_gb: approximate limit of that folder; ``None``: no limit.
        name: of this data in tables; default: the name in the shards.
        others: see :class:`PhotoDataModule`.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        lanes: int = 8,
        cache_dir: str | None = None,
        cache_gb: float | None = None,
        name: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__(name or "shards", **others)
        if not data_dir:
            raise InputError("datamodule.data_dir is not set; give the folder of the shards, a path or a URL")
        if not isinstance(lanes, int) or lanes < 1:
            raise InputError(f"datamodule.lanes={lanes}: should be a whole number, 1 or more")
        if cache_gb is not None and (not is_number(cache_gb) or cache_gb <= 0):
            raise InputError(f"datamodule.cache_gb={cache_gb}: should be null or a number above 0")
        self.data_dir, self.lanes, self.named = data_dir, lanes, name
        self.cache_dir = Path(cache_dir) if cache_dir else machine.cache_dir()
        self.cache_bytes = None if cache_gb is None else int(cache_gb * 1e9)

    def load_splits(self) -> Mapping[str, PhotoSet]:
        about, photos = shards.open_shards(self.data_dir, self.lanes, self.cache_dir, self.cache_bytes)
        if about["image_size"] != self.image_size:
            raise InputError(
                f"datamodule.image_size={self.image_size}: the shards there are of photos packed for "
                f"{about['image_size']}; set that, or pack them again"
            )
        self.name = self.named or about["name"]
        return photos


class SampleDataModule(PhotoDataModule):
    """The colour photographs that scikit-image and scikit-learn ship: enough to see everything run, no more.

    Seeded square crops. Test photos are others than training's; validation has the right part of training's photos,
    which training does not see: one photo of its own tells nothing. No interval is claimed on so few.

    Args:
        crops: crops a photo in training and test, and of all photos in validation.
        others: see :class:`PhotoDataModule`.
    """

    TRAIN = ("skimage/astronaut", "skimage/chelsea", "skimage/motorcycle_left", "sklearn/flower")
    TEST = ("skimage/coffee", "sklearn/china")
    LEFT = 0.6  # of the width, for training

    def __init__(self, crops: int = 8, name: str = "sample", **others: Any) -> None:
        super().__init__(name, **{**others, "intervals": False})
        if crops < 1:
            raise InputError(f"datamodule.crops={crops}: should be 1 or more")
        self.crops = crops

    def load_splits(self) -> Mapping[str, PhotoSet]:
        train, val = {}, {}
        for name in self.TRAIN:
            photo = sample_photo(name)
            edge = int(self.LEFT * photo.shape[1])
            train[name], val[f"{name}, right"] = photo[:, :edge], photo[:, edge:]
        test = {name: sample_photo(name) for name in self.TEST}
        return {
            "train": self._crops(train, self.crops * len(train)),
            "val": self._crops(val, self.crops),
            "test": self._crops(test, self.crops * len(test)),
        }

    def _crops(self, photos: Mapping[str, np.ndarray], number: int) -> ArrayPhotos:
        """Crops of the photos in turn."""
        generators = {name: np.random.default_rng([self.seed, *name.encode()]) for name in photos}
        names, arrays = [], []
        for i in range(number):
            name = list(photos)[i % len(photos)]
            photo, rng = photos[name], generators[name]
            side = int(min(photo.shape[:2]) * rng.uniform(0.6, 1.0))
            y, x = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
            names.append(f"{name}#{i // len(photos)}")
            arrays.append(photo[y : y + side, x : x + side])
        return ArrayPhotos(names, arrays)


def sample_photo(name: str) -> np.ndarray:
    """A photo that lies in an installed package, e.g. ``skimage/astronaut``, as (H, W, 3) uint8; no network."""
    package, _, photo = name.partition("/")
    if package == "sklearn":
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(f"{photo}.jpg"))
    import skimage

    from colorization.data.photos import read_rgb

    folder = Path(skimage.__file__).parent / "data"
    return read_rgb(next(f for f in folder.iterdir() if f.stem == photo))


def configured(config: DictConfig) -> PhotoDataModule:
    """The data module that is configured.

    Raises:
        InputError: something in the config cannot work, or it is another kind of data module.
    """
    made = hydra_main.instantiate(config)
    if not isinstance(made, PhotoDataModule):
        raise InputError(
            f"datamodule._target_={config._target_}: should be a data module of this project, a subclass of "
            "colorization.data.datamodules.PhotoDataModule"
        )
    return made
