"""Pictures that other systems made of the photographs, as rows of the evaluation (``predictions=<folder>``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig

from colorization.core import color
from colorization.core.errors import InputError
from colorization.data.augment import Augment
from colorization.data.photos import FolderPhotos
from colorization.files.photofiles import EXTENSIONS
from colorization.files.pixels import Unreadable

GREY = 1.0  # Lab units: a picture whose a* and b* nowhere go beyond is a grey one
LIGHTNESS = 5.0  # L*: from this mean difference on the table says that a system changes the lightness


def named_folders(predictions: object) -> dict[str, Path]:
    """Row name -> folder, of the config's ``predictions``: a folder, a list of them, or a name for each.

    A folder without a given name has its own; folders of the same name go by their paths.
    """
    if predictions is None:
        return {}
    if isinstance(predictions, DictConfig):
        return {str(name): Path(str(folder)) for name, folder in predictions.items()}
    folders = [Path(str(f)) for f in (predictions if isinstance(predictions, ListConfig) else [predictions])]
    names = [f.resolve().name for f in folders]
    return {n if names.count(n) == 1 else str(f): f for n, f in zip(names, folders, strict=True)}


class Pictures:
    """A folder with one picture for each photo, of the photo's name (with any ending) and shape.

    A picture of the photo's shape, at any size, is treated as the photo: short side to the size, centre crop.
    One that is exactly the size of the crop is taken for the crop. Only its a* and b* are scored, with the true L*.
    (Colours that sRGB does not have were clipped in a picture; with the true L* it may then score a tenth of a dB
    better than the model that made it.)

    Args:
        folder: where they are.
        names: of the photos, relative, with forward slashes.
        sizes: height and width of each photo.
        image_size: side of the crops, pixels.

    Attributes:
        grey: how many of the pictures read so far have no colour.
        lightness: of each picture read so far the mean difference of its L* from the photo's.

    Raises:
        InputError: pictures are missing, cannot be read, or have another shape than their photo.
    """

    def __init__(self, folder: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]], image_size: int) -> None:
        self.folder, self.grey, self.lightness = folder, 0, list[float]()
        self._augment = Augment(image_size, train=False)
        there, photos = set(FolderPhotos(folder, "predictions").names), set(names)
        by_stem = {_stem(file): file for file in sorted(there - photos)}
        found = {name: name if name in there else by_stem.get(_stem(name)) for name in names}
        self._refuse([name for name, file in found.items() if file is None], names, "no picture for")
        self._photos = FolderPhotos(folder, "predictions", [file for file in found.values() if file])
        facts = self._photos.scan()
        self._refuse([f.name for f in facts if f.size is None], names, "unreadable")
        other = [
            f"{f.name} {f.size[1]}x{f.size[0]}, not {size[1]}x{size[0]}"
            for f, size in zip(facts, sizes, strict=True)
            if f.size and f.size != (image_size, image_size) and not _same_shape(f.size, size)
        ]
        self._refuse(other, names, "another shape than the photo in")

    def _refuse(self, which: Sequence[str], names: Sequence[str], what: str) -> None:
        if which:
            few = ", ".join(which[:3]) + (", ..." if len(which) > 3 else "")
            raise InputError(
                f"predictions={self.folder}: {what} {len(which)} of {len(names)} ({few}); there should be a picture "
                "for each photo, with its name, of its shape or the size of the crop"
            )

    def ab(self, indices: Sequence[int], lab: torch.Tensor) -> torch.Tensor:
        """Normalised ab (B, 2, S, S) of the pictures of these photos, whose truth is ``lab`` (B, 3, S, S)."""
        try:
            crops = np.stack([self._augment.cut(self._photos.read(i)) for i in indices])
        except Unreadable as error:
            raise InputError(f"predictions={self.folder}: {error}") from error
        found = color.rgb_to_lab(torch.from_numpy(crops).permute(0, 3, 1, 2)).to(lab.device)
        self.grey += int((found[:, 1:].abs().amax((1, 2, 3)) < GREY).sum())
        self.lightness += (found[:, 0] - lab[:, 0]).abs().mean((1, 2)).tolist()
        return color.split(found)[1]

    def remarks(self) -> list[str]:
        """Remarks for readers of the row; empty if there are none."""
        result, difference = [], float(np.mean(self.lightness))
        if self.grey:
            result.append(f"{self.grey} of {len(self.lightness)} pictures are grey")
        if difference > LIGHTNESS:
            result.append(f"their L* differs from the photos' by {difference:.1f} on average and was not used")
        return result


def _stem(name: str) -> str:
    """The name without the ending of a picture."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in EXTENSIONS else name


def _same_shape(size: tuple[int, int], photo: tuple[int, int]) -> bool:
    """Whether it is the photo at another size, a side rounded either way."""
    (h, w), (H, W) = size, photo
    return min(abs(h - H * w / W), abs(w - W * h / H)) <= 1
