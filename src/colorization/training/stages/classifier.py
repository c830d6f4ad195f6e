"""The classifier whose features fusion uses: no stage of colorization, but a run like any other."""

from __future__ import annotations

import torch

from colorization.core import distributed
from colorization.core.errors import InputError
from colorization.evaluation.metrics import ColorizationMetrics
from colorization.models import descriptions
from colorization.training.losses import ClassLoss
from colorization.training.stages.base import Batch
from colorization.training.stages.regression import RegressionStage


class ClassifierStage(RegressionStage):
    """Trains a network to tell the class of a photo from its L. Its metric is ``error``, the share of wrong answers.

    The labels are those of the data module: ``class_numbers`` of :class:`colorization.data.cifar10.CIFAR10DataModule`.
    """

    loss_type = ClassLoss  # type: ignore[assignment]
    fitting_losses = "cross_entropy"

    @classmethod
    def monitor(cls) -> str:
        return "val/error"

    def setup(self, stage: str) -> None:
        if self.kind != descriptions.CLASSIFIER:
            raise InputError(f"model.about.kind={self.kind}: model={self.name} learns labels: a classifier")
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "class_numbers"):
            raise InputError(f"model={self.name}: the photos of {data.name} have no labels; use datamodule=cifar10")
        self._sums = torch.zeros(3, dtype=torch.float64)  # of loss and error over a loop's photos, and their number
        self._labels = {split: torch.tensor(data.class_numbers(split)) for split in data.photos}
        if len(data.classes) != self.hparams["network"]["classes"]:
            raise InputError(
                f"model.network.classes={self.hparams['network']['classes']}: {data.name} has {len(data.classes)}"
            )

    def _answer(self, batch: Batch, split: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss and error of a batch, and its Lab."""
        L, _, lab = self.read(batch)
        logits = self(L)
        self._labels[split] = self._labels[split].to(logits.device)
        labels = self._labels[split][batch["index"]]
        return self.loss(logits.float(), labels), (logits.argmax(1) != labels).float().mean(), lab

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss, error, lab = self._answer(batch, "train")
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_train({"loss": loss.detach(), "error": error, "lr": rate}, None, lab)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._log("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log("test", batch)

    def _log(self, split: str, batch: Batch) -> None:
        loss, error, lab = self._answer(batch, split)
        self._sums = self._sums + len(lab) * torch.tensor([float(loss), float(error), 1.0], dtype=torch.float64)

    def _log_metrics(self, split: str, metrics: ColorizationMetrics) -> None:
        loss, error, photos = sum(distributed.gather(self._sums))
        self._sums = torch.zeros(3, dtype=torch.float64)
        for name, value in (("loss", loss), ("error", error)):
            self.log(f"{split}/{name}", (value / photos).float(), sync_dist=True)
