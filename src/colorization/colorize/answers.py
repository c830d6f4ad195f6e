"""What else a photo may look like: colours that a model thinks possible at a place, and other whole answers.

Both need weights with a distribution over colours; other answers need weights that take hints, too. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colorization.colorize.hints import Hint, as_given
from colorization.core import color
from colorization.models.backends import Backend

APART = 25.0  # Lab units between two colours that are suggested
WITHIN = 15.0  # of a colour's share: what is so near to it
SMALLEST_SHARE = 0.02  # of a colour that is suggested
ANCHORS = 6  # places of which an answer draws the colours
LIKELY = 0.1  # share of a colour that is drawn: rarer ones made spots
RADIUS = 0.04  # of an anchor, share of the short side
APART_BY = 0.16  # between two anchors, share of the short side


@dataclass(frozen=True)
class Suggestion:
    """A colour that a model thinks possible at a place.

    Attributes:
        ab: a* and b*, Lab units.
        share: the model's probability of colours like it, in [0, 1].
    """

    ab: tuple[float, float]
    share: float


def suggestions(shares: np.ndarray, centres: np.ndarray, most: int) -> list[Suggestion]:
    """The modes of a distribution over colours, the likeliest first.

    Args:
        shares: (Q,) probabilities.
        centres: (Q, 2) a*b* of the classes, Lab units.
        most: how many at most.
    """
    found: list[Suggestion] = []
    left = shares.astype(np.float64)
    distances = np.linalg.norm(centres[:, None] - centres, axis=2)
    while len(found) < most and left.max() > 0:
        best = int(left.argmax())
        near = distances[best] < WITHIN
        share = float(shares[near].sum())
        if found and share < SMALLEST_SHARE:
            break
        a, b = shares[near] @ centres[near] / share
        found.append(Suggestion((float(a), float(b)), share))
        left[distances[best] < APART] = 0
    return sorted(found, key=lambda one: -one.share)


def drawn(
    backend: Backend, L: np.ndarray, known: Sequence[Hint], palette: Sequence[str], generator: np.random.Generator
) -> tuple[Hint, ...]:
    """Hints that make one possible answer of a photo, each drawn as the model thinks of it given those before.

    The next place is always the one of which the model is least sure, so the first colours decide most (the anchors of
    Xia et al. 2022, "Disentangled image colorization via global anchors").

    Args:
        backend: weights that take hints and have a distribution.
        L: (1, 1, h, w) float32 in [0, 1].
        known, palette: what a person gave, which holds for every answer.
        generator: what draws.
    """
    height, width = L.shape[2:]
    centres = color.ab_grid(backend.description["network"]["grid"])
    hints: tuple[Hint, ...] = ()
    for _ in range(ANCHORS):
        (log_shares,) = backend.distribution(L, **as_given((*known, *hints), palette, height, width))
        doubt = color.spread(log_shares, centres)
        ys, xs = ((np.arange(n) + 0.5) / n for n in doubt.shape)
        for hint in hints:
            distance = np.hypot((ys[:, None] - hint.y) * height, (xs - hint.x) * width)
            doubt[distance < APART_BY * min(height, width)] = -1
        y, x = np.unravel_index(doubt.argmax(), doubt.shape)
        if doubt[y, x] < 0:
            break
        modes = suggestions(np.exp(log_shares[:, y, x].astype(np.float64)), centres, len(centres))
        weights = np.array([m.share * (m.share >= LIKELY or m is modes[0]) for m in modes])
        mode = modes[generator.choice(len(modes), p=weights / weights.sum())]
        lightness = 100 * float(L[0, 0, int(ys[y] * height), int(xs[x] * width)])
        hints += (Hint(float(xs[x]), float(ys[y]), shown(lightness, mode.ab), RADIUS),)
    return hints


def shown(lightness: float, ab: tuple[float, float]) -> str:
    """``#rrggbb`` of a colour at a lightness, both in Lab units, with less chroma where sRGB has not so much."""
    lab = color.fit_to_gamut(np.array([lightness, *ab], np.float32)[:, None, None])
    codes = np.rint(255 * color.lab_to_rgb(lab)[:, 0, 0].clip(0, 1)).astype(int)
    return "#{:02x}{:02x}{:02x}".format(*codes)
