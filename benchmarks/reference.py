"""The plain way, as most tutorials do it: the yardstick of all benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.transform import resize
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


def colorize_plain(network: torch.nn.Module, source: Path, target: Path, size: int) -> None:
    """A photo file colorized with scikit-image at full resolution: Lab, the network on a reduced L, and back."""
    rgb = np.asarray(Image.open(source).convert("RGB"))
    lab = rgb2lab(rgb)
    scale = size / min(rgb.shape[:2])
    small = [max(32, round(n * scale)) for n in rgb.shape[:2]]
    L = resize(lab[..., 0] / 100, small, anti_aliasing=True)
    with torch.inference_mode():
        ab = network(torch.from_numpy(L.astype(np.float32))[None, None])[0].numpy().transpose(1, 2, 0) * 110
    result = lab2rgb(np.dstack((lab[..., :1], resize(ab, rgb.shape[:2], order=3))))
    Image.fromarray((result * 255).round().astype(np.uint8)).save(target, quality=92)
