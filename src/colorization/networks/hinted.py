"""The classes of ab for somebody who knows a colour: points and a palette beside the photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from colorization.core import color
from colorization.networks.encoder_unet import ClassUNet

_WIDTH = 32  # of the layers in between
_UNIT = color.AB_SCALE / 40  # a strong colour counts in them as much as the mark that says where one is


class HintedUNet(ClassUNet):
    """A :class:`ClassUNet` that can be told colours (Zhang et al. 2017, "Real-time user-guided image colorization").

    Hints enter the decoder alone, at the sizes of its levels: another hint does not need the encoder again. What they
    and the palette add is exactly nothing where nothing is given, and at the start of training. So one set of weights
    colorizes alone and as it is told, and training can start from the weights of a :class:`ClassUNet`.

    Args:
        arguments: see :class:`ClassUNet`.
    """

    additions = ("hints", "palette")  # parts that weights to start from may lack

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.hints = nn.ModuleList(_from_nothing(nn.Conv2d, 3, c, kernel_size=3, padding=1) for _, c in self.entered)
        self.palette = nn.ModuleList(_from_nothing(nn.Linear, color.PALETTE_LENGTH, c) for _, c in self.entered)

    def decode(  # type: ignore[override]
        self,
        features: Sequence[torch.Tensor],
        hints: torch.Tensor | None = None,
        palette: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See :meth:`EncoderUNet.decode`.

        Args:
            features: of :meth:`features`.
            hints: (B, 3, H, W) normalised ab, and 1 where they are given, all 0 elsewhere.
            palette: (B, color.PALETTE_LENGTH), see :func:`colorization.core.color.palette`; all 0: none is given.
        """
        if hints is None and palette is None:
            return super().decode(features)
        added: list[Any] = [0] * len(self.entered)
        for i, (reduction, _) in enumerate(self.entered):
            if hints is not None:
                size = features[min(i, len(features) - 2)].shape[-2:]
                added[i] = added[i] + self.hints[i](_reduced(hints, reduction, size))
            if palette is not None:
                added[i] = added[i] + self.palette[i](palette)[:, :, None, None]
        return super().decode(features, added)


def _from_nothing(layer: Any, inputs: int, outputs: int, **how: Any) -> nn.Sequential:
    """Two layers that give 0 for 0, and for everything at first."""
    first, last = (layer(*sizes, bias=False, **how) for sizes in ((inputs, _WIDTH), (_WIDTH, outputs)))
    nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.ReLU(), last)


def _reduced(hints: torch.Tensor, by: int, size: Sequence[int]) -> torch.Tensor:
    """(B, 3, h, w): the mean of the colours that are given in each square of by x by, and 1 where there are any."""
    pooled = F.avg_pool2d(hints, by, ceil_mode=True)
    there = pooled[:, 2:]
    marked = (there > 0).to(hints)
    colours = _UNIT * pooled[:, :2] / (there + (1 - marked))  # (the mark's mean is 0 only where the colours' is)
    return F.interpolate(torch.cat((colours, marked), 1), size, mode="nearest")
