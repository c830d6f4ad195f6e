"""The ``Colorizer``: weights in, grey photo in, colour photo of the same size out. One object for every door.

Imports no torch; a backend does if it needs it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from colorization.colorize import answers, hints, uncertainty
from colorization.colorize.hints import Hint, parsed_colour
from colorization.colorize.uncertainty import heat_map
from colorization.core import color, errors, trusted
from colorization.core.errors import InputError, about
from colorization.files import metadata, pictures, writing
from colorization.files.pixels import Page, Unreadable
from colorization.files.writing import Output
from colorization.models import backends, descriptions, hub, loading
from colorization.models.weights import DEFAULT_WEIGHTS, resolve_weights

IS_RESULT = "is a result already: its tag says that software colorized it"
WEIGHTS_VARIABLE = "COLORIZATION_WEIGHTS"
SMALLEST_SIDE = 32  # of what a network takes
# What the numbers of :class:`Settings` may be.
RANGES = {"saturation": (0, 10), "strength": (0, 1), "vividness": (0, 1)}


@dataclass(frozen=True)
class Settings:
    """What the colours of a photo depend on besides the weights.

    Attributes:
        size: short side of the reduced copy that the network sees, pixels; ``None`` (auto) as trained, but a smaller
            photo is not enlarged.
        saturation: factor on the chroma, before colours are fitted to the gamut.
        strength: 1 the colours as they are, 0 grey, and the blends between.
        flips: average with the answer for the mirrored photo.
        merge: ``mean`` or ``median`` of several weights, see :func:`colorization.core.color.merge_ab`.
        vividness: from 0, the likeliest colours, to 1, the boldest; ``None`` as the weights say themselves. Only for
            weights that have this setting.
        hints: colours that a person gives at places. Weights that take hints see them, and whatever the weights are
            these colours stand at their places in the end (:func:`.hints.spread`).
        palette: colours, as CSS writes them, that shall be in the picture. Only for weights that take a palette.
        seed: ``None`` the weights' own answer; a number, from 0, another one that it draws from what they think
            possible (:func:`.answers.drawn`). Only for one set of weights that takes hints.

    Raises:
        InputError: a value that cannot work.
    """

    size: int | None = None
    saturation: float = 1.0
    strength: float = 1.0
    flips: bool = False
    merge: str = "mean"
    vividness: float | None = None
    hints: tuple[Hint, ...] = ()
    palette: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hints", tuple(self.hints))
        object.__setattr__(self, "palette", tuple(parsed_colour(c) for c in self.palette))
        if self.size is not None and self.size < SMALLEST_SIDE:
            raise InputError(f"size={self.size}: should be {SMALLEST_SIDE} pixels or more")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name}={value}: should be a number from {low} to {high}")
        if self.seed is not None and not (isinstance(self.seed, int) and self.seed >= 0):
            raise InputError(f"seed={self.seed}: should be a whole number from 0")
        if self.merge not in color.MERGES:
            raise InputError(f"merge={self.merge}: should be {' or '.join(color.MERGES)}")

    @property
    def told(self) -> str:
        """What a person gave, for the result's tag; empty if nothing."""
        points = ", ".join(f"{h.colour} at {h.x:.3f} {h.y:.3f}" for h in self.hints)
        said = [f"colours at {len(self.hints)} places (share of width, of height): {points}"] if points else []
        said += [f"the palette {', '.join(self.palette)}"] if self.palette else []
        return f"a person gave {' and '.join(said)}" if said else ""

    def recipe(self) -> dict[str, Any]:
        """As plain values; what a person gives and the seed stand in it only where they are given."""
        plain = asdict(self)
        return {k: v for k, v in plain.items() if v not in ((), None) or k not in ("hints", "palette", "seed")}


@dataclass(frozen=True)
class Loaded:
    """What one set of weights was loaded as: SHA-256 of its file, name of the backend, device."""

    digest: str
    name: str
    device: str


class InColour(Exception):
    """A photo has colours already, and was to be left alone then."""


@dataclass(frozen=True)
class Prediction:
    """What the network answers at the working size.

    Attributes:
        L: (h, w) float32 in [0, 1], what it saw.
        ab: (2, h, w) float32 normalised.
        members: (K, 2, h, w) float32, what ``ab`` was merged from: each network's answer, with ``flips`` the mean of
            its two.
        given: what it was told besides, by name.
    """

    L: np.ndarray
    ab: np.ndarray
    members: np.ndarray
    given: Mapping[str, np.ndarray]


def find_weights(given: str | os.PathLike[str] | None = None) -> Path:
    """Which weights to use: those given, else those of ``$COLORIZATION_WEIGHTS``, else those that ship.

    Given are what :func:`.weights.resolve_weights` takes, or ``owner/name[@revision]`` of a model hub, see
    :mod:`colorization.models.hub`.

    Raises:
        InputError: they are not there.
    """
    reference = os.fspath(given or os.environ.get(WEIGHTS_VARIABLE) or DEFAULT_WEIGHTS)
    if hub.is_reference(reference) and not Path(reference).exists():
        return hub.fetch(reference)
    return resolve_weights(reference)


class Colorizer:
    """Colorizes photographs of any size with one set of weights, or with several merged.

    Use :meth:`load`. The network sees a reduced copy; only its a*b* are enlarged (bicubic) and joined to the L* of the
    original at full resolution, with out-of-gamut colours losing chroma at constant L* and hue.

    Attributes:
        backends: one for each set of weights.
        threads: cores that one photo uses, ``None`` for all.
        description: what the (first) weights say of themselves.
    """

    def __init__(self, members: Sequence[backends.Backend], threads: int | None = None) -> None:
        self.backends = list(members)
        self.threads = threads
        self.description: dict[str, Any] = self.backends[0].description

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        device: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        measure: bool = False,
        trust: Sequence[str] = (),
    ) -> Colorizer:
        """A colorizer from weights.

        Args:
            weights: ``*.safetensors``, ``*.ckpt``, ``*.onnx``, the id or folder of a run, ``owner/name[@revision]``
                of a model hub, or several of those; default see :func:`find_weights`.
            device: ``auto`` (MPS, then CUDA, then CPU), ``cpu``, ``cuda`` or ``mps``.
            backend, measure: see :func:`colorization.models.loading.load`.
            threads: cores that one photo uses; default all.
            trust: packages of which networks may be built where weights name them: their code runs. In this process
                and those that it starts, from here on.

        Raises:
            InputError: no such weights, or they cannot be trusted or used; no such device.
        """
        trusted.trust(trust)
        several = [weights] if weights is None or isinstance(weights, str | os.PathLike) else weights
        return cls([loading.load(find_weights(w), device, backend, threads, measure) for w in several], threads)

    @property
    def disclosure(self) -> str:
        """What a result says of itself: software made the colours, with which weights."""
        made_by = (f"{b.description['stage']} {b.digest[:12]}" for b in self.backends)
        return f"{metadata.COLORIZED_BY} {', '.join(made_by)}"

    @property
    def loaded(self) -> list[Loaded]:
        """What each set of weights was loaded as."""
        return [Loaded(b.digest, b.name, str(getattr(b, "device", "cpu"))) for b in self.backends]

    @property
    def default_size(self) -> int:
        """The weights' own working size (:func:`.descriptions.working_size`); of several the largest."""
        return max(descriptions.working_size(b.description) for b in self.backends)

    def check(self, settings: Settings) -> None:
        """Raises ``InputError`` where the weights have no such setting."""
        for b in self.backends:
            for name, asked in (("vividness", settings.vividness is not None), ("palette", settings.palette)):
                if asked and name not in descriptions.inputs(b.description):
                    raise InputError(f"{name}: weights of a {b.description['stage']} have no such setting")
        takes_hints = "hints" in descriptions.inputs(self.description)
        if settings.seed is not None and (len(self.backends) > 1 or not takes_hints):
            raise InputError("seed: other answers need one set of weights that takes hints (model=hinted)")

    def working_size(self, height: int, width: int, size: int | None) -> tuple[int, int]:
        """Height and width of the reduced copy. The long side of a very long picture is held at four times ``size``.

        ``None`` is the best of those tried with the shipped weights (trained at 128) on 46 photos of 48 to 256 pixels:
        beyond the trained size ΔE2000 grows by 0.04, below it by 0.1 and more, and to enlarge a small photo gains
        nothing.
        """
        side = size or self.default_size
        scale = min(side / min(height, width), 4 * side / max(height, width))
        if size is None:
            scale = min(scale, 1)
        return max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale))

    def predict(self, pixels: np.ndarray, settings: Settings = Settings(), **given: np.ndarray) -> Prediction:
        """The network's answer at the working size for (H, W) grey or (H, W, 3) RGB, uint8 or uint16, sRGB.

        ``given``, maps of the working size among it: see :meth:`answer`.
        """
        return self.answer(self._seen(pixels, settings), settings, **given)

    def _seen(self, pixels: np.ndarray, settings: Settings) -> np.ndarray:
        """(1, 1, h, w) float32, the reduced copy that networks see of the pixels."""
        size = self.working_size(pixels.shape[0], pixels.shape[1], settings.size)
        return color.reduced_lightness(pixels, *size)[None, None]

    def answer(self, L: np.ndarray, settings: Settings = Settings(), **given: np.ndarray) -> Prediction:
        """The network's answer for (1, 1, h, w) float32 lightness in [0, 1].

        ``given`` is what networks take besides, by name (:func:`.descriptions.inputs`); weights that do not take it
        ignore it.
        """
        self.check(settings)
        if settings.seed is not None:
            generator = np.random.default_rng(settings.seed)
            drawn = answers.drawn(self.backends[0], L, settings.hints, settings.palette, generator)
            settings = replace(settings, hints=settings.hints + drawn)
        given = {**self.given(L, settings), **given}
        all_given = {**given, "vividness": settings.vividness}
        found = [b(L, **all_given) for b in self.backends]
        if settings.flips:
            mirrored = np.ascontiguousarray(L[..., ::-1]), uncertainty.mirrored(all_given)
            others = [b(mirrored[0], **mirrored[1])[..., ::-1] for b in self.backends]
            found = [(one + other) / 2 for one, other in zip(found, others, strict=True)]
        # Weights that are an ensemble say themselves how their members are merged, and count as one.
        each = [color.merge_ab(f, descriptions.merge(b.description)) for f, b in zip(found, self.backends, strict=True)]
        merged = color.merge_ab(np.stack(each), settings.merge)[0]
        if settings.hints:
            merged = hints.spread(merged, L[0, 0], settings.hints)
        return Prediction(L[0, 0], merged, np.concatenate(found)[:, 0], given)

    @staticmethod
    def given(L: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
        """What a person gave, as networks take it for (1, 1, h, w) lightness; empty if nothing."""
        return hints.as_given(settings.hints, settings.palette, *L.shape[2:])

    def suggest(
        self, image: Image.Image | str | os.PathLike[str], x: float, y: float, most: int = 5, **settings: Any
    ) -> list[tuple[str, float]]:
        """The colours that the weights think possible at a place, the likeliest first.

        Args:
            image, settings: as for :meth:`colorize`.
            x, y: place, as shares of the width and height.
            most: how many at most.

        Returns:
            ``#rrggbb`` at the photo's lightness there, and the share of the distribution near that colour.

        Raises:
            InputError: the photo cannot be read, the place is outside, or the weights have no distribution.
        """
        place, chosen = Hint(x, y, "#000000"), Settings(**settings)
        if not backends.has_distribution(self.description):
            raise InputError(f"weights of a {self.description['stage']} give no distribution to suggest colours from")
        L = self._seen(pictures.read_rgb(image), chosen)
        (log_shares,) = self.backends[0].distribution(L, **self.given(L, chosen))
        rows, columns, inside = place.disc(*log_shares.shape[1:])
        shares = np.exp(log_shares[:, rows, columns][:, inside]).mean(1)
        rows, columns, inside = place.disc(*L.shape[2:])
        lightness = 100 * L[0, 0, rows, columns][inside].mean()
        found = answers.suggestions(shares, color.ab_grid(self.description["network"]["grid"]), most)
        return [(answers.shown(lightness, one.ab), one.share) for one in found]

    def answers(
        self, image: Image.Image | str | os.PathLike[str], k: int, seed: int = 0, **settings: Any
    ) -> list[Image.Image]:
        """Other whole answers for a photo, those of the seeds from ``seed`` on, see :class:`Settings`.

        Args:
            image, settings: as for :meth:`colorize`.
            k: how many.

        Raises:
            InputError: the photo cannot be read, or the weights have no other answers.
        """
        rgb = Image.fromarray(pictures.read_rgb(image))
        return [self.colorize(rgb, seed=seed + i, **settings) for i in range(k)]

    def uncertainty(self, prediction: Prediction) -> np.ndarray:
        """Where the colours were guessed: (h, w) float32, a standard deviation in Lab units.

        Of the members' answers where there are several (:func:`.color.disagreement`), else of the weights'
        distribution over colours where they have one (:func:`.color.spread`), else of one network's answers
        for changed copies of the photo (:func:`.uncertainty.augmented`). Does not depend on saturation,
        strength and vividness.
        """
        members = prediction.members
        if len(members) == 1:
            L = prediction.L[None, None]
            if backends.has_distribution(self.description):
                (log_shares,) = self.backends[0].distribution(L, **prediction.given)
                spread = color.spread(log_shares, color.ab_grid(self.description["network"]["grid"]))
                return cv2.resize(spread, prediction.L.shape[::-1], interpolation=cv2.INTER_LINEAR)
            members = uncertainty.augmented(self.backends[0], L, prediction.given)[:, 0]
        return color.disagreement(members)

    def colorize_page(self, page: Page, settings: Settings = Settings()) -> Page:
        """The page in colour: (H, W, 3) of the same dtype, with the same lightness and alpha."""
        return self.paint(page, self.predict(page.pixels, settings), settings)

    def paint(self, page: Page, prediction: Prediction, settings: Settings = Settings()) -> Page:
        """The page in the colours of a prediction, see :meth:`colorize_page`."""
        ab = prediction.ab * np.float32(settings.saturation)
        return Page(color.recolor(page.pixels, ab, settings.strength, self.threads), page.alpha)

    def colorize(
        self, image: Image.Image | str | os.PathLike[str], size: int | None = None, **settings: Any
    ) -> Image.Image:
        """Colorize a photo.

        Args:
            image: a Pillow image of any mode, or a file, whose first page is read. Grey or colour: only the lightness
                is used. EXIF orientation and colour profile are applied.
            size, settings: see :class:`Settings`.

        Returns:
            RGB, 8 bit, of the (upright) input's size, with its lightness.

        Raises:
            InputError: it cannot be read (:class:`colorization.files.pixels.Unreadable`), or has no pixels.
        """
        chosen, rgb = Settings(size, **settings), pictures.read_rgb(image)
        return Image.fromarray(self.colorize_page(Page(rgb), chosen).pixels)

    def colorize_file(
        self,
        source: Path,
        target: Path,
        settings: Settings = Settings(),
        output: Output = Output(),  # noqa: B008 (frozen)
        strip: Path | None = None,
        uncertainty: Path | None = None,
        disclose: bool = True,
        skip_colored: bool = False,
        skip_results: bool = False,
        strict: bool = False,
    ) -> dict[str, Any]:
        """Colorize a file into another, of the type that its ending says; it appears only when it is whole.

        Args:
            source, target, settings, output: from where, to where and how.
            strip: where to write the first page before and after, side by side and reduced.
            uncertainty: where to write the first page's heat map, see :func:`.uncertainty.heat_map`.
            disclose: tag the result with :attr:`disclosure`.
            skip_colored: leave a photo alone whose first page has colours of its own, see :func:`color.own_colors`.
            skip_results: leave a file alone whose tag says that it is a result already.
            strict: refuse a photo rather than lose a part of it with a warning.

        Returns:
            ``pages``, ``width`` and ``height`` of the last one, ``seconds``, and ``warning``: what of the photo is
            damaged or was left out, in one line; ``None`` if nothing.

        Raises:
            InColour: as asked with ``skip_colored`` or ``skip_results``; nothing was written.
            InputError: the file cannot be read (:class:`colorization.files.pixels.Unreadable`) or not be colorized.
            OSError: the target cannot be written, or not as this type.
        """
        start = time.perf_counter()
        facts: dict[str, Any] = {"pages": 0}
        warnings: list[str] = []

        def tell(text: str) -> None:
            if strict:
                raise Unreadable(f"{errors.shown(source)}: {text}")
            if text not in warnings:
                warnings.append(text)

        with about(source, tell), pictures.open_picture(source) as picture:
            writing.check_type(target, picture.sizes)
            if uncertainty:
                writing.check_type(uncertainty, picture.sizes[:1])
            if skip_results and metadata.is_disclosed(picture.metadata):
                raise InColour(IS_RESULT)

            def pages() -> Any:
                for page in picture:
                    first = not facts["pages"]
                    if first and skip_colored and (own := color.own_colors(page.pixels)) >= color.OWN_COLORS:
                        raise InColour(f"in colour already ({own:.0f}, photos from {color.OWN_COLORS:.0f} are left)")
                    facts.update(pages=facts["pages"] + 1, height=page.pixels.shape[0], width=page.pixels.shape[1])
                    prediction = self.predict(page.pixels, settings)
                    if first and uncertainty:
                        heat = heat_map(self.uncertainty(prediction), *page.pixels.shape[:2])
                        writing.save(uncertainty, [Page(heat)], None, Output(), None)
                    result = self.paint(page, prediction, settings)
                    if first and strip:
                        writing.save(strip, [_side_by_side(page, result)], None, Output(), disclosure)
                    yield result

            disclosure = "; ".join(filter(None, (self.disclosure, settings.told))) if disclose else None
            writing.save(target, pages(), picture.metadata, output, disclosure)
        seconds = round(time.perf_counter() - start, 3)
        return {**facts, "seconds": seconds, "warning": "; ".join(warnings) or None}


def _side_by_side(before: Page, after: Page, side: int = 800) -> Page:
    """Two pages of one size, each reduced to at most ``side`` pixels, as one; uint8."""
    height, width = before.pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    halves = []
    for page in (before, after):
        pixels = cv2.resize(page.pixels, size, interpolation=cv2.INTER_AREA)
        if pixels.dtype == np.uint16:
            pixels = (pixels // 257).astype(np.uint8)
        halves.append(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2))
    return Page(np.concatenate(halves, 1))
