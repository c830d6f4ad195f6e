"""A distribution over classes of ab that can be told colours: trained with points and palettes of the truth."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from colorization.core import color
from colorization.core.errors import InputError
from colorization.training.stages.distribution import DistributionStage

LARGEST_PATCH = 9  # side of the square around a point, pixels
FEW = 6  # colours at most of a palette as a person gives it


class HintedStage(DistributionStage):
    """Trains a :class:`colorization.networks.hinted.HintedUNet`.

    A share of the photos is colorized without help. For the others a number of points is drawn, from none to
    ``most_points``, and half of them get a palette.

    Args:
        most_points: points of a photo at most.
        alone: share of the photos without points and palette.
        settings: see :class:`.DistributionStage`.
    """

    def __init__(self, most_points: int = 16, alone: float = 0.5, **settings: Any) -> None:
        super().__init__(**settings)
        self.save_hyperparameters({"most_points": most_points, "alone": alone, **settings})
        if most_points < 1:
            raise InputError(f"model.most_points={most_points}: should be 1 or more")
        if not 0 <= alone <= 1:
            raise InputError(f"model.alone={alone}: should be between 0 and 1")
        self.most_points, self.alone = most_points, alone

    def given(self, L: torch.Tensor, ab: torch.Tensor) -> dict[str, torch.Tensor]:
        told = torch.rand(len(L), device=L.device) >= self.alone
        numbers = torch.randint(self.most_points + 1, (len(L),), device=L.device) * told
        with_palette = told & (torch.rand(len(L), device=L.device) < 0.5)
        return {
            "hints": revealed(L, ab, numbers, self.most_points),
            "palette": palettes(ab, self.network.stride) * with_palette[:, None],
        }


@torch.no_grad()
def revealed(L: torch.Tensor, ab: torch.Tensor, numbers: torch.Tensor, most: int) -> torch.Tensor:
    """Points of the truth, as a person might give them.

    Half of the places are drawn from a Gaussian around the middle, a quarter of the side wide (Zhang et al. 2017), half
    where the lightness changes. Each is a square of 1 to 9 pixels in its mean colour.

    Args:
        L: (B, 1, H, W).
        ab: (B, 2, H, W) normalised.
        numbers: (B,) int, of points.
        most: the largest of ``numbers`` there can be.

    Returns:
        (B, 3, H, W), see :meth:`colorization.networks.hinted.HintedUNet.decode`.
    """
    batch, _, height, width = L.shape
    slope = F.pad(L.diff(dim=2).abs(), (0, 0, 0, 1)) + F.pad(L.diff(dim=3).abs(), (0, 1))
    edges = torch.multinomial(slope.flatten(1) + 1e-3, most)
    middles = [
        (n / 2 + n / 4 * torch.randn(batch, most, device=L.device)).long().clamp(0, n - 1) for n in (height, width)
    ]
    at_edge = torch.rand(batch, most, device=L.device) < 0.5
    sides = torch.randint(1, LARGEST_PATCH + 1, (batch, most), device=L.device)
    chosen = torch.arange(most, device=L.device) < numbers[:, None]
    inside = []
    for n, middle, edge in zip((height, width), middles, (edges // width, edges % width), strict=True):
        first = (torch.where(at_edge, edge, middle) - sides // 2)[..., None]
        places = torch.arange(n, device=L.device)
        inside.append(((places >= first) & (places < first + sides[..., None]) & chosen[..., None]).to(ab))
    rows, columns = inside  # (B, most, H) and (B, most, W): the squares
    sizes = (rows.sum(2) * columns.sum(2)).clamp(min=1)
    colours = torch.einsum("bph,bchw,bpw->cbp", rows, ab, columns) / sizes
    given = torch.cat((colours, torch.ones_like(sizes)[None]))
    drawn = torch.einsum("cbp,bph,bpw->bchw", given, rows, columns)
    return drawn / drawn[:, 2:].clamp(min=1)  # where squares overlap their colours are averaged


@torch.no_grad()
def palettes(ab: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, 2, H, W) normalised ab to (B, PALETTE_LENGTH), see :func:`colorization.core.color.palette`: by chance of all
    places or of a few.
    """
    colours = color.AB_SCALE * F.avg_pool2d(ab.float(), stride).flatten(2).transpose(1, 2)
    batch, places, _ = colours.shape
    few = torch.randint(1, FEW + 1, (batch, 1), device=ab.device)
    ranks = torch.rand(batch, places, device=ab.device).argsort(1)
    whole = torch.rand(batch, 1, device=ab.device) < 0.5
    shares = torch.where(whole, torch.ones_like(ranks), ranks < few).float()
    return color.palette(colours, shares / shares.sum(1, keepdim=True))
