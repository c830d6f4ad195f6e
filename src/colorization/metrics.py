"""Metrics on pictures rebuilt from the true L* and the predicted ab, in RGB.

A functional core (per-image values) and, for the validation and test loops, one torchmetrics ``Metric`` over it.
"""

from __future__ import annotations

import functools
import logging
import pickle
from urllib.error import URLError

import torch
import torchmetrics
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from colorization import color

log = logging.getLogger(__name__)

# What is measured, in the order of the tables, and which way is better.
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False, "delta_e2000": False}
# Errors below the rounding of 8-bit pixels (variance 1/12 of a step) do not count: grey photographs, which the grey
# row reproduces exactly, would otherwise have infinite PSNR and decide every mean.
PSNR_LIMIT = 58.92
SSIM_WINDOW = "Gaussian 11x11, sigma 1.5, windows inside the picture only (Wang et al. 2004)"
COLORFULNESS_FORM = "Hasler-Suesstrunk 2003 M3, signed"
DELTA_COLORFULNESS_FORM = "|mean colorfulness of predictions - mean colorfulness of truths|"


def psnr(rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most :data:`PSNR_LIMIT`. (B, 3, H, W) in [0, 1] to (B,)."""
    value = peak_signal_noise_ratio(rgb, truth, data_range=1.0, dim=(1, 2, 3), reduction="none")
    return value.reshape(-1).clamp(max=PSNR_LIMIT)


def ssim(rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each image, window as :data:`SSIM_WINDOW`. (B, 3, H, W) in [0, 1] to (B,)."""
    _, full = structural_similarity_index_measure(rgb, truth, data_range=1.0, reduction="none", return_full_image=True)
    # torchmetrics mirrors the border and averages over it; Wang's code and scikit-image leave it out.
    return full[..., 5:-5, 5:-5].mean((1, 2, 3))


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


def image_metrics(lab: torch.Tensor, true_lab: torch.Tensor) -> dict[str, torch.Tensor]:
    """All metrics of each image.

    Args:
        lab: predictions, (B, 3, H, W) Lab with the true L*.
        true_lab: truths, the same shape.

    Returns:
        (B,) float32 under ``psnr``, ``ssim``, ``lpips`` (absent without its weights), ``delta_e2000`` (mean over the
        pixels), ``colorfulness`` (of the prediction) and ``true_colorfulness``.
    """
    lab, true_lab = lab.float(), true_lab.float()
    rgb, truth = color.lab_to_rgb(lab), color.lab_to_rgb(true_lab)
    values = {
        "psnr": psnr(rgb, truth),
        "ssim": ssim(rgb, truth),
        "lpips": lpips(rgb, truth),
        "delta_e2000": color.delta_e2000(color.rgb_to_lab(rgb), true_lab).mean((-2, -1)),
        "colorfulness": color.colorfulness(rgb),
        "true_colorfulness": color.colorfulness(truth),
    }
    return {k: v for k, v in values.items() if v is not None}


class ColorizationMetrics(torchmetrics.Metric):
    """Means of :func:`image_metrics` over a loop, and ΔCF (:data:`DELTA_COLORFULNESS_FORM`).

    ``compute`` returns ``{"psnr", "ssim", "lpips" (where it can be had), "delta_e2000", "colorfulness",
    "true_colorfulness", "delta_colorfulness"}`` of scalars.
    """

    full_state_update = False
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")
        for name in (*HIGHER_IS_BETTER, "colorfulness", "true_colorfulness"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, lab: torch.Tensor, true_lab: torch.Tensor) -> None:
        """Add a batch of predictions and truths, (B, 3, H, W) Lab."""
        for name, values in image_metrics(lab, true_lab).items():
            setattr(self, name, getattr(self, name) + values.double().sum())
        self.count = self.count + len(lab)

    def compute(self) -> dict[str, torch.Tensor]:
        """The means so far."""
        names = [
            n for n in (*HIGHER_IS_BETTER, "colorfulness", "true_colorfulness") if n != "lpips" or lpips_network()[0]
        ]
        means = {n: (getattr(self, n) / self.count).float() for n in names}
        return {**means, "delta_colorfulness": (means["colorfulness"] - means["true_colorfulness"]).abs()}
