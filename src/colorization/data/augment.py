"""Augmentation with albumentations: geometry for the photo, damage for the grey input only."""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version on import

import albumentations as A
import cv2
import numpy as np
import torch

from colorization import color

cv2.setNumThreads(0)  # one thread a worker; OpenCV's own would fight with the others


class Augment:
    """From a photo to what a stage is given; every random choice follows from the seed of the call.

    Args:
        image_size: side of the square crop, pixels.
        train: random resized crop and flip, else short side to ``image_size`` and centre crop. The aspect ratio is
            kept in both.
        crop_scale: smallest and largest share of the photo's area that a training crop covers.
        flip: probability of a horizontal flip in training.
        damage: probability that the grey input gets the marks of an old photograph (grain, blur, fading, JPEG); the
            truth stays clean.
    """

    def __init__(
        self,
        image_size: int,
        train: bool,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: float = 0.5,
        damage: float = 0.0,
    ) -> None:
        self.image_size = image_size
        side = (image_size, image_size)
        if train:
            crop = A.RandomResizedCrop(side, scale=crop_scale, ratio=(1.0, 1.0), interpolation=cv2.INTER_AREA)
            self.geometry = A.Compose([crop, A.HorizontalFlip(p=flip)])
        else:
            self.geometry = A.Compose(
                [A.SmallestMaxSize(image_size, interpolation=cv2.INTER_AREA), A.CenterCrop(*side)]
            )
        self.damage = (
            A.Compose(
                [
                    A.GaussianBlur(blur_limit=(3, 5), sigma_limit=(0.3, 1.2), p=0.5),
                    A.RandomBrightnessContrast(brightness_limit=(-0.1, 0.25), contrast_limit=(-0.5, 0.1), p=0.7),
                    A.GaussNoise(std_range=(0.01, 0.06), p=0.7),
                    A.ImageCompression(quality_range=(35, 90), p=0.5),
                ],
                p=damage,
            )
            if damage > 0
            else None
        )

    def cut(self, rgb: np.ndarray, seed: int = 0) -> np.ndarray:
        """The crop alone: (H, W, 3) uint8 to (S, S, 3) uint8."""
        self.geometry.set_random_seed(seed)
        return self.geometry(image=rgb)["image"]

    def spoil(self, rgb: np.ndarray, seed: int) -> np.ndarray:
        """The damaged grey picture of a crop: (S, S, 3) uint8 to (S, S, 1) uint8."""
        assert self.damage is not None
        grey = color.grey_codes(rgb.transpose(2, 0, 1)).transpose(1, 2, 0)
        self.damage.set_random_seed(seed + 1)  # with the geometry's, grain would go with flip and crop
        return self.damage(image=grey)["image"].reshape(grey.shape)

    def batch(self, photos: Sequence[np.ndarray], seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """Photos of any size, (H, W, 3) uint8, and a seed for each, to ``rgb`` (B, 3, S, S) uint8 and, with damage,
        ``grey`` (B, 1, S, S) uint8. In memory the channels come last, as networks and the colour conversion like it.
        """
        rgb = np.empty((len(photos), self.image_size, self.image_size, 3), np.uint8)
        for row, photo, seed in zip(rgb, photos, seeds, strict=True):
            row[:] = self.cut(photo, seed)
        tensors = {"rgb": torch.from_numpy(rgb).permute(0, 3, 1, 2)}
        if self.damage is not None:
            grey = np.stack([self.spoil(row, seed) for row, seed in zip(rgb, seeds, strict=True)])
            tensors["grey"] = torch.from_numpy(grey).permute(0, 3, 1, 2)
        return tensors
