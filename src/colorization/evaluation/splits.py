"""Which photographs may test weights: those of their run's own test split, and none that they were trained on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from colorization.core import runs
from colorization.core.errors import InputError
from colorization.data.datamodules import PhotoDataModule
from colorization.data.plain import AnyDataModule
from colorization.data.splits import by_identity, split_hash
from colorization.models import checkpoint

log = logging.getLogger(__name__)


def take_split(files: list[Path], datamodule: AnyDataModule) -> dict[Path, dict[str, Any]]:
    """The ``split.json`` of each weights file that lies in its run; photos of one folder are split as the first of
    these runs has, if they are its own."""
    if not isinstance(datamodule, PhotoDataModule):
        log.warning("whether weights were trained on these photos cannot be told: %s gives no names", datamodule.name)
        return {}
    splits = {file: found for file in files if (found := split_of(file)) is not None}
    for file, split in splits.items():
        if datamodule.owns(split):
            datamodule.take_split(split)
            log.info("the photos are split as in %s", _run_of(file) / "split.json")
            break
    return splits


def split_of(file: Path) -> dict[str, Any] | None:
    """The ``split.json`` beside weights in a run's folder, if it is the one that they were trained with."""
    split = runs.Run(_run_of(file)).split() if file.suffix in (".safetensors", ".ckpt") else None
    if split is None:
        return None
    known = checkpoint.read_description(file)["training_data"].get("split")
    return split if known in (None, split_hash(split)) else None  # earlier versions did not say which


def _run_of(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def check_unseen(splits: dict[Path, dict[str, Any]], datamodule: AnyDataModule, allowed: bool) -> dict[str, int]:
    """How many of the test photos each of the weights was trained on, if that is known.

    Raises:
        InputError: any, unless ``allowed``.
    """
    if not isinstance(datamodule, PhotoDataModule):
        return {}
    photos = [{"path": f.name, "bytes": f.bytes, "digest": f.digest} for f in datamodule.facts["test"]]
    counts = {str(file): by_identity(split, photos).count("train") for file, split in splits.items()}
    seen = {file: n for file, n in counts.items() if n}
    if seen and not allowed:
        file, n = next(iter(seen.items()))
        raise InputError(
            f"{n} of the {len(photos)} test photos were trained on by {file}; give photos that it has not seen, or "
            "allow_train_photos=true, which the table then states"
        )
    return seen
