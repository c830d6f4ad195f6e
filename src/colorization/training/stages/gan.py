"""Stages 3 and 4: a generator and a discriminator, trained in turn (manual optimization)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colorization.core.errors import InputError
from colorization.evaluation import metrics
from colorization.networks import building
from colorization.networks.layers import running_averages_kept
from colorization.training import lightning_seams
from colorization.training.losses import AdversarialLoss
from colorization.training.stages.base import Batch, ColorizationStage


class GANStage(ColorizationStage):
    """Trains G = ``network`` against D with a :class:`colorization.training.losses.AdversarialLoss`.

    Args:
        discriminator: spec of D, built like ``network``; ``forward(L, ab) -> logits``.
        d_lr_factor: D's learning rate as a multiple of G's (two time-scales; below 1 slows D down).
        warmup_epochs: epochs (may be a fraction) in which G trains with L1 alone and D rests.
        others: see :class:`ColorizationStage`.

    ``gradient_clip_*`` and ``accumulate_grad_batches`` are set by ``train.py`` from the trainer's config, because
    Lightning's trainer does not take them in manual optimization. Accumulated batches have the gradients of one large
    batch (but for what batch norm makes of each): all of them go through D, D steps, and all go through G and that D.
    """

    loss_type = AdversarialLoss
    fitting_losses = "gan_l1"

    def __init__(
        self,
        name: str,
        network: dict[str, Any],
        discriminator: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        lr_schedule: str | Mapping[str, Any] = "linear_decay",
        lr_warmup: float = 0.0,
        lr_factors: dict[str, float] | None = None,
        head_epochs: float = 0.0,
        about: Mapping[str, Any] | None = None,
        d_lr_factor: float = 1.0,
        warmup_epochs: float = 0.0,
        **pretrained: str | None,
    ) -> None:
        super().__init__(
            name, network, loss, optimizer, lr_schedule, lr_warmup, lr_factors, head_epochs, about, **pretrained
        )
        self.save_hyperparameters()
        self.automatic_optimization = False
        if d_lr_factor <= 0:
            raise InputError(f"model.d_lr_factor={d_lr_factor}: should be above 0")
        if warmup_epochs < 0:
            raise InputError(f"model.warmup_epochs={warmup_epochs}: should be 0 or more")
        self.discriminator = building.build_network(discriminator)
        self.d_lr_factor, self.warmup_epochs = d_lr_factor, warmup_epochs
        self.gradient_clip_val: float | None = None
        self.gradient_clip_algorithm = "norm"
        self._held: list[tuple[torch.Tensor, torch.Tensor]] = []  # L and ab of the batches accumulated so far

    @classmethod
    def monitor(cls) -> str:
        """LPIPS if its weights are available, otherwise ΔE2000 + ΔCF. (ΔE2000 alone would choose the dullest epoch.)"""
        return "val/lpips" if metrics.lpips_network()[0] is not None else "val/delta_e2000_cf"

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        g = self.build_optimizer(self.network)
        d = self.build_optimizer(self.discriminator, self.d_lr_factor)
        return [g, d], [self.build_scheduler(g), self.build_scheduler(d)]

    def on_train_start(self) -> None:
        self._held = [(L.to(self.device), ab.to(self.device)) for L, ab in self._held]
        self._warmup_batches = round(self.warmup_epochs * self.trainer.num_training_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[attr-defined]
        L, ab, lab = self.read(batch)
        first = lightning_seams.batch_of_run(self.trainer) - len(self._held)
        warming_up = first < self._warmup_batches
        self._held.append((L, ab))
        last = batch_idx + 1 == self.trainer.num_training_batches
        update = last or (batch_idx + 1) % self.accumulate_grad_batches == 0
        alone = update and len(self._held) == 1

        losses_g, losses_d = {}, {}
        shown = None
        fake = self(L) if alone else None
        if not warming_up:
            shown = self.shown_to_discriminator(L) if fake is None else fake.detach()
            losses_d = self.discriminator_step(optimizer_d, L, ab, shown, update)
        if update:
            for i, (L, ab) in enumerate(self._held, start=1):
                fake = self(L) if fake is None else fake
                final = i == len(self._held)
                losses_g = self.generator_step(optimizer_g, L, ab, fake, final, adversarial=not warming_up)
                shown, fake = fake.detach(), None
            self._held.clear()
            for scheduler in self.lr_schedulers():  # type: ignore[union-attr]
                scheduler.step()

        rates = {"lr": optimizer_g.param_groups[0]["lr"], "d_lr": optimizer_d.param_groups[0]["lr"]}
        self.log_train({**losses_g, **losses_d, **rates}, shown, lab)

    @torch.no_grad()
    def shown_to_discriminator(self, L: torch.Tensor) -> torch.Tensor:
        """G's colours of a batch that it will see again, with D's answer, at the end of the accumulation."""
        with running_averages_kept(self.network):
            fake = self(L)
        torch.clear_autocast_cache()  # else autocast would hand out these weights' copies, which have no gradient
        return fake

    def discriminator_step(
        self, optimizer: Any, L: torch.Tensor, real: torch.Tensor, fake: torch.Tensor, update: bool
    ) -> dict[str, torch.Tensor]:
        """Teach D to tell true from generated colours; ``fake`` carries no gradient to G."""
        self.toggle_optimizer(optimizer)
        real_logits, fake_logits = self.discriminator(L, real), self.discriminator(L, fake)
        loss = self.loss.discriminator(real_logits, fake_logits)
        self._descend(optimizer, loss, update, counted=False)
        self.untoggle_optimizer(optimizer)
        return {"d_loss": loss.detach(), "d_real": real_logits.detach().mean(), "d_fake": fake_logits.detach().mean()}

    def generator_step(
        self, optimizer: Any, L: torch.Tensor, ab: torch.Tensor, fake: torch.Tensor, update: bool, adversarial: bool
    ) -> dict[str, torch.Tensor]:
        """Move G towards the truth (L1) and towards pictures that D takes for true; D itself is frozen."""
        self.toggle_optimizer(optimizer)
        l1 = self.loss.l1(fake, ab)
        loss = self.loss.l1_weight * l1
        parts = {"l1": l1.detach()}
        if adversarial:
            with running_averages_kept(self.discriminator):
                g_adversarial = self.loss.generator(self.discriminator(L, fake))
            loss = loss + g_adversarial
            parts["g_adversarial"] = g_adversarial.detach()
        self._descend(optimizer, loss, update, counted=True)
        self.untoggle_optimizer(optimizer)
        return {"loss": loss.detach(), **parts}

    def _descend(self, optimizer: Any, loss: torch.Tensor, update: bool, counted: bool) -> None:
        """Backward, and at the end of an accumulation (``update``) the step, ``counted`` or not in ``global_step``."""
        self.manual_backward(loss / self.accumulate_grad_batches)
        if not update:
            return
        if not counted:
            # Lightning counts the steps of every optimizer, so a batch would be two. Without these hooks it counts
            # G's alone, and max_steps, logging and checkpoint intervals mean the same number of batches in all stages.
            lightning_seams.do_not_count(optimizer)
        optimizer.step()
        optimizer.zero_grad()

    def on_save_checkpoint(self, checkpoint_content: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint_content)
        checkpoint_content["held"] = self._held

    def on_load_checkpoint(self, checkpoint_content: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint_content)
        self._held = checkpoint_content["held"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Called after fp16's unscaling and before the step: the one right moment to clip.
        if self.gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            by_value = self.gradient_clip_algorithm == "value"
            clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
            clip(parameters, self.gradient_clip_val)
