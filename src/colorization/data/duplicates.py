"""Photos that look alike: copies that were scaled, recompressed or slightly retouched."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

BITS = 128
ALIKE = 8  # bits may differ; those of other photographs differ in about half
_ROWS = 256  # compared with all others at a time


def fingerprint(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 to (128,) bool: whether each of 8x8 places is darker than the next to the right, and below.

    (Krawetz's dHash in both directions. A small change of the reduced lightness changes few bits.)
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (9, 9), interpolation=cv2.INTER_AREA)
    return np.stack([grey[:8, 1:] > grey[:8, :8], grey[1:, :8] > grey[:8, :8]]).ravel()


def fingerprints(photos: Any) -> np.ndarray:
    """(N, 128) bool of the photos of a set; each is decoded once, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = pool.map(lambda i: fingerprint(photos.read(i)), range(len(photos.names)))
        return np.stack(list(tqdm(read, "fingerprints", len(photos.names), unit="photo", disable=None, delay=2)))


def alike(prints: np.ndarray) -> list[tuple[int, int]]:
    """Pairs i < j of fingerprints (N, 128) that differ in at most :data:`ALIKE` bits."""
    signs = np.where(prints, np.float32(1), np.float32(-1))  # their product is 128 less twice the bits that differ
    pairs = []
    for start in range(0, len(signs), _ROWS):
        near = signs[start : start + _ROWS] @ signs[start:].T >= BITS - 2 * ALIKE
        pairs += [(start + i, start + j) for i, j in np.argwhere(near).tolist() if i < j]
    return pairs
