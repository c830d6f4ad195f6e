"""A classifier as the judge of colours: does it know what a colorized photograph shows?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import ImageNetInfo

from colorization.networks import backbones

TOP1_FORM = (
    "share of the photos whose path names a synset of ImageNet (n01440764, ...) that the classifier puts there first, "
    "as Zhang et al. 2016 test the meaning of colours; each photo enlarged to the classifier's own size"
)
_SYNSET = re.compile(r"(?<![0-9A-Za-z])n\d{8}(?!\d)")


class Judge:
    """A timm classifier with ImageNet's weights.

    Args:
        name: timm's; of a kind that no row's encoder is, or that row flatters itself.
        device: where it runs.

    Raises:
        InputError: there is none of that name, or its weights cannot be had.
    """

    def __init__(self, name: str, device: str) -> None:
        network = backbones.create(name, "judge")
        backbones.load_pretrained(network, name, "imagenet", "judge")
        self.name, self._network = name, network.eval().to(device)
        self._side = int(network.pretrained_cfg["input_size"][-1])
        self._mean, self._std = (torch.tensor(network.pretrained_cfg[k], device=device) for k in ("mean", "std"))
        self._classes = {synset: i for i, synset in enumerate(ImageNetInfo().label_names())}

    def label(self, path: str) -> int | None:
        """The class that a photo's path names, if it does; the last one that ImageNet's thousand have."""
        found = [self._classes[s] for s in _SYNSET.findall(path) if s in self._classes]
        return found[-1] if found else None

    def top1(self, rgb: torch.Tensor, labels: Sequence[int | None]) -> torch.Tensor:
        """Of each photo 100 if it is put into its class first, else 0; NaN without a label.

        Args:
            rgb: (B, 3, H, W) in [0, 1].
            labels: of each photo, see :meth:`label`.

        Returns:
            (B,) float32.
        """
        result = torch.full((len(rgb),), torch.nan, device=rgb.device)
        known = [i for i, label in enumerate(labels) if label is not None]
        if known:
            side: Any = (self._side, self._side)
            shown = F.interpolate(rgb[known], side, mode="bicubic", antialias=True).clamp(0, 1)
            logits = self._network((shown - self._mean[:, None, None]) / self._std[:, None, None])
            right = logits.argmax(1) == torch.tensor([labels[i] for i in known], device=rgb.device)
            result[known] = 100 * right.float()
        return result
