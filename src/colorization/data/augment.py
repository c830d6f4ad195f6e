"""Augmentation with albumentations: geometry for the photo, damage for the grey input only."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version on import

import albumentations as A
import cv2
import numpy as np
import torch

from colorization.core import color

cv2.setNumThreads(0)  # one thread a worker; OpenCV's own would fight with the others


_FONTS = (cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL, cv2.FONT_HERSHEY_SIMPLEX)
_LETTERS = np.array(list("abcdefghijklmnoprstuvwz ABCDEGHKLMS 0123456789 .,"))


def framed(rgb: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A photo as it lies in an archive: with a paper border or mount, torn or straight, perhaps a caption.

    Everything but the photo is neutral: a network learns to leave it so.

    Args:
        rgb: (H, W, 3) uint8.
        generator: of all choices.

    Returns:
        (H, W, 3) uint8, a new array; the photo keeps its scale and loses the part under the paper.
    """
    height, width = rgb.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    paper = np.zeros((height, width), bool)
    torn = generator.random() < 0.3
    bottom = 0
    sides = (
        (height, width, rows),
        (height, width, height - 1 - rows),
        (width, height, columns),
        (width, height, width - 1 - columns),
    )
    for i, (across, along, position) in enumerate(sides):
        if generator.random() < 0.15:  # cut off in the scan
            continue
        border: np.ndarray | float = across * generator.uniform(0.02, 0.18)
        if torn:
            knots = generator.normal(0, 0.015 * across, 8 + along // 8)
            edge = np.interp(np.arange(along), np.linspace(0, along, len(knots)), knots)
            border = border + (edge[None, :] if i < 2 else edge[:, None])
        if i == 1:
            bottom = int(np.mean(border))
        paper |= position < border
    if generator.random() < 0.2:  # a missing corner
        size = generator.uniform(0.1, 0.35) * min(height, width)
        down, right = generator.random(2) < 0.5
        paper |= np.where(down, height - 1 - rows, rows) + np.where(right, width - 1 - columns, columns) < size

    light = generator.random() < 0.8  # else a dark album
    level = generator.uniform(170, 255) if light else generator.uniform(10, 80)
    coarse = cv2.resize(generator.normal(0, 6, (4, 4)).astype(np.float32), (width, height))  # unevenly yellowed or lit
    tone = level + coarse + generator.normal(0, generator.uniform(0, 4), (height, width))
    if bottom > 6 and generator.random() < 0.5:
        text = "".join(generator.choice(_LETTERS, 24))
        ink = np.zeros((height, width), np.uint8)
        place = int(generator.uniform(0, 0.3) * width), height - max(2, bottom // 3)
        font = _FONTS[int(generator.integers(len(_FONTS)))]
        cv2.putText(ink, text, place, font, bottom / 60 + 0.15, 255.0, 1, cv2.LINE_AA)
        tone = tone + (ink / 255) * ((60 if light else 200) - tone)
    if generator.random() < 0.3:  # the shadow or a drawn line at the edge of the photo
        edge = cv2.dilate(paper.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~paper
        paper = paper | edge
        tone = np.where(edge, generator.uniform(0, 255), tone)
    return np.where(paper[..., None], np.rint(tone).clip(0, 255).astype(np.uint8)[..., None], rgb)


class Augment:
    """From a photo to the input of a stage; every random choice follows from the seed of the call.

    Args:
        image_size: side of the square crop, pixels.
        train: random resized crop and flip, else short side to ``image_size`` and centre crop. The aspect ratio is
            kept in both.
        crop_scale: smallest and largest share of the photo's area that a training crop covers.
        flip: probability of a horizontal flip in training.
        damage: probability that the grey input gets the marks of an old photograph (grain, blur, fading, JPEG); the
            truth stays clean.
        frames: probability that a training photo gets a paper border or mount, see :func:`framed`.
    """

    def __init__(
        self,
        image_size: int,
        train: bool,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: float = 0.5,
        damage: float = 0.0,
        frames: float = 0.0,
    ) -> None:
        self.image_size, self.frames = image_size, frames
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
                    A.GaussNoise(std_range=(0.01, 0.06), noise_scale_factor=0.5, p=0.7),  # grain is larger than a pixel
                    A.ImageCompression(quality_range=(35, 90), p=0.5),
                ],
                p=damage,
            )
            if damage > 0
            else None
        )

    def cut(self, rgb: np.ndarray) -> np.ndarray:
        """The crop alone: (H, W, 3) uint8 to (S, S, 3) uint8."""
        return self.geometry(image=rgb)["image"]

    def batch(self, photos: Sequence[np.ndarray], seeds: Sequence[int | Sequence[int]]) -> dict[str, torch.Tensor]:
        """Photos of any size, (H, W, 3) uint8, and a seed for each, to ``rgb`` (B, 3, S, S) uint8 and, with damage,
        ``grey`` (B, 1, S, S) uint8. In memory the channels come last, as networks and the colour conversion like it.
        """
        side = self.image_size
        rgb = np.empty((len(photos), side, side, 3), np.uint8)
        grey = np.empty((len(photos), side, side, 1), np.uint8)
        for i, (photo, seed) in enumerate(zip(photos, seeds, strict=True)):
            # One stream of random numbers for both: with the same seed for each, grain would go with flip and crop.
            generator = np.random.default_rng(seed)
            states = generator, random.Random(int(generator.integers(2**63)))
            self.geometry.set_random_state(*states)
            rgb[i] = self.cut(photo)
            if self.frames and generator.random() < self.frames:
                rgb[i] = framed(rgb[i], generator)
            if self.damage is not None:
                self.damage.set_random_state(*states)
                clean = color.grey_codes(rgb[i].transpose(2, 0, 1))[0]
                grey[i, ..., 0] = self.damage(image=clean)["image"]
        tensors = {"rgb": rgb} if self.damage is None else {"rgb": rgb, "grey": grey}
        return {k: torch.from_numpy(v).permute(0, 3, 1, 2) for k, v in tensors.items()}
