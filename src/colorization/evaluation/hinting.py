"""Points of the truth that a model is told in an evaluation, so that it can be asked what help is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from colorization.core import color

MOST = 500  # points of a photo
SIDE = 7  # of the square that a point covers, pixels


def revealed(lab: torch.Tensor, indices: Sequence[int], number: int) -> torch.Tensor:
    """Squares in their mean colour, as Zhang et al. 2017 ("Real-time user-guided image colorization") reveal them.

    Places are drawn evenly, of each photo the same for all models; a few points are the first of more.

    Args:
        lab: (B, 3, H, W) true Lab.
        indices: the photos' numbers in the test split.
        number: of points, 0 to :data:`MOST`.

    Returns:
        (B, 3, H, W) on the device of ``lab``: normalised ab, and 1 where it is given, see
        :meth:`colorization.networks.hinted.HintedUNet.decode`.
    """
    height, width = lab.shape[-2:]
    ab = lab[:, 1:].cpu() / color.AB_SCALE
    hints = torch.zeros(len(lab), 3, height, width)
    for photo, truth, index in zip(hints, ab, indices, strict=True):
        places = np.random.default_rng(index).random((MOST, 2))[:number]
        for y, x in (places * (height, width)).astype(int):
            rows, columns = (slice(max(0, n - SIDE // 2), n + SIDE // 2 + 1) for n in (y, x))
            colour = torch.cat((truth[:, rows, columns].mean((1, 2)), torch.ones(1)))
            photo[:, rows, columns] = colour[:, None, None]
    return hints.to(lab.device)
