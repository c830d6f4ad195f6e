"""Where a model was guessing: how far its answers lie apart, as a map and as a picture. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

# One model is asked again for the photo mirrored and enlarged by this: of the changes tried these two told the error
# best for what they cost; brighter, darker or flatter photos told nothing (experiments/uncertainty).
ENLARGED = 1.5
# Disagreement (Lab units) at the bright end of the heat map, the same for all pictures.
BRIGHTEST = 32.0

_COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO).reshape(256, 3)[:, ::-1]


def _resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(..., h, w) float32 to (..., height, width)."""
    way = cv2.INTER_AREA if height < x.shape[-2] else cv2.INTER_CUBIC
    planes = [cv2.resize(plane, (width, height), interpolation=way) for plane in x.reshape(-1, *x.shape[-2:])]
    return np.stack(planes).reshape(*x.shape[:-2], height, width)


def mirrored(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a network takes besides L, for the mirror image: maps, (N, C, h, w), are mirrored."""
    return {k: np.ascontiguousarray(v[..., ::-1]) if _is_map(v) else v for k, v in given.items()}


def _enlarged(given: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """The same for the photo at another size. Maps keep their values: what is given at a place is a mark, too."""
    rows, columns = np.arange(height), np.arange(width)
    return {
        k: v[..., (rows * v.shape[2] // height)[:, None], columns * v.shape[3] // width] if _is_map(v) else v
        for k, v in given.items()
    }


def _is_map(value: Any) -> bool:
    return np.ndim(value) == 4


def augmented(answer: Callable[..., np.ndarray], L: np.ndarray, given: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """What one model says of a photo, of its mirror image and of the photo enlarged by :data:`ENLARGED`.

    Args:
        answer: (N, 1, h, w) float32 in [0, 1], and ``given``, to (1, N, 2, h, w) float32, for any h, w.
        L: (N, 1, h, w).
        given: what the model takes besides, by name.

    Returns:
        (3, N, 2, h, w), all of them turned back.
    """
    height, width = L.shape[-2:]
    larger = _resized(L, round(height * ENLARGED), round(width * ENLARGED)).clip(0, 1)
    of_mirror = answer(np.ascontiguousarray(L[..., ::-1]), **mirrored(given))[..., ::-1]
    of_larger = answer(larger, **_enlarged(given, *larger.shape[-2:]))
    return np.concatenate((answer(L, **given), of_mirror, _resized(of_larger, height, width)))


def heat_map(disagreement: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture of a map, on a scale that is the same for all photos: black where all answers agree, yellow where they
    are :data:`BRIGHTEST` apart or more, logarithmic between (log(1 + d) / log(1 + BRIGHTEST), OpenCV's inferno).

    Args:
        disagreement: (h, w) Lab units, see :func:`colorization.core.color.disagreement`.
        height, width: of the picture.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    share = np.log1p(disagreement) / np.log1p(BRIGHTEST)
    # Enlarged as bytes, which for a hundred megapixels take a tenth of the memory of what would follow.
    codes = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
    enlarged = cv2.resize(codes, (width, height), interpolation=cv2.INTER_LINEAR)
    return _COLOURS[enlarged]
