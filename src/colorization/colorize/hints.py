"""Colours that a person gives: points and a palette, in the picture, in a file and in what the network takes.

Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageColor

from colorization.core import atomic, color
from colorization.core.errors import InputError

FORMAT_VERSION = 1  # of the file
SMALLEST_SIDE = 3  # of a point, pixels of what the network sees
# How far a colour spreads over an even object, as a share of the short side. An edge is as far as this many times the
# short side for a step of 1 in lightness (L* / 100) and the network's own colours (normalised ab); grain is no edge.
REACH, EDGE, GRAIN = 0.5, 4.0, 0.015
_MOST_PLACES = 1_000_000  # hints times pixels; of more hints or pixels the change is computed at a smaller size
_SWEEPS = 4  # in each direction; a path that winds more often is a little too long


def parsed_colour(text: str) -> str:
    """``#rrggbb`` of a colour as CSS writes it (``#3b5a8c``, ``navy``, ``rgb(59, 90, 140)``). Raises ``InputError``."""
    try:
        return "#" + bytes(ImageColor.getrgb(str(text).strip())[:3]).hex()  # rgb(300, 0, 0) is no colour either
    except ValueError as error:
        raise InputError(f"colour {text!r}: should be like #3b5a8c or a name of CSS, e.g. navy") from error


def ab_of(colour: str) -> np.ndarray:
    """(2,) float32 a*b* in Lab units of ``#rrggbb``."""
    rgb = np.array(ImageColor.getrgb(colour), np.uint8)[:, None, None]
    return color.rgb_to_lab(rgb)[1:, 0, 0]


@dataclass(frozen=True)
class Hint:
    """The colour at a place. Only its a* and b* count: the lightness is the photo's.

    Attributes:
        x, y: place in the upright photo, as shares of its width and height, in [0, 1].
        colour: as CSS writes it.
        radius: of the point, as a share of the short side, in [0, 0.5].

    Raises:
        InputError: a value that cannot work.
    """

    x: float
    y: float
    colour: str
    radius: float = 0.02

    def __post_init__(self) -> None:
        for name, high in (("x", 1), ("y", 1), ("radius", 0.5)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
                raise InputError(f"hint: {name}={value}: should be a number from 0 to {high:g}")
        object.__setattr__(self, "colour", parsed_colour(self.colour))

    @classmethod
    def parse(cls, text: str, width: int, height: int) -> Hint:
        """A hint from ``120,340,#3b5a8c`` (pixels of the upright photo) or ``0.4,0.2,navy`` (shares of its size).

        Raises:
            InputError: it is neither, or lies outside.
        """
        found = re.fullmatch(r"\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*(.+)", text)
        try:
            if found is None:
                raise ValueError
            places = [float(n) if "." in n else (int(n) + 0.5) / s for n, s in zip(found.groups(), (width, height))]  # noqa: B905
        except ValueError as error:
            raise InputError(f"hint {text!r}: should be like 120,340,#3b5a8c or 0.4,0.2,navy") from error
        if max(places) > 1:
            raise InputError(f"hint {text!r}: lies outside of the photo, which has {width}x{height} pixels")
        return cls(places[0], places[1], found[3])

    def disc(self, height: int, width: int) -> tuple[slice, slice, np.ndarray]:
        """Rows and columns of (height, width) that hold the point, and (rows, columns) bool: what it covers of them."""
        radius = max(SMALLEST_SIDE / 2, self.radius * min(height, width))
        y, x = (min(int(s * n), n - 1) for s, n in ((self.y, height), (self.x, width)))
        reach = math.ceil(radius)
        top, left = max(0, y - reach), max(0, x - reach)
        rows, columns = np.ogrid[top : min(height, y + reach + 1), left : min(width, x + reach + 1)]
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        return slice(top, top + len(inside)), slice(left, left + inside.shape[1]), inside


def in_centre(hints: Sequence[Hint], height: int, width: int) -> tuple[Hint, ...]:
    """Those within the largest square in the middle of a photo of this size, at their places in that square."""
    side = min(height, width)
    places = [(0.5 + (h.x - 0.5) * width / side, 0.5 + (h.y - 0.5) * height / side) for h in hints]
    return tuple(replace(h, x=x, y=y) for h, (x, y) in zip(hints, places, strict=True) if 0 <= x <= 1 and 0 <= y <= 1)


def as_given(hints: Sequence[Hint], palette: Sequence[str], height: int, width: int) -> dict[str, np.ndarray]:
    """What a :class:`colorization.networks.hinted.HintedUNet` takes of them, for a photo of this working size."""
    given = {}
    if hints:
        drawn = np.zeros((1, 3, height, width), np.float32)
        for hint in hints:
            rows, columns, inside = hint.disc(height, width)
            drawn[0, :, rows, columns][:, inside] = np.array([*ab_of(hint.colour) / color.AB_SCALE, 1])[:, None]
        given["hints"] = drawn
    if palette:
        colours = np.stack([ab_of(parsed_colour(c)) for c in palette])
        shares = np.full(len(colours), 1 / len(colours), np.float32)
        given["palette"] = color.palette(colours, shares)[None]
    return given


def spread(ab: np.ndarray, L: np.ndarray, hints: Sequence[Hint]) -> np.ndarray:
    """The colours of a network with those of the hints exactly at their places, spread to what lies around them.

    What is missing at each point is added to its surroundings, the less the farther they are along the best way that
    avoids edges of the lightness and of the network's own colours (a geodesic distance, as Yatziv and Sapiro 2006).

    Args:
        ab: (2, h, w) float32 normalised.
        L: (h, w) float32 in [0, 1].
        hints: at least one.

    Returns:
        (2, h, w) float32 normalised.
    """
    scale = math.sqrt(_MOST_PLACES / (len(hints) * L.size))
    if scale >= 1:
        change = _change(ab, L, hints)
    else:
        small = max(SMALLEST_SIDE, round(L.shape[1] * scale)), max(SMALLEST_SIDE, round(L.shape[0] * scale))
        reduced = [cv2.resize(plane, small, interpolation=cv2.INTER_AREA) for plane in (*ab, L)]
        change = _change(np.stack(reduced[:2]), reduced[2], hints)
        change = np.stack([cv2.resize(plane, L.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in change])
    told = (ab + change).astype(np.float32).clip(-1, 1)
    for hint in hints:
        rows, columns, inside = hint.disc(*L.shape)
        told[:, rows, columns][:, inside] = (ab_of(hint.colour) / color.AB_SCALE)[:, None]
    return told


def _change(ab: np.ndarray, L: np.ndarray, hints: Sequence[Hint]) -> np.ndarray:
    """What is added to the colours, (2, h, w); arguments as those of :func:`spread`."""
    height, width = L.shape
    side = min(height, width)
    seen = np.concatenate((cv2.bilateralFilter(L, 5, 0.1, 2)[None], ab)).astype(np.float32)
    distances = np.full((len(hints), height, width), np.inf, np.float32)
    missing = np.zeros((len(hints), 2), np.float32)
    for i, hint in enumerate(hints):
        rows, columns, inside = hint.disc(height, width)
        distances[i, rows, columns][inside] = 0
        missing[i] = ab_of(hint.colour) / color.AB_SCALE - ab[:, rows, columns][:, inside].mean(1)
    _shorten(distances, seen, side)
    nearness = 1 / (distances**2 + 1e-8)
    shares = nearness / nearness.sum(0)
    strength = np.exp(-((distances.min(0) / REACH) ** 2))
    return strength * np.einsum("khw,kc->chw", shares, missing)


def _shorten(distances: np.ndarray, seen: np.ndarray, side: int) -> None:
    """Fill (K, h, w) distances, 0 at their sources, in place, by sweeps down, up, right and left."""

    def sweep(d: np.ndarray, x: np.ndarray) -> None:
        steps = np.arange(d.shape[2])
        for previous, row in zip(range(d.shape[1] - 1), range(1, d.shape[1])):  # noqa: B905
            for shift in (-1, 0, 1):
                at = (steps + shift).clip(0, d.shape[2] - 1)
                contrast = np.abs(x[:, row] - x[:, previous, at]).sum(0)
                cost = math.hypot(1, shift) / side + EDGE * (contrast - GRAIN).clip(0)
                np.minimum(d[:, row], d[:, previous][:, at] + cost, out=d[:, row])

    for _ in range(_SWEEPS):
        for d, x in ((distances, seen), (distances.transpose(0, 2, 1), seen.transpose(0, 2, 1))):
            sweep(d, x)
            sweep(d[:, ::-1], x[:, ::-1])


@dataclass(frozen=True)
class Sidecar:
    """What a file of hints says: ``NAME.hints.json`` beside a result.

    Attributes:
        hints, palette: what a person gave.
        settings: the other settings of the result, by the names of :class:`.colorizer.Settings`.
        weights: SHA-256 of the weights that made it.
    """

    hints: tuple[Hint, ...]
    palette: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Any, weights: Sequence[str]) -> Sidecar:
        """Of a result with these :class:`.colorizer.Settings`."""
        others = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in ("hints", "palette")}
        return cls(settings.hints, settings.palette, others, tuple(weights))

    def write(self, path: Path) -> None:
        atomic.write_json(path, {"format_version": FORMAT_VERSION, **asdict(self)}, indent=2)

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Raises ``InputError``."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a file of hints ({error})") from error
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise InputError(f"{path}: not a file of hints of format {FORMAT_VERSION}")
        try:
            hints = tuple(Hint(**hint) for hint in content["hints"])
            palette = tuple(parsed_colour(c) for c in content["palette"])
            return cls(hints, palette, dict(content["settings"]), tuple(content["weights"]))
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"{path}: not a file of hints ({error})") from error
