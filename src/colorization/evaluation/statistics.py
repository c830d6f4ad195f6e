"""Bootstrap intervals over photos (Efron's percentile method), the only statistics that the tables use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# With fewer photos an interval says more about the photos than about the model.
FEWEST_PHOTOS = 10


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], photos: int, resamples: int, seed: int
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic under resampling of the photos.

    Args:
        statistic: maps (resamples, photos) positions, drawn with replacement, to (resamples,) values.
        photos: how many there are.
        resamples: how many times.
        seed: the same seed draws the same photos: intervals of one table are comparable.

    Returns:
        (low, high), or ``None`` with fewer than :data:`FEWEST_PHOTOS`.
    """
    if photos < FEWEST_PHOTOS:
        return None
    rng = np.random.default_rng(seed)
    # In pieces: 10,000 photos times 2,000 resamples would fill the memory.
    piece = max(1, 5_000_000 // photos)
    values = np.concatenate(
        [
            statistic(rng.integers(0, photos, (min(piece, resamples - start), photos)))
            for start in range(0, resamples, piece)
        ]
    )
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
