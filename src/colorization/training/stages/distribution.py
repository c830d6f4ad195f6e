"""A network that gives a distribution over classes of ab, trained by cross-entropy."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F

from colorization.core import color
from colorization.core.errors import InputError
from colorization.training.losses import RebalancedLoss
from colorization.training.stages.base import Batch
from colorization.training.stages.regression import RegressionStage

log = logging.getLogger(__name__)

MEASURED = 4096  # photos that tell how often each class occurs
SMALLEST_SHARE = 2e-5  # of a class that counts as occurring


class DistributionStage(RegressionStage):
    """Trains a network with ``distribution(L)``, e.g. :class:`colorization.networks.encoder_unet.ClassUNet`.

    How often each class occurs is measured on the training photographs before training starts; the weights that the
    loss makes of that are the network's ``class_weights``.

    Args:
        near_grey_weight: what a photo without any colour counts for in the loss; it rises to 1 at the colorfulness
            below which a photo is near-grey (:data:`colorization.core.color.NEAR_GREY`).
        settings: see :class:`colorization.training.stages.base.ColorizationStage`.
    """

    loss_type = RebalancedLoss  # type: ignore[assignment]
    fitting_losses = "rebalanced"

    def __init__(self, near_grey_weight: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.save_hyperparameters({"near_grey_weight": near_grey_weight, **settings})
        if not 0 <= near_grey_weight <= 1:
            raise InputError(f"model.near_grey_weight={near_grey_weight}: should be between 0 and 1")
        self.near_grey_weight = near_grey_weight

    def on_fit_start(self) -> None:
        if self.trainer.ckpt_path is None:
            shares = self._class_shares()
            self.network.class_weights.copy_(self.loss.class_weights(shares))
            log.info("%d of %d classes of ab occur in the training photographs", int((shares > 0).sum()), len(shares))
        self.loss.prepare(self.network.centres, self.network.class_weights)

    def _class_shares(self) -> torch.Tensor:
        """(Q,) share of each class in the training photographs, averaged to the size at which the network answers."""
        centres = color.AB_SCALE * self.network.centres
        counts = torch.zeros(len(centres))
        for photo in self.trainer.datamodule.some_photos(MEASURED):  # type: ignore[attr-defined]
            lab = torch.from_numpy(color.rgb_to_lab(photo))
            ab = F.avg_pool2d(lab[1:], self.network.stride).flatten(1).T
            counts += torch.cdist(ab.to(centres), centres).argmin(1).bincount(minlength=len(centres)).cpu()
        shares = counts / counts.sum()
        shares[shares < SMALLEST_SHARE] = 0
        return (shares / shares.sum()).to(centres)

    def given(self, L: torch.Tensor, ab: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the network is told in training besides ``L`` (B, 1, H, W), of the true ``ab`` (B, 2, H, W)."""
        return {}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        L, ab, lab = self.read(batch)
        log_shares = self.network.distribution(L, 1.0, **self.given(L, ab))
        weights = (color.colorfulness(batch["rgb"]) / color.NEAR_GREY).clamp(self.near_grey_weight, 1)
        loss = self.loss(log_shares, F.adaptive_avg_pool2d(ab, log_shares.shape[-2:]), weights)
        values: dict[str, Any] = {"loss": loss.detach(), "lr": self.trainer.optimizers[0].param_groups[0]["lr"]}
        self.log_train(values, None, lab)
        return loss
