"""Splits that are the same on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

from colorization.data.photos import Facts


def split_names(names: Sequence[str], fractions: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Share out photos by a hash of seed and name.

    The order of the hashes, not of a random generator, decides: the split depends on nothing but the names and the
    seed, and a photo that is added moves few others.

    Args:
        names: unique names.
        fractions: share of each split but the last, in order, e.g. ``{"val": 0.1, "test": 0.1, "train": 0.8}``; the
            last gets the rest.
        seed: any integer.

    Returns:
        Positions in ``names`` of each split, sorted; disjoint; together all. With enough photos no split is empty.
    """
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(os.fsencode(f"{seed}:{names[i]}")).digest())
    result: dict[str, list[int]] = {}
    start = 0
    keys = list(fractions)
    for key in keys[:-1]:
        count = round(fractions[key] * len(names))
        if fractions[key] > 0:
            count = max(1, count)
        result[key] = sorted(order[start : start + count])
        start += count
    result[keys[-1]] = sorted(order[start:])
    return result


def data_hash(facts: Sequence[Facts]) -> str:
    """A fingerprint (16 hex digits) of a list of photos: their names and sizes in bytes."""
    digest = hashlib.sha256()
    for f in sorted(facts, key=lambda f: f.name):
        digest.update(os.fsencode(f"{f.name}\0{f.bytes}\n"))
    return digest.hexdigest()[:16]
