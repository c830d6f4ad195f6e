"""A U-Net on a backbone that has learnt from ImageNet, with two kinds of head: ab itself, or a distribution over ab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from colorization.core import color
from colorization.core.errors import InputError
from colorization.networks import backbones
from colorization.networks.layers import BatchNorm2d, Level, adapted


class EncoderUNet(nn.Module):
    """A timm backbone as the encoder, a decoder with skip connections, and a 1x1 head (Ronneberger et al. 2015).

    The colours are computed at 1/``stride`` of the size and enlarged bilinearly: true ab at a sixteenth of the size
    still have ΔE2000 2.6, so the resolution of colour is not what limits. The mean of the deepest features is added
    before the head, as the global view of Iizuka et al. 2016.

    Args:
        encoder: name of a timm backbone that gives features at several sizes (``features_only``).
        stride: the size of the colours is 1/stride of the photo's, a power of two.
        widths: channels of the decoder's levels, from the deepest; as many are used as the stride needs.
        frozen_norms: whether the encoder's batch norms keep their statistics while it trains.
    """

    outputs = 2  # channels of the head

    def __init__(
        self,
        encoder: str = "tf_efficientnet_lite0",
        stride: int = 4,
        widths: Sequence[int] = (160, 96, 64, 48),
        frozen_norms: bool = False,
    ) -> None:
        super().__init__()
        backbone = backbones.create(encoder, "model.network.encoder", features_only=True)
        info = backbone.feature_info
        levels = dict(zip(info.reduction(), info.channels(), strict=True))  # size of the features -> channels
        skips = sorted((r for r in levels if stride <= r < max(levels)), reverse=True)
        if stride not in skips:
            raise InputError(
                f"model.network.stride={stride}: the features of {encoder} are at 1/"
                f"{', 1/'.join(map(str, levels))} of the size; give one of these but the last"
            )
        if len(widths) < len(skips):
            raise InputError(f"model.network.widths={list(widths)}: stride={stride} needs {len(skips)} of them")
        self.used = [list(levels).index(r) for r in (*skips, max(levels))]
        self.encoder = adapted(backbone)
        deepest = channels = levels[max(levels)]
        self.up = nn.ModuleList()
        self.entered: list[tuple[int, int]] = []  # by each level and by the head: at 1/n of the photo's size, channels
        for reduction, width in zip(skips, widths[: len(skips)], strict=True):
            self.up.append(Level(*_conv(channels + levels[reduction], width), *_conv(width, width)))
            self.entered.append((reduction, channels))
            channels = width
        self.entered.append((stride, channels))
        self.overview = nn.Linear(deepest, channels)
        self.head = nn.Conv2d(channels, self.outputs, 1)
        self.name, self.stride, self.frozen_norms = encoder, stride, frozen_norms
        self.grey = backbones.Grey(backbone)

    def train(self, mode: bool = True) -> EncoderUNet:
        """As every module, but for frozen norms, which stay in eval mode."""
        super().train(mode)
        if self.frozen_norms:
            for module in self.encoder.modules():
                if isinstance(module, BatchNorm2d):
                    module.eval()
        return self

    def raw(self, L: torch.Tensor, **given: Any) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to what the head gives: (B, outputs, h, w) float32, h and w about 1/stride.

        ``given``: what a network takes besides L, see its :meth:`decode`.
        """
        return self.decode(self.features(L), **given)

    def features(self, L: torch.Tensor) -> list[torch.Tensor]:
        """What the encoder sees: (B, C, h, w) at each size that the decoder uses, the deepest last."""
        levels = self.encoder(self.grey(L))
        return [levels[i] for i in self.used]

    def decode(self, features: Sequence[torch.Tensor], added: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        """:meth:`raw` from :meth:`features`; ``added`` to what enters each level before its skip, and to the head's."""
        *skips, x = features
        overview = self.overview(x.mean((2, 3)))[:, :, None, None]
        for i, (level, skip) in enumerate(zip(self.up, skips, strict=True)):
            # (To the skip's own size: an odd one is no multiple.)
            x = F.interpolate(x, skip.shape[-2:], mode="nearest")
            x = level(torch.cat((x if added is None else x + added[i], skip), 1))
        x = x + overview
        return self.head(x if added is None else x + added[-1]).float()

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 2, H, W) normalised ab."""
        return _enlarged(color.squash_ab(self.raw(L)), L)


class ClassUNet(EncoderUNet):
    """An :class:`EncoderUNet` that gives each place a distribution over classes of ab (Zhang et al. 2016, "Colorful
    image colorization"), so that doubt becomes a choice of colour instead of a mean of all, which is brown.

    Classes are the points of :func:`colorization.core.color.ab_grid`. Training makes rare colours count for more, by
    ``class_weights``; what that adds to a class is taken off again by a share of 1 - ``vividness``. The colour is the
    annealed mean, of the distribution to the power of 1/temperature, times ``chroma``.

    Args:
        grid: distance of the classes, Lab units.
        vividness: in [0, 1]: 0 the likeliest colours, 1 colours as bold as rebalancing makes them.
        temperature: above 0; below 1 colours are nearer to the likeliest class.
        chroma: above 0. A mean is paler than what it is the mean of; a factor gives back colour with fewer stains than
            more vividness does.
        others: see :class:`EncoderUNet`.

    Attributes:
        class_weights: (Q,) float32, what each class counted for in training; 0 where it never occurred, and no answer
            has it then. All 1 before training.
    """

    class_weights: torch.Tensor
    centres: torch.Tensor

    def __init__(
        self, *, grid: float, vividness: float, temperature: float, chroma: float = 1.0, **others: Any
    ) -> None:
        centres = torch.from_numpy(color.ab_grid(grid))
        self.outputs = len(centres)
        super().__init__(**others)
        if not 0 <= vividness <= 1:
            raise InputError(f"model.network.vividness={vividness}: should be between 0 and 1")
        for name, value in (("temperature", temperature), ("chroma", chroma)):
            if not value > 0:
                raise InputError(f"model.network.{name}={value}: should be above 0")
        self.vividness, self.temperature, self.chroma = vividness, temperature, chroma
        self.register_buffer("centres", centres / color.AB_SCALE, persistent=False)  # (Q, 2) normalised ab
        self.register_buffer("class_weights", torch.ones(len(centres)))

    def distribution(
        self, L: torch.Tensor, vividness: float | torch.Tensor = 0.0, **given: torch.Tensor
    ) -> torch.Tensor:
        """Log-probabilities of the classes at each place.

        Args:
            L: (B, 1, H, W) in [0, 1].
            vividness: 0 as often as in the photographs, 1 as rebalanced in training.
            given: see :meth:`raw`.

        Returns:
            (B, Q, h, w) float32; a class that training never saw has -inf.
        """
        return self.log_shares(self.raw(L, **given), vividness)

    def forward(
        self, L: torch.Tensor, vividness: float | torch.Tensor | None = None, **given: torch.Tensor
    ) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 2, H, W) normalised ab; ``vividness``: another one than the network's own."""
        return self.decoded(self.raw(L, **given), L, self.vividness if vividness is None else vividness)

    def log_shares(self, raw: torch.Tensor, vividness: float | torch.Tensor) -> torch.Tensor:
        """:meth:`distribution` of what :meth:`raw` gave."""
        return F.log_softmax(self._scores(raw, vividness), 1)

    def decoded(self, raw: torch.Tensor, L: torch.Tensor, vividness: float | torch.Tensor) -> torch.Tensor:
        """:meth:`forward` of what :meth:`raw` gave."""
        shares = (self._scores(raw, vividness) / self.temperature).softmax(1)
        ab = self.chroma * F.conv2d(shares, self.centres.T[:, :, None, None])
        return _enlarged(ab.clamp(-1, 1), L)

    def _scores(self, raw: torch.Tensor, vividness: float | torch.Tensor) -> torch.Tensor:
        """Log-probabilities up to a constant at each place."""
        shift = (vividness - 1) * self.class_weights.log()
        # (inf times 0 is no number.)
        shift = torch.where(self.class_weights > 0, shift, torch.full_like(shift, -torch.inf))
        return raw + shift[:, None, None]


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm2d(outputs), nn.ReLU()]


def _enlarged(ab: torch.Tensor, L: torch.Tensor) -> torch.Tensor:
    return F.interpolate(ab, L.shape[-2:], mode="bilinear", align_corners=False)
