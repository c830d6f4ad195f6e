"""Metrics on pictures rebuilt from the true L* and the predicted ab, in RGB.

A functional core (per-image values) and, for the validation and test loops, one torchmetrics ``Metric`` over it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from torch import nn

from colorization.core import color, distributed
from colorization.core.errors import InputError
from colorization.evaluation.catalog import LIGHT_EDGE, METRICS, PSNR_LIMIT, STAINED, UNSTAINED, Metric
from colorization.evaluation.custom_metrics import CustomMetric

log = logging.getLogger(__name__)

# Lab units: where the mean step in colour is smaller, none bleeds. 8-bit rounding alone makes 0.1 to 0.3, the palest
# photo of the weights that ship has 0.8, photographs have 5 to 9.
EVEN = 0.5

_GAUSSIAN = [math.exp(-0.5 * (i / 1.5) ** 2) for i in range(-5, 6)]
_WINDOW = [w / sum(_GAUSSIAN) for w in _GAUSSIAN]


def psnr(rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most ``PSNR_LIMIT``. (B, 3, H, W) in [0, 1] to (B,).

    With x and y the RGB values of prediction and truth,

        -10 log10 (mean over pixels and channels of (x - y)²).
    """
    return (-10 * (rgb - truth).square().mean((1, 2, 3)).log10()).clamp(max=PSNR_LIMIT)


def window_means(x: torch.Tensor) -> torch.Tensor:
    """Means under SSIM's window: (..., H, W) to (..., H - 10, W - 10)."""
    return _windowed(x, _WINDOW)


def _windowed(x: torch.Tensor, window: Sequence[float]) -> torch.Tensor:
    """Means under a symmetric window of odd length, at all places where it lies inside the picture.

    Shifted copies are added up, down and then across: on a CPU as fast as a depthwise convolution, and in float32
    for all settings of convolutions (autocast, TF32).
    """
    reach = len(window) // 2
    for dim in (-2, -1):
        n = x.shape[dim] - 2 * reach
        total = x.narrow(dim, reach, n) * window[reach]
        for i in range(reach):
            total.add_(x.narrow(dim, i, n), alpha=window[i]).add_(x.narrow(dim, 2 * reach - i, n), alpha=window[i])
        x = total
    return x


def ssim(rgb: torch.Tensor, truth: torch.Tensor, truth_means: torch.Tensor | None = None) -> torch.Tensor:
    """Structural similarity of each image, window and all as :mod:`.catalog` says.

    With mx, my the means, vx, vy the variances and c the covariance of prediction and truth under the window,

        (2 mx my + 0.01²) (2 c + 0.03²) / ((mx² + my² + 0.01²) (vx + vy + 0.03²)).

    Args:
        rgb, truth: (B, 3, H, W) in [0, 1].
        truth_means: ``window_means(truth - 0.5)``, if they are known already.

    Returns:
        (B,) float32: mean over pixels and channels.
    """
    if min(rgb.shape[-2:]) < len(_WINDOW):
        raise InputError(f"SSIM needs pictures of {len(_WINDOW)} pixels or more, not {rgb.shape[-1]}x{rgb.shape[-2]}")
    # Each factor is written as 1 minus a term: with d = x - y, (2 mx my + c1) / (mx² + my² + c1) is
    # 1 - md² / (mx² + my² + c1), and with covariance and variances likewise. Where float32 cancels, in E[d²] - md² and
    # E[x²] - mx², the terms are small: d is small, and variances do not depend on the offset.
    x, y = rgb - 0.5, truth - 0.5
    mean_y = window_means(y) if truth_means is None else truth_means
    mean_x, squares, error = window_means(torch.stack((x, x * x + y * y, (x - y).square())))
    mean_error = (mean_x - mean_y).square()
    contrast = 1 - (error - mean_error) / (squares - mean_x.square() - mean_y.square() + 0.03**2)
    luminance = 1 - mean_error / ((mean_x + 0.5).square() + (mean_y + 0.5).square() + 0.01**2)
    return (luminance * contrast).mean((1, 2, 3))


_lpips_wanted: ContextVar[bool] = ContextVar("_lpips_wanted", default=True)


@contextmanager
def lpips_wanted(wanted: bool) -> Iterator[None]:
    """Within, LPIPS is computed at all, or not: ``lpips`` of the configs."""
    token = _lpips_wanted.set(wanted)
    try:
        yield
    finally:
        _lpips_wanted.reset(token)


def lpips_network() -> tuple[nn.Module | None, str | None]:
    """LPIPS with AlexNet (Zhang et al. 2018; their package), or ``None`` and the reason why it cannot be had.

    Loaded once a process.
    The AlexNet weights come from torchvision (``$TORCH_HOME/hub/checkpoints/alexnet-owt-7be5be79.pth``).
    """
    return _load_lpips() if _lpips_wanted.get() else (None, "lpips=false")


@functools.cache
def _load_lpips() -> tuple[nn.Module | None, str | None]:
    from lpips import LPIPS

    try:
        # Its random initial weights would move the generator that dropout uses, at a different place in a resumed run.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it asks torchvision for the weights in an older way
            return LPIPS(net="alex", verbose=False), None
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = f"the AlexNet weights in torch's hub folder are broken ({error})"
    except (URLError, OSError) as error:
        reason = (
            f"AlexNet weights could not be downloaded ({getattr(error, 'reason', error)}); put "
            "alexnet-owt-7be5be79.pth into $TORCH_HOME/hub/checkpoints"
        )
    log.warning("LPIPS is not computed: %s", reason)
    return None, reason


def lpips(rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor | None:
    """LPIPS of each image, lower is closer; ``None`` without its weights. (B, 3, H, W) in [0, 1] to (B,)."""
    network, _ = lpips_network()
    if network is None:
        return None
    with torch.no_grad():
        return network.to(rgb.device)(rgb, truth, normalize=True).reshape(-1)


def mae(lab: torch.Tensor, true_lab: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of each image: (1/3N) sum over pixels of |dL*| + |da*| + |db*|.

    Nazeri et al. 2018 take it "on a pixel level for each color channel" and do not say in which units. In these the
    grey row has 6.05 on CIFAR-10's test images (6.08 where it is written to 8-bit RGB first, which moves L*), which
    fits their figures of 7.9 and 5.1; in RGB codes it has 12.4. (B, 3, H, W) to (B,).
    """
    return (lab - true_lab).abs().mean((1, 2, 3))


def accuracy(lab: torch.Tensor, true_lab: torch.Tensor, threshold: float) -> torch.Tensor:
    """Share of right pixels of each image in %, as :mod:`.catalog` defines it.

    The thresholds are ``threshold`` % of the ranges [0, 100] and [-110, 110]. Only what both pictures round to counts:
    of a true 0.4, 2.6 is 3 away. (B, 3, H, W) to (B,).
    """
    limits = torch.tensor([1.0, 2.2, 2.2], device=lab.device).view(3, 1, 1) * threshold
    right = ((lab.round() - true_lab.round()).abs() <= limits + 1e-3).all(1)
    return 100 * right.float().mean((1, 2))


def _sigma(height: int, width: int) -> float:
    return max(1.0, min(height, width) / 128)


def step_heights(planes: torch.Tensor) -> torch.Tensor:
    """How large the step is that each pixel lies on: (B, C, H, W) to (B, H, W), in the units of the planes.

    The gradient at the scale of ``bleeding``, over all channels and both directions, in units of what it is
    at the pixels beside a sharp step of 1; there, a step of h gives h.
    """
    sigma = _sigma(*planes.shape[-2:])
    reach = math.ceil(3 * sigma)
    window = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
    window = [w / sum(window) for w in window]
    smooth = _windowed(F.pad(planes, (reach,) * 4, mode="replicate"), window)
    squares = sum(d.square().sum(1) for d in torch.gradient(smooth, dim=(-2, -1)))
    return squares.sqrt() * (2 / (window[reach] + window[reach + 1]))  # type: ignore[union-attr]


def near_light_edges(true_lab: torch.Tensor) -> torch.Tensor:
    """Where an edge in colour has one in lightness beside it, within sigma: (B, 3, H, W) to (B, H, W) bool."""
    edges = (step_heights(true_lab[:, :1]) >= LIGHT_EDGE).float()[:, None]
    reach = math.ceil(_sigma(*edges.shape[-2:]))
    for kernel in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        edges = F.max_pool2d(edges, kernel, 1, tuple(k // 2 for k in kernel))
    return edges[:, 0] > 0


def bleeding(rounded_lab: torch.Tensor, near_edges: torch.Tensor) -> torch.Tensor:
    """Colour bleeding of each image in %: chroma edges against L edges.

    With s the :func:`step_heights` of a*b* and E the pixels near an edge in the true L*,

        100 * (sum of s outside E) / (sum of s everywhere); 0 where the mean of s is below EVEN.

    Colours that change where things end have next to 0, a border of colour that runs through an even surface has 100,
    and of a soft border counts what lies outside E. It is a share: pale colours do not pass for tidy ones; only
    grey and a single colour have 0. Some edges are in colour only, and surfaces shade off: good is the truth's own
    figure (24 % on ImageNet photographs at 256 pixels, 30 % with its colours 16 pixels wide, 35 % with them 32 wide).

    Args:
        rounded_lab: (B, 3, H, W), Lab units, of 8-bit colours: rounding counts among pale ones.
        near_edges: :func:`near_light_edges` of the truth.

    Returns:
        (B,) float32.
    """
    steps = step_heights(rounded_lab[:, 1:])
    share = (steps * ~near_edges).sum((1, 2)) / steps.sum((1, 2)).clamp(min=1e-6)
    return 100 * share * (steps.mean((1, 2)) >= EVEN)


def stains(lab: torch.Tensor, true_lab: torch.Tensor) -> torch.Tensor:
    """Whether each photo has a stain: strong colour where the truth is as good as grey.

    Args:
        lab, true_lab: (B, 3, H, W), Lab units.

    Returns:
        (B,) float32: 100 or 0; the mean is the share of photos in %.
    """
    side = max(2, min(lab.shape[-2:]) // 8)
    squares = functools.partial(F.avg_pool2d, kernel_size=side, stride=side // 2)
    strong = squares(lab[:, 1:]).square().sum(1).sqrt() > STAINED
    neutral = squares(true_lab[:, 1:].square().sum(1, keepdim=True).sqrt())[:, 0] < UNSTAINED
    return 100 * (strong & neutral).any(2).any(1).float()


def size_stability(
    rgb: torch.Tensor, predict: Callable[[torch.Tensor], torch.Tensor], sizes: Sequence[int]
) -> torch.Tensor:
    """How much the colours of each photo depend on the working size (``stability`` of :mod:`.catalog`).

    The photo is resized to each size as :class:`.colorizer.Colorizer` does it, the network's a*b* are
    brought back to the photo's own size and joined to its L*, and with p_i the colours that are shown then,

        mean over the pairs i < j of mean over the pixels of dE2000(p_i, p_j).

    0 is a model whose colours do not depend on the size (as grey and the mean colour); 1 is just noticeable.

    Args:
        rgb: (B, 3, S, S) uint8.
        predict: ``L`` (B, 1, H, W) in [0, 1] to normalised ab (B, 2, H, W).
        sizes: two sides or more, pixels.

    Returns:
        (B,) float32.
    """
    result = []
    for photo in rgb:  # one at a time: at 1024 pixels a batch would fill the memory
        lab = color.rgb_to_lab(photo)
        pixels = np.ascontiguousarray(photo.permute(1, 2, 0).cpu().numpy())
        shown = []
        for size in sizes:
            L = torch.from_numpy(color.reduced_lightness(pixels, size, size)).to(rgb.device)
            ab = F.interpolate(predict(L[None, None]).float(), lab.shape[-2:], mode="bicubic", antialias=True)
            shown.append(color.as_shown(color.join(color.split(lab)[0], ab[0]))[1])
        pairs = [color.delta_e2000(a, b).mean() for a, b in itertools.combinations(shown, 2)]
        result.append(torch.stack(pairs).mean())
    return torch.stack(result)


def delta_e2000(lab: torch.Tensor, true_lab: torch.Tensor) -> torch.Tensor:
    """Mean CIEDE2000 over the pixels of each image. (B, 3, H, W) Lab to (B,)."""
    return color.delta_e2000(lab, true_lab).mean((-2, -1))


def photo_delta_colorfulness(colorfulness: torch.Tensor, true_colorfulness: torch.Tensor) -> torch.Tensor:
    """How far the colorfulness of each image is from its truth's, (B,)."""
    return (colorfulness - true_colorfulness).abs()


class Truth:
    """True photos, and values that several formulas share, each computed once.

    Attributes:
        true_lab: (B, 3, H, W) Lab.
        truth: the same in RGB, in [0, 1].
    """

    def __init__(self, true_lab: torch.Tensor) -> None:
        self.true_lab, self.truth = true_lab, color.lab_to_rgb(true_lab)

    @functools.cached_property
    def truth_means(self) -> torch.Tensor:
        """As :func:`ssim` takes them."""
        return window_means(self.truth - 0.5)

    @functools.cached_property
    def true_colorfulness(self) -> torch.Tensor:
        """(B,)."""
        return color.colorfulness(self.truth)

    @functools.cached_property
    def near_edges(self) -> torch.Tensor:
        """As :func:`bleeding` takes them."""
        return near_light_edges(self.true_lab)


class Compared:
    """Predictions and their truths: the values that formulas of :mod:`.catalog` take, by the names of their parameters.

    Attributes:
        rgb: the prediction as it is displayed, (B, 3, H, W) in [0, 1]; ``lab``: the same in Lab; all of :class:`Truth`;
            the figures that have been measured already, by their names.
    """

    def __init__(self, prediction: torch.Tensor, truth: Truth) -> None:
        self.rgb, self.lab = color.as_shown(prediction)
        self._truth, self._measured = truth, dict[str, torch.Tensor | None]()

    def __getattr__(self, name: str) -> Any:
        return self._measured[name] if name in self._measured else getattr(self._truth, name)

    @functools.cached_property
    def rounded_lab(self) -> torch.Tensor:
        """Lab of the 8-bit colours that a picture file has."""
        return color.rgb_to_lab((self.rgb * 255).round().to(torch.uint8))

    def measure(self, metric: Metric) -> torch.Tensor | None:
        """The figure of each photo, (B,); ``None`` where it cannot be had."""
        function, names = _formula(str(metric.formula))
        asked = {name: getattr(self, name) for name in names if name not in metric.arguments}
        value = self._measured[metric.name] = function(**asked, **metric.arguments)
        return value


@functools.cache
def _formula(place: str) -> tuple[Callable[..., torch.Tensor | None], tuple[str, ...]]:
    """The function of that name, and the names of its parameters."""
    module, _, name = place.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    return function, tuple(inspect.signature(function).parameters)


def image_metrics(
    predictions: Sequence[torch.Tensor], true_lab: torch.Tensor, further: bool = False
) -> list[dict[str, torch.Tensor]]:
    """All metrics of each image, for any number of predictions of the same truths.

    Args:
        predictions: each (B, 3, H, W) Lab with the true L*.
        true_lab: truths, (B, 3, H, W) Lab.
        further: also those that training does not measure.

    Returns:
        For each prediction (B,) float32 under the name of each metric of :mod:`.catalog` that has a formula (``lpips``
        is absent without its weights), and of the truths ``true_colorfulness``, with ``further`` also
        ``true_bleeding``.
    """
    # One photo at a time fits a CPU's cache, a batch does not.
    size = 1 if true_lab.device.type == "cpu" else len(true_lab)
    parts = [
        _image_metrics([p.float() for p in labs], truth.float(), further)
        for truth, *labs in zip(true_lab.split(size), *(p.split(size) for p in predictions), strict=True)
    ]
    return [{k: torch.cat([values[k] for values in row]) for k in row[0]} for row in zip(*parts, strict=True)]


def score(
    rgb: torch.Tensor, predictors: Sequence[Callable[[torch.Tensor], torch.Tensor]], further: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Predictions of several predictors, and their metrics.

    Args:
        rgb: (B, 3, H, W) uint8, prepared by :class:`colorization.data.augment.Augment` without ``train``.
        predictors: each ``L`` (B, 1, H, W) in [0, 1] to normalised ab (B, 2, H, W).
        further: see :func:`image_metrics`.

    Returns:
        The truths, (B, 3, H, W) Lab; for each predictor its prediction with their L*, and its :func:`image_metrics`.
    """
    lab = color.rgb_to_lab(rgb)
    L, _ = color.split(lab)
    predictions = [color.join(L, predict(L)) for predict in predictors]
    return lab, predictions, image_metrics(predictions, lab, further)


def _image_metrics(
    predictions: list[torch.Tensor], true_lab: torch.Tensor, further: bool
) -> list[dict[str, torch.Tensor]]:
    truth = Truth(true_lab)
    measured = [m for m in METRICS if m.formula and (m.trained or further)]
    of_truth = {"true_colorfulness": truth.true_colorfulness}
    if further:
        of_truth["true_bleeding"] = bleeding(true_lab, truth.near_edges)
    result = []
    for prediction in predictions:
        compared = Compared(prediction, truth)
        values = {metric.name: compared.measure(metric) for metric in measured}
        result.append({k: v for k, v in values.items() if v is not None} | of_truth)
    return result


def means(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The scalar means of the values of :func:`image_metrics`, and ``delta_colorfulness``."""
    result = {name: of_images.mean() for name, of_images in values.items()}
    return {**result, "delta_colorfulness": (result["colorfulness"] - result["true_colorfulness"]).abs()}


class ColorizationMetrics(torchmetrics.Metric):
    """Means of :func:`image_metrics` over a loop, of the L1 loss, and ΔCF (``delta_colorfulness`` of :mod:`.catalog`).

    ``compute`` returns scalars, over the photos of all processes: ``l1`` (of normalised ab), the metrics of training
    (``lpips`` if its weights are there), ``true_colorfulness``, ``delta_colorfulness`` and those of ``custom``.

    Attributes:
        custom: further metrics, which count the same photos.
    """

    full_state_update = False
    _NAMES = ("l1", *(m.name for m in METRICS if m.trained and m.formula), "true_colorfulness")

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)  # torchmetrics would wait forever for a process without a photo
        # One value a photo, kept on the device: exact means, and nothing waits for the device before the end.
        for name in self._NAMES:
            self.add_state(name, [], dist_reduce_fx=None)
        self.custom: list[CustomMetric] = []  # in a plain list: no checkpoint has their weights

    def update(self, lab: torch.Tensor, true_lab: torch.Tensor) -> None:
        """Add a batch of predictions and truths, (B, 3, H, W) Lab."""
        l1 = (color.split(lab)[1] - color.split(true_lab)[1]).abs().mean((1, 2, 3))
        for name, values in {"l1": l1, **image_metrics([lab], true_lab)[0]}.items():
            getattr(self, name).append(values)
        if self.custom:
            rgb, truth = color.as_shown(lab.float())[0], color.lab_to_rgb(true_lab)
            for metric in self.custom:
                metric.update(rgb, truth)

    def compute(self) -> dict[str, torch.Tensor]:
        """The means so far."""
        own = {n: torch.cat(found) for n in self._NAMES if (found := getattr(self, n))}
        custom = {metric.entry.name: metric.compute() for metric in self.custom}
        if not distributed.is_distributed():
            return means(own) | custom
        parts = distributed.gather({name: values.cpu() for name, values in own.items()})
        present = [name for name in self._NAMES if any(name in part for part in parts)]
        return means({n: torch.cat([p[n] for p in parts if n in p]).to(self.device) for n in present}) | custom

    def reset(self) -> None:
        """Forget all photos."""
        super().reset()
        for metric in self.custom:
            metric.metric.reset()
