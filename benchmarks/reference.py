"""The plain way, as most tutorials do it: the yardstick of all benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch.utils.data import Dataset


class PlainPhotos(Dataset[Any]):
    """Each photo by PIL -> square resize -> scikit-image's ``rgb2lab``; L and ab as float32 tensors in [0, 1], [-1, 1].

    Args:
        paths: the files.
        size: side of the square, pixels.
        train: random resized crop and flip as torchvision does them, instead of the resize.
    """

    def __init__(self, paths: Sequence[Path], size: int, train: bool = False) -> None:
        from torchvision.transforms import v2

        crop = [v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(1.0, 1.0)), v2.RandomHorizontalFlip()]
        self.paths, self.transform = paths, v2.Compose(crop if train else [v2.Resize((size, size))])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.transform(Image.open(self.paths[index]).convert("RGB"))
        lab = rgb2lab(np.asarray(image)).astype(np.float32).transpose(2, 0, 1)
        return torch.from_numpy(lab[:1] / 100), torch.from_numpy(lab[1:] / 110)
