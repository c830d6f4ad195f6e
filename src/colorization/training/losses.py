"""Losses. Each ``loss=`` config names one of these; all work on normalised ab (a*b*/110), in float32."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from colorization.core.color import AB_MAX, AB_MIN, AB_SCALE
from colorization.core.errors import InputError


class PixelLoss(nn.Module):
    """The mean over all pixels of a penalty, and a term for how colourful each picture is.

    Args:
        name: ``mse``, ``l1`` or ``huber`` of both channels, or ``delta_e94`` (:func:`delta_e94`, over 110).
        delta: the error at which the Huber loss turns from square to linear, in normalised ab (0.05 is 5.5 Lab units).
        colorfulness: weight of the distance between a picture's :func:`colorfulness` and its truth's.
    """

    def __init__(self, name: str, delta: float = 0.05, colorfulness: float = 0.0) -> None:
        super().__init__()
        self.name, self.delta, self.colorfulness = name, delta, colorfulness
        if name not in ("mse", "l1", "huber", "delta_e94"):
            raise InputError(f"loss.name={name}: should be mse, l1, huber or delta_e94")
        if not delta > 0:
            raise InputError(f"loss.delta={delta}: should be above 0")
        if colorfulness < 0:
            raise InputError(f"loss.colorfulness={colorfulness}: should be 0 or more")

    def forward(self, ab: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Two (B, 2, H, W) tensors to a scalar."""
        ab, truth = ab.float(), truth.float()
        loss = self._penalty(ab, truth)
        if self.colorfulness:
            loss = loss + self.colorfulness * F.l1_loss(colorfulness(ab), colorfulness(truth))
        return loss

    def _penalty(self, ab: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if self.name == "mse":
            return F.mse_loss(ab, truth)
        if self.name == "l1":
            return F.l1_loss(ab, truth)
        if self.name == "delta_e94":
            return delta_e94(AB_SCALE * ab, AB_SCALE * truth).mean() / AB_SCALE
        return F.huber_loss(ab, truth, delta=self.delta)


def delta_e94(ab: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """CIE94 (graphic arts) of colours of equal L*, the truth being the standard; its gradient is finite everywhere.

    As in CIEDE2000, a distance along or across a saturated colour counts for less than one from grey.

    Args:
        ab, truth: (B, 2, H, W), a*b*.

    Returns:
        (B, H, W), above the formula's by no more than 0.01.
    """
    chroma, true_chroma = ((x.square().sum(1) + 1e-6).sqrt() for x in (ab, truth))
    along = (chroma - true_chroma).square()
    across = ((ab - truth).square().sum(1) - along).clamp_min(0)
    return (along / (1 + 0.045 * true_chroma).square() + across / (1 + 0.015 * true_chroma).square() + 1e-4).sqrt()


def colorfulness(ab: torch.Tensor) -> torch.Tensor:
    """(B, 2, H, W) to (B,): Hasler and Süsstrunk's (2003) first metric, which they state in CIELAB: the length of the
    standard deviations of a and b, and 0.37 of the distance of their mean from grey; in the units of ``ab``."""
    spread = (ab.var((2, 3), correction=0).sum(1) + 1e-8).sqrt()
    return spread + 0.37 * (ab.mean((2, 3)).square().sum(1) + 1e-8).sqrt()


class ClassLoss(nn.CrossEntropyLoss):
    """Cross-entropy of logits (B, classes) with class numbers (B,).

    Args:
        name: as in the config.
        label_smoothing: share of the target that is spread over all classes.
    """

    def __init__(self, name: str = "cross_entropy", label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.name = name


class RebalancedLoss(nn.Module):
    """Cross-entropy of a distribution over classes of ab with soft labels, rare colours counting for more.

    (Zhang et al. 2016, "Colorful image colorization", equations 2 to 4.) A place's label is shared out to the classes
    nearest to its colour by a Gaussian of their distance, and the place counts as much as its nearest class.

    Args:
        name: as in the config.
        neighbours: classes that a label is shared out to.
        sigma: of the Gaussian, Lab units.
        uniform: λ in the weights 1 / ((1 - λ) p + λ / Q) of the classes, p being a class's share of the training
            photographs and Q the number of classes: 1 does not rebalance, 0 does so in full.
        max_weight: of a class; the mean over all places is 1 before this limit.
    """

    centres: torch.Tensor

    def __init__(
        self,
        name: str = "rebalanced",
        neighbours: int = 5,
        sigma: float = 5.0,
        uniform: float = 0.5,
        max_weight: float = 5.0,
    ) -> None:
        super().__init__()
        if neighbours < 1:
            raise InputError(f"loss.neighbours={neighbours}: should be 1 or more")
        if not sigma > 0:
            raise InputError(f"loss.sigma={sigma}: should be above 0")
        if not 0 <= uniform <= 1:
            raise InputError(f"loss.uniform={uniform}: should be between 0 and 1")
        if not max_weight >= 1:
            raise InputError(f"loss.max_weight={max_weight}: should be 1 or more")
        self.name, self.neighbours, self.sigma = name, neighbours, sigma
        self.uniform, self.max_weight = uniform, max_weight
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def class_weights(self, shares: torch.Tensor) -> torch.Tensor:
        """(Q,) shares of the classes in the training photographs to (Q,) weights, 0 for a share of 0."""
        there = shares > 0
        weights = 1 / ((1 - self.uniform) * shares + self.uniform / there.sum())
        weights = torch.where(there, weights, torch.zeros_like(weights))
        return (weights / (weights * shares).sum()).clamp(max=self.max_weight)

    def prepare(self, centres: torch.Tensor, class_weights: torch.Tensor) -> None:
        """Look up each colour's neighbours once, by whole Lab units.

        Args:
            centres: (Q, 2) normalised ab of the classes.
            class_weights: (Q,), 0 for those that no label may have.
        """
        there = class_weights.nonzero()[:, 0]
        axes = [torch.arange(math.floor(low), math.ceil(high) + 1.0) for low, high in zip(AB_MIN, AB_MAX, strict=True)]
        self._origin, self._columns = (float(axes[0][0]), float(axes[1][0])), len(axes[1])
        colours = torch.cartesian_prod(*axes).to(centres)
        distances = torch.cdist(colours, AB_SCALE * centres[there])
        nearest = distances.topk(min(self.neighbours, len(there)), largest=False)
        labels = (-0.5 * (nearest.values / self.sigma).square()).softmax(1)
        self._tables = there[nearest.indices], labels * class_weights[there[nearest.indices[:, :1]]]

    def forward(self, log_shares: torch.Tensor, ab: torch.Tensor, photo_weights: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, Q, h, w), normalised ab (B, 2, h, w) of the truth, and the weight of each photo (B,)
        to a scalar."""
        assert self._tables is not None, "prepare() comes first"
        classes, labels = self._tables
        a, b = (
            (AB_SCALE * ab[:, i].float()).round().sub(start).clamp(0, float(end - start))
            for i, (start, end) in enumerate(zip(self._origin, map(math.ceil, AB_MAX), strict=True))
        )
        place = (a * self._columns + b).long()  # (B, h, w)
        found = log_shares.gather(1, classes[place].permute(0, 3, 1, 2))
        penalties = -(labels[place].permute(0, 3, 1, 2) * found).sum(1).mean((1, 2))
        return (photo_weights * penalties).mean()


class AdversarialLoss(nn.Module):
    """The pix2pix objective (Isola et al. 2017): adversarial + ``l1_weight`` · L1.

    Args:
        name: as in the config; checkpoints show it.
        l1_weight: λ of the L1 term.
        mode: ``vanilla`` (cross-entropy on logits) or ``lsgan`` (least squares).
        real_label: target for real patches in the D step; 0.9 is one-sided label smoothing (Salimans et al. 2016).
    """

    def __init__(
        self, name: str = "gan_l1", l1_weight: float = 100.0, mode: str = "vanilla", real_label: float = 0.9
    ) -> None:
        super().__init__()
        if mode not in ("vanilla", "lsgan"):
            raise InputError(f"loss.mode={mode}: should be vanilla or lsgan")
        if l1_weight < 0:
            raise InputError(f"loss.l1_weight={l1_weight}: should be 0 or more")
        self.name, self.l1_weight, self.mode, self.real_label = name, l1_weight, mode, real_label

    def _judge(self, logits: torch.Tensor, target: float) -> torch.Tensor:
        logits = logits.float()
        targets = torch.full_like(logits, target)
        if self.mode == "lsgan":
            return F.mse_loss(logits, targets)
        return F.binary_cross_entropy_with_logits(logits, targets)

    def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """D's loss from its logits on real and on generated pictures; halved: D learns slower than G."""
        return 0.5 * (self._judge(real, self.real_label) + self._judge(fake, 0.0))

    def generator(self, fake: torch.Tensor) -> torch.Tensor:
        """G's adversarial loss from D's logits on generated pictures (smoothing is for D only)."""
        return self._judge(fake, 1.0)

    def l1(self, ab: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The unweighted L1 term."""
        return F.l1_loss(ab.float(), truth.float())
