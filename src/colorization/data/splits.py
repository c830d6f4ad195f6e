"""Splits that are the same on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colorization.data.photos import Facts


def split_names(
    names: Sequence[str], fractions: Mapping[str, float], seed: int, digests: Sequence[str | None] | None = None
) -> dict[str, list[int]]:
    """Share out photos by a hash of seed and name.

    The order of the hashes, not of a random generator, decides: the split depends on nothing but the names and the
    seed, and a photo that is added moves few others. Photos of the same digest stay together, where the first of
    them by name belongs; the split that gets them may then have more than its share.

    Args:
        names: unique names.
        fractions: share of each split but the last, in order, e.g. ``{"val": 0.1, "test": 0.1, "train": 0.8}``; the
            last gets the rest.
        seed: any integer.
        digests: of each photo's content, ``None`` where it is not known; default: all differ.

    Returns:
        Positions in ``names`` of each split, sorted; disjoint; together all. With enough photos that differ no split
        is empty.
    """
    groups = same_content(names, digests or [None] * len(names))
    order = sorted(groups, key=lambda g: _rank(names[g[0]], seed), reverse=True)
    result: dict[str, list[int]] = {}
    keys = list(fractions)
    for key in keys[:-1]:
        count = round(fractions[key] * len(names))
        if fractions[key] > 0:
            count = max(1, count)
        chosen: list[int] = []
        while order and len(chosen) < count and (not chosen or len(order) >= len(keys) - len(result)):
            chosen += order.pop()
        result[key] = sorted(chosen)
    result[keys[-1]] = sorted(i for group in order for i in group)
    return result


def first_by_hash(names: Sequence[str], number: int, seed: int) -> list[int]:
    """Positions of ``number`` of the names, sorted; a larger number includes these, whatever other names there are."""
    return sorted(sorted(range(len(names)), key=lambda i: _rank(names[i], seed))[:number])


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(os.fsencode(f"{seed}:{name}")).digest()


def same_content(names: Sequence[str], digests: Sequence[str | None]) -> list[list[int]]:
    """Positions of photos, grouped by content, by name within a group."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i in sorted(range(len(names)), key=lambda i: names[i]):
        digest = digests[i]
        groups.setdefault(("name", names[i]) if digest is None else ("content", digest), []).append(i)
    return list(groups.values())


def identity(photo: Mapping[str, Any]) -> tuple[Any, ...]:
    """The identity of a photo in a ``split.json``: its content, or its name if the content is not known."""
    return (photo["digest"],) if photo.get("digest") else (photo["path"], photo["bytes"])


def by_identity(manifest: Mapping[str, Any], photos: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """The split that each of ``photos`` (as in a ``split.json``) has in a manifest; ``None`` for one not in it.

    A manifest without digests (of an earlier version) knows photos by name and size.
    """
    known: dict[tuple[Any, ...], str] = {}
    for photo in sorted(manifest["photos"], key=lambda p: p["split"] == "train"):  # last, so that it counts
        known[identity(photo)] = known[photo["path"], photo["bytes"]] = photo["split"]
    has_digests = any(photo.get("digest") for photo in manifest["photos"])
    return [known.get(identity(p) if has_digests else (p["path"], p["bytes"])) for p in photos]


def split_hash(manifest: Mapping[str, Any]) -> str:
    """A fingerprint (16 hex digits) of a ``split.json``: which photo, by name and size, is in which split."""
    digest = hashlib.sha256()
    for path, size, split in sorted((p["path"], p["bytes"], p["split"]) for p in manifest["photos"]):
        digest.update(os.fsencode(f"{path}\0{size}\0{split}\n"))
    return digest.hexdigest()[:16]


def data_hash(facts: Sequence[Facts]) -> str:
    """A fingerprint (16 hex digits) of a list of photos: their names and sizes in bytes."""
    digest = hashlib.sha256()
    for f in sorted(facts, key=lambda f: f.name):
        digest.update(os.fsencode(f"{f.name}\0{f.bytes}\n"))
    return digest.hexdigest()[:16]
