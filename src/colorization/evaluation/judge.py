"""A classifier as the judge of colours: does it know what a colorized photograph shows?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from colorization.core import color
from colorization.evaluation.rows import Row
from colorization.evaluation.scoring import Collector, Scored
from colorization.models import pretrained
from colorization.networks import backbones

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
        from timm.data import ImageNetInfo

        network = backbones.create(name, "judge")
        pretrained.fill_backbone(network, name, "imagenet", "judge")
        self.name, self._network = name, network.eval().to(device)
        self._side = int(network.pretrained_cfg["input_size"][-1])
        self._mean, self._std = (torch.tensor(network.pretrained_cfg[k], device=device) for k in ("mean", "std"))
        self._classes = {synset: i for i, synset in enumerate(ImageNetInfo().label_names())}

    def label(self, path: str) -> int | None:
        """The class that a photo's path names, if it does; the last one that ImageNet's thousand have."""
        found = [self._classes[s] for s in _SYNSET.findall(path) if s in self._classes]
        return found[-1] if found else None

    def see(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What it makes of photos, each enlarged to its own size: (B, 3, H, W) in [0, 1] to the features that it
        classifies by, (B, F) float32, and the logits, (B, 1000)."""
        side: Any = (self._side, self._side)
        shown = F.interpolate(rgb, side, mode="bicubic", antialias=True).clamp(0, 1)
        maps = self._network.forward_features((shown - self._mean[:, None, None]) / self._std[:, None, None])
        features = self._network.forward_head(maps, pre_logits=True)
        return features, self._network.get_classifier()(features)


class Judged(Collector):
    """The metrics ``top1`` and, of the truths, ``true_top1``; ``row.kid``, if there is more than one photo.

    Args:
        rows: the first gets ``true_top1``.
        judge: sees them all.
        names: of the photos, which name their classes.
    """

    def __init__(self, rows: Sequence[Row], judge: Judge, names: Sequence[str]) -> None:
        super().__init__(rows)
        self.judge, self.names = judge, names
        self._features: list[list[torch.Tensor]] = [[] for _ in range(len(rows) + 1)]  # of the truths and each row

    def add(self, batch: Scored) -> None:
        labels = [self.judge.label(self.names[index]) for index in batch.indices]
        of_all = [(batch.values[0], "true_top1", batch.lab)]
        of_all += [(v, "top1", p) for v, p in zip(batch.values, batch.predictions, strict=True)]
        for features_of_row, (values, name, lab) in zip(self._features, of_all, strict=True):
            features, logits = self.judge.see(color.lab_to_rgb(lab))
            values[name] = top1(logits, labels)
            features_of_row.append(features)

    def finish(self) -> None:
        truths, *others = (torch.cat(features) for features in self._features)
        if len(truths) > 1:
            for row, features in zip(self.rows, others, strict=True):
                row.kid = {"mean": kernel_distance(truths, features), "judge": self.judge.name}


def top1(logits: torch.Tensor, labels: Sequence[int | None]) -> torch.Tensor:
    """Of each photo 100 if it is put into its class first, else 0; NaN without a label. (B, C) to (B,) float32."""
    true = torch.tensor([-1 if label is None else label for label in labels], device=logits.device)
    right = 100 * (logits.argmax(1) == true).float()
    return right.masked_fill(true < 0, torch.nan)


def kernel_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far two sets of photos lie apart, :data:`colorization.evaluation.catalog.KID_FORM`.

    Args:
        a, b: features, (N, F) and (M, F); two or more each.
    """

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.size(1) + 1) ** 3

    def within(x: torch.Tensor) -> torch.Tensor:
        k = kernel(x, x)
        return (k.sum() - k.trace()) / (len(x) * (len(x) - 1))

    a, b = a.double(), b.double()
    return 1000 * float(within(a) + within(b) - 2 * kernel(a, b).mean())
