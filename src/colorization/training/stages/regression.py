"""Stages 1 and 2: one network, one optimizer, one pixel loss."""

from __future__ import annotations

from typing import Any

import torch

from colorization.training.losses import PixelLoss
from colorization.training.stages.base import Batch, ColorizationStage


class RegressionStage(ColorizationStage):
    """Trains a network to predict ab from L with a :class:`colorization.training.losses.PixelLoss`, or any other
    ``nn.Module`` that maps prediction and truth, (B, 2, H, W) normalised ab, to a scalar."""

    loss_type = PixelLoss
    takes_any_loss = True
    fitting_losses = "mse, l1, huber, delta_e94, or a loss of another package"

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        L, ab, lab = self.read(batch)
        prediction = self(L)
        loss = self.loss(prediction, ab)
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_train({"loss": loss.detach(), "lr": rate}, prediction, lab)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.build_optimizer(self.network)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.build_scheduler(optimizer), "interval": "step"},
        }
