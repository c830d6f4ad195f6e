"""Metrics on pictures rebuilt from the true L* and the predicted ab, in RGB.

A functional core (per-image values) and, for the validation and test loops, one torchmetrics ``Metric`` over it.
"""

from __future__ import annotations

import functools
import logging
import math
import pickle
from collections.abc import Callable, Sequence
from urllib.error import URLError

import torch
import torchmetrics
from torch import nn
from torchmetrics.utilities import dim_zero_cat

from colorization import color
from colorization.errors import InputError

log = logging.getLogger(__name__)

# What is measured, in the order of the tables, and which way is better.
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False, "delta_e2000": False}
# Errors below the rounding of 8-bit pixels (variance 1/12 of a step) do not count: grey photographs, which the grey
# row reproduces exactly, would otherwise have infinite PSNR and decide every mean.
PSNR_LIMIT = 58.92
SSIM_WINDOW = "Gaussian 11x11, sigma 1.5, windows inside the picture only (Wang et al. 2004)"
COLORFULNESS_FORM = "Hasler-Suesstrunk 2003 M3, signed"
DELTA_COLORFULNESS_FORM = "|mean colorfulness of predictions - mean colorfulness of truths|"


_GAUSSIAN = [math.exp(-0.5 * (i / 1.5) ** 2) for i in range(-5, 6)]
_WINDOW = [w / sum(_GAUSSIAN) for w in _GAUSSIAN]


def psnr(rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most :data:`PSNR_LIMIT`. (B, 3, H, W) in [0, 1] to (B,)."""
    return (-10 * (rgb - truth).square().mean((1, 2, 3)).log10()).clamp(max=PSNR_LIMIT)


def window_means(x: torch.Tensor) -> torch.Tensor:
    """Means under :data:`SSIM_WINDOW`: (..., H, W) to (..., H - 10, W - 10).

    Shifted copies are added up, down and then across: on a CPU as fast as a depthwise convolution, and in float32
    whatever the settings for convolutions (autocast, TF32).
    """
    for dim in (-2, -1):
        n = x.shape[dim] - 10
        total = x.narrow(dim, 5, n) * _WINDOW[5]
        for i in range(5):
            total.add_(x.narrow(dim, i, n), alpha=_WINDOW[i]).add_(x.narrow(dim, 10 - i, n), alpha=_WINDOW[i])
        x = total
    return x


def ssim(rgb: torch.Tensor, truth: torch.Tensor, truth_means: torch.Tensor | None = None) -> torch.Tensor:
    """Structural similarity of each image, window as :data:`SSIM_WINDOW`.

    Args:
        rgb, truth: (B, 3, H, W) in [0, 1].
        truth_means: ``window_means(truth - 0.5)``, if they are known already.

    Returns:
        (B,) float32: mean over pixels and channels.
    """
    if min(rgb.shape[-2:]) < len(_WINDOW):
        raise InputError(f"SSIM needs pictures of {len(_WINDOW)} pixels or more, not {rgb.shape[-1]}x{rgb.shape[-2]}")
    # Each factor is written as what it lacks of 1: with d = x - y, (2 mx my + c1) / (mx² + my² + c1) is
    # 1 - md² / (mx² + my² + c1), and with covariance and variances likewise. Where float32 cancels, in E[d²] - md² and
    # E[x²] - mx², the terms are small: d is small, and variances do not depend on the offset.
    x, y = rgb - 0.5, truth - 0.5
    mean_y = window_means(y) if truth_means is None else truth_means
    mean_x, squares, error = window_means(torch.stack((x, x * x + y * y, (x - y).square())))
    mean_error = (mean_x - mean_y).square()
    contrast = 1 - (error - mean_error) / (squares - mean_x.square() - mean_y.square() + 0.03**2)
    luminance = 1 - mean_error / ((mean_x + 0.5).square() + (mean_y + 0.5).square() + 0.01**2)
    return (luminance * contrast).mean((1, 2, 3))


@functools.cache
def lpips_network() -> tuple[nn.Module | None, str | None]:
    """LPIPS with AlexNet (Zhang et al. 2018), or ``None`` and the reason why it cannot be had. Asked once a process.

    The AlexNet weights come from torchvision (``$TORCH_HOME/hub/checkpoints/alexnet-owt-7be5be79.pth``).
    """
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    try:
        # Its random initial weights would move the generator that dropout uses, at a different place in a resumed run.
        with torch.random.fork_rng(devices=[]):
            return _NoTrainLpips(net="alex").eval(), None
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


def image_metrics(predictions: Sequence[torch.Tensor], true_lab: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """All metrics of each image, for any number of predictions of the same truths.

    Args:
        predictions: each (B, 3, H, W) Lab with the true L*.
        true_lab: truths, (B, 3, H, W) Lab.

    Returns:
        For each prediction (B,) float32 under ``psnr``, ``ssim``, ``lpips`` (absent without its weights),
        ``delta_e2000`` (mean over the pixels), ``colorfulness`` (of the prediction) and ``true_colorfulness``.
    """
    # One photo at a time fits a CPU's cache, a batch does not.
    size = 1 if true_lab.device.type == "cpu" else len(true_lab)
    parts = [
        _image_metrics([p.float() for p in labs], truth.float())
        for truth, *labs in zip(true_lab.split(size), *(p.split(size) for p in predictions), strict=True)
    ]
    return [{k: torch.cat([values[k] for values in row]) for k in row[0]} for row in zip(*parts, strict=True)]


def score(
    rgb: torch.Tensor, predictors: Sequence[Callable[[torch.Tensor], torch.Tensor]]
) -> tuple[torch.Tensor, list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """What predictors make of photos, and what that scores.

    Args:
        rgb: (B, 3, H, W) uint8, prepared by :class:`colorization.data.augment.Augment` without ``train``.
        predictors: each ``L`` (B, 1, H, W) in [0, 1] to normalised ab (B, 2, H, W).

    Returns:
        The truths, (B, 3, H, W) Lab; for each predictor its prediction with their L*, and its :func:`image_metrics`.
    """
    lab = color.rgb_to_lab(rgb)
    L, _ = color.split(lab)
    predictions = [color.join(L, predict(L)) for predict in predictors]
    return lab, predictions, image_metrics(predictions, lab)


def _image_metrics(predictions: list[torch.Tensor], true_lab: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    truth = color.lab_to_rgb(true_lab)
    truth_means, true_colorfulness = window_means(truth - 0.5), color.colorfulness(truth)
    result = []
    for prediction in predictions:
        rgb, lab = color.as_shown(prediction)
        values = {
            "psnr": psnr(rgb, truth),
            "ssim": ssim(rgb, truth, truth_means),
            "lpips": lpips(rgb, truth),
            "delta_e2000": color.delta_e2000(lab, true_lab).mean((-2, -1)),
            "colorfulness": color.colorfulness(rgb),
            "true_colorfulness": true_colorfulness,
        }
        result.append({k: v for k, v in values.items() if v is not None})
    return result


def means(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of what :func:`image_metrics` gives for a prediction, the scalar means, and ``delta_colorfulness``."""
    result = {name: of_images.mean() for name, of_images in values.items()}
    return {**result, "delta_colorfulness": (result["colorfulness"] - result["true_colorfulness"]).abs()}


class ColorizationMetrics(torchmetrics.Metric):
    """Means of :func:`image_metrics` over a loop, and ΔCF (:data:`DELTA_COLORFULNESS_FORM`).

    ``compute`` returns ``{"psnr", "ssim", "lpips" (where it can be had), "delta_e2000", "colorfulness",
    "true_colorfulness", "delta_colorfulness"}`` of scalars.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        # One value a photo, kept on the device: exact means, and nothing waits for the device before the end.
        for name in (*HIGHER_IS_BETTER, "colorfulness", "true_colorfulness"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, lab: torch.Tensor, true_lab: torch.Tensor) -> None:
        """Add a batch of predictions and truths, (B, 3, H, W) Lab."""
        for name, values in image_metrics([lab], true_lab)[0].items():
            getattr(self, name).append(values)

    def compute(self) -> dict[str, torch.Tensor]:
        """The means so far."""
        states = {n: getattr(self, n) for n in (*HIGHER_IS_BETTER, "colorfulness", "true_colorfulness")}
        return means({n: dim_zero_cat(v) for n, v in states.items() if n != "lpips" or lpips_network()[0]})
