"""What else a photo may look like: colours that a model thinks possible at a place, and other whole answers.

Both need weights with a distribution over colours; other answers need weights that take hints, too. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from colorization.core import color

APART = 25.0  # Lab units between two colours that are suggested
WITHIN = 15.0  # of a colour's share: what is so near to it
SMALLEST_SHARE = 0.02  # of a colour that is suggested
ANCHORS = 8  # places of which an answer draws the colours
RADIUS = 0.04  # of an anchor, share of the short side


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


def drawn(colorizer: Any, L: np.ndarray, settings: Any, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Hints that make one possible answer of a photo, each drawn as the model thinks of it given those before.

    The next place is always the one of which the model is least sure, so the first colours decide most (the anchors of
    Xia et al. 2022, "Disentangled image colorization via global anchors").

    Args:
        colorizer: a :class:`.colorizer.Colorizer` of one set of weights.
        L: (1, 1, h, w) float32 in [0, 1].
        settings: :class:`.colorizer.Settings`, whose hints and palette hold for every answer.
        generator: what draws.

    Returns:
        ``hints`` and what else is given, for :meth:`.colorizer.Colorizer.answer`.
    """
    height, width = L.shape[2:]
    given = colorizer.given(L, settings)
    hints = given.get("hints", np.zeros((1, 3, height, width), np.float32)).copy()
    centres = color.ab_grid(colorizer.description["network"]["grid"])
    free = np.ones((height, width), bool)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(ANCHORS):
        (log_shares,) = colorizer.backends[0].distribution(L, **{**given, "hints": hints})
        doubt = color.spread(log_shares, centres)
        tall, wide = doubt.shape
        at = free[np.ix_(np.arange(tall) * height // tall, np.arange(wide) * width // wide)]
        if not at.any():
            break
        y, x = np.unravel_index(np.where(at, doubt, -1).argmax(), doubt.shape)
        shares = np.exp(log_shares[:, y, x].astype(np.float64))
        colour = centres[generator.choice(len(centres), p=shares / shares.sum())]
        middle = (y + 0.5) * height / tall, (x + 0.5) * width / wide
        distances = np.hypot(rows - middle[0], columns - middle[1])
        inside = distances <= max(1.5, RADIUS * min(height, width))
        hints[0][:, inside] = np.array([*colour / color.AB_SCALE, 1], np.float32)[:, None]
        free &= distances > 4 * RADIUS * min(height, width)
    return {**given, "hints": hints}
