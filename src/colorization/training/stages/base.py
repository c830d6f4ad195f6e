"""Base class of all stages: the network, reading a batch, validation, the description in the checkpoint."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from torch import nn

from colorization.core import color, distributed
from colorization.core.errors import InputError
from colorization.evaluation.custom_metrics import CustomMetric
from colorization.evaluation.metrics import ColorizationMetrics, image_metrics, means
from colorization.models import checkpoint, descriptions
from colorization.models import pretrained as pretrained_parts
from colorization.networks import building
from colorization.networks.layers import Level
from colorization.training import lightning_seams

log = logging.getLogger(__name__)

Batch = Mapping[str, torch.Tensor]
MEASURED = 2  # photos of a batch whose metrics are logged in training: all would cost more than they tell
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # those with a fused step on every device


def lr_factor(schedule: str, progress: float, warmup: float) -> float:
    """The learning rate at a point of the run, as a share of the configured one.

    Args:
        schedule: ``constant``; ``linear_decay`` (constant, then linear to zero from half-way, as pix2pix); ``cosine``.
        progress: share of the run's optimizer steps that are done, in [0, 1].
        warmup: share of the run over which the rate first rises linearly from zero; 0 for none.
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "linear_decay":
        return min(1.0, 2 * (1 - progress))
    if schedule == "cosine":
        done = (progress - warmup) / (1 - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    raise InputError(f"model.lr_schedule={schedule}: should be constant, linear_decay or cosine")


def _is_part(name: str, part: str) -> bool:
    """Whether a parameter of that name is in that part of a network."""
    return f"{name}.".startswith(f"{part}.")


class ColorizationStage(pl.LightningModule):
    """Base of the stages: subclasses add ``training_step`` and ``configure_optimizers``.

    Args:
        name: the model's name in the config (``baseline``, ``unet``, ...).
        network: spec of the generator for :func:`colorization.networks.building.build_network`.
        loss: ``_target_`` and arguments of a loss in :mod:`colorization.training.losses`.
        optimizer: ``_target_`` and arguments of a torch optimizer.
        lr_schedule, lr_warmup: see :func:`lr_factor`; or ``_target_`` and arguments of a class of
            ``torch.optim.lr_scheduler`` that steps without a metric, once an optimizer step.
        lr_factors: the learning rate of parts of the network, as a multiple of the configured one, by the beginning of
            their parameters' names, of which the longest counts, e.g. ``{"encoder": 0.2, "encoder.conv_stem": 0}``;
            0 freezes them.
        head_epochs: epochs (may be a fraction) at the start in which the parts with a factor of their own rest.
        about: description of the model, which travels in the weights, see :func:`.descriptions.about`; for lists of
            models also a ``description`` and a ``place``.
        pretrained: all other keys of the model's config, e.g. ``resnet_weights``, for
            :func:`colorization.models.pretrained.load` when a run starts from nothing.

    All arguments are plain scalars, lists and dictionaries: they are the hyper-parameters of the checkpoint.
    """

    takes_any_loss = False  # whether any package's loss will do, called as loss(prediction, truth)
    loss_type: type[nn.Module]
    fitting_losses: str  # for the message when loss and stage do not go together
    gradient_clip_algorithm: str
    loss: Any
    network: Any

    def __init__(
        self,
        name: str,
        network: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        lr_schedule: str | Mapping[str, Any] = "constant",
        lr_warmup: float = 0.0,
        lr_factors: Mapping[str, float] | None = None,
        head_epochs: float = 0.0,
        about: Mapping[str, Any] | None = None,
        **pretrained: str | None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.name, self.about = name, dict(about or {})
        self.kind = descriptions.kind({"network": network, "about": self.about})
        self.network = building.build_network(network)
        self.loss = self._build_loss(loss)
        self.optimizer_spec, self.lr_schedule, self.lr_warmup = optimizer, lr_schedule, lr_warmup
        self.lr_factors, self.head_epochs = dict(lr_factors or {}), head_epochs
        if not head_epochs >= 0:
            raise InputError(f"model.head_epochs={head_epochs}: should be 0 or more")
        for part, factor in self.lr_factors.items():
            if not isinstance(factor, int | float) or factor < 0:
                raise InputError(f"model.lr_factors.{part}={factor}: should be 0 or more")
            if not any(_is_part(name, part) for name, _ in self.network.named_parameters()):
                raise InputError(f"model.lr_factors.{part}: the network has no such part")
        for parameter_name, parameter in self.network.named_parameters():
            if self._lr_factor_of(parameter_name) == 0:
                parameter.requires_grad_(False)
        if isinstance(lr_schedule, str):
            lr_factor(lr_schedule, 0.5, lr_warmup)  # refuses a wrong name before anything runs
        elif lr_warmup or head_epochs:
            raise InputError("model.lr_warmup and model.head_epochs go with a schedule by name, not with a class")
        if not optimizer["lr"] > 0:
            raise InputError(f"model.optimizer.lr={optimizer['lr']}: should be above 0")
        self.accumulate_grad_batches = 1  # of a stage that accumulates by itself; else the trainer does
        self.fused = False  # whether an optimizer that can, and is not told, steps in one kernel
        for key in pretrained.keys() - pretrained_parts.settings(self.network):
            raise InputError(f"model.{key}: model={name} has no such setting")
        self.pretrained_sources, self.pretrained = pretrained, dict[str, str]()
        self.val_metrics, self.test_metrics = ColorizationMetrics(), ColorizationMetrics()

    def _build_loss(self, spec: Mapping[str, Any]) -> nn.Module:
        """The configured loss. Of a class from another package ``name`` is for people alone."""
        target, said = str(spec["_target_"]), spec.get("name", spec["_target_"])
        cls = get_class(target)
        foreign = not target.startswith("colorization.")
        if not issubclass(cls, self.loss_type) and not (foreign and self.takes_any_loss and issubclass(cls, nn.Module)):
            raise InputError(f"loss={said} cannot train model={self.name}; use {self.fitting_losses}")
        arguments = {k: v for k, v in spec.items() if k != "_target_" and not (foreign and k == "name")}
        try:
            return cls(**arguments)
        except TypeError as error:
            raise InputError(f"loss={said}: {cls.__name__} does not take {arguments} ({error})") from error

    @classmethod
    def monitor(cls) -> str:
        """The metric whose lowest value makes a checkpoint the best (``callbacks.best.monitor=auto``)."""
        return "val/delta_e2000"

    def load_pretrained(self) -> None:
        """Fill the network's pretrained parts; for a run that starts from nothing."""
        if self.pretrained_sources:
            self.pretrained = pretrained_parts.load(self.network, **self.pretrained_sources)
            for part, source in self.pretrained.items():
                if source == "random":
                    log.warning("%s runs on a random %s: nothing pretrained is in it", self.name, part)

    def take_weights(self, path: Path) -> None:
        """Start from the weights in a file (of any stage whose network is the same), with a new optimizer.

        Raises:
            InputError: the file cannot be loaded, or holds another network.
        """
        network, description = checkpoint.load_network(path)
        state, own = network.state_dict(), self.network.state_dict()
        # What was added to a network starts as it is, unless the weights have it.
        additions = getattr(self.network, "additions", ())
        added = {k: v for k, v in own.items() if k not in state and any(_is_part(k, part) for part in additions)}
        try:
            self.network.load_state_dict({**added, **state}, strict=True)
        except RuntimeError as error:
            raise InputError(
                f"init_weights={path}: its network {description['network']} is not that of model={self.name}"
            ) from error
        self.pretrained = {
            **description["pretrained"],
            "network": f"{description['stage']} of {description['training_data'].get('name')}",
        }

    def prepare(self, channels_last: bool, fused: bool, activation_checkpointing: bool, compile: bool) -> None:
        """How the step runs on this machine, see ``configs/accelerator``; its results stay the same.

        Raises:
            InputError: activation checkpointing of a network that has no :class:`Level`.
        """
        self.fused = fused
        if channels_last:
            self.to(memory_format=torch.channels_last)
        for network in self.children():
            levels = [m for m in network.modules() if isinstance(m, Level)]
            if activation_checkpointing and network is self.network and not levels:
                raise InputError(
                    f"accelerator.activation_checkpointing=true: the network of model={self.name} has no levels to "
                    "compute again (colorization.networks.layers.Level)"
                )
            for level in levels:
                level.recompute = activation_checkpointing
            if compile and any(p.requires_grad for p in network.parameters()):
                network.compile()  # in place: the names in the state dict stay

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """``L`` (B, 1, H, W) in [0, 1] to normalised ab (B, 2, H, W)."""
        return self.network(L)

    def read(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A loader's batch as input ``L`` (B, 1, H, W), true ``ab`` (B, 2, H, W) and true Lab (B, 3, H, W).

        The input is the true L unless the batch brings a damaged grey picture.
        """
        lab = color.rgb_to_lab(batch["rgb"])
        L, ab = color.split(lab)
        if "grey" in batch:
            L = color.lightness_of_grey(batch["grey"])
        # Lab of 8-bit photos is interleaved, which would turn every convolution to channels last, asked for or not.
        # (For a single channel ``contiguous`` sees nothing to do.)
        return L.clone(memory_format=torch.contiguous_format), ab.contiguous(), lab

    def _lr_factor_of(self, name: str) -> float:
        """That of a parameter of the network by its name."""
        parts = [part for part in self.lr_factors if _is_part(name, part)]
        return self.lr_factors[max(parts, key=len)] if parts else 1.0

    def build_optimizer(self, network: nn.Module, lr_factor: float = 1.0) -> torch.optim.Optimizer:
        """The configured optimizer over the parameters that require a gradient, grouped by learning rate."""
        arguments = {k: v for k, v in self.optimizer_spec.items() if k != "_target_"}
        arguments["lr"] *= lr_factor
        cls = get_class(self.optimizer_spec["_target_"])
        if self.fused and cls in FUSED and not {"fused", "foreach"} & arguments.keys():
            arguments["fused"] = True
        groups: dict[float, list[nn.Parameter]] = {1.0: []}  # the configured rate first: it is the one that is logged
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                factor = self._lr_factor_of(name) if network is self.network else 1.0
                groups.setdefault(factor, []).append(parameter)
        try:
            rate = arguments["lr"]
            return cls([{"params": p, "lr": f * rate, "own_rate": f != 1} for f, p in groups.items() if p], **arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"model.optimizer={arguments}: {cls.__name__} does not take this ({error})") from error

    def accumulating(self, batch_idx: int) -> bool:
        """Whether gradients of earlier batches wait for more, before this batch of the epoch."""
        return batch_idx % max(self.accumulate_grad_batches, self.trainer.accumulate_grad_batches) > 0

    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        accumulated = max(self.accumulate_grad_batches, self.trainer.accumulate_grad_batches)
        return math.ceil(self.trainer.num_training_batches / accumulated)

    def total_steps(self) -> float:
        """Optimizer steps of the whole run; infinite without a limit."""
        trainer = self.trainer
        steps = math.inf
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            steps = trainer.max_epochs * self.steps_per_epoch()
        return min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Step-wise schedule over the whole run.

        Raises:
            InputError: a class that is none, wants a metric, or does not take its arguments.
        """
        schedule = self.lr_schedule
        if not isinstance(schedule, str):
            cls = get_class(str(schedule["_target_"]))
            if not issubclass(cls, torch.optim.lr_scheduler.LRScheduler) or issubclass(
                cls, torch.optim.lr_scheduler.ReduceLROnPlateau
            ):
                raise InputError(f"model.lr_schedule={cls.__name__}: should be a schedule of steps, without a metric")
            try:
                return cls(optimizer, **{k: v for k, v in schedule.items() if k != "_target_"})
            except (TypeError, ValueError) as error:
                raise InputError(f"model.lr_schedule: {cls.__name__} does not take this ({error})") from error

        def factor(step: int) -> float:
            # The length of the run is asked for only once training runs. (Lightning's estimated_stepping_batches
            # would make the loader before a checkpoint could tell it where to go on.)
            progress = min(1.0, step / self.total_steps()) if step else 0.0
            return lr_factor(schedule, progress, self.lr_warmup)

        def rested_factor(step: int) -> float:
            resting = self.head_epochs and (not step or step < self.head_epochs * self.steps_per_epoch())
            return 0.0 if resting else factor(step)

        rates: list[Any] = [rested_factor if group["own_rate"] else factor for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.LambdaLR(optimizer, rates)

    def log_train(
        self, values: Mapping[str, torch.Tensor | float], prediction: torch.Tensor | None, lab: torch.Tensor
    ) -> None:
        """Log ``train/<name>``; the loss is shown in the progress bar, all are kept as ``train_values``.

        If a row is written at this step, the metrics of the first photos are also logged, for the predictions just made
        (in training mode).

        Args:
            values: losses and rates.
            prediction: normalised ab (B, 2, H, W), if it is known yet.
            lab: truth (B, 3, H, W).
        """
        self.train_values = values
        shown = dict(values)
        # (The same question that Lightning asks itself: any other step would be measured in vain.)
        shows = lightning_seams.will_log(self.trainer)
        if prediction is not None and shows:
            few = lab[:MEASURED]
            images = color.join(color.split(few)[0], prediction[:MEASURED].detach())
            shown |= means(image_metrics([images], few)[0])
        if shows and distributed.is_distributed():
            shown = dict(distributed.mean({k: torch.as_tensor(v, device=self.device) for k, v in shown.items()}))
        for name, value in shown.items():
            if isinstance(value, float):  # Lightning would copy it to the accelerator, and wait for that, each step
                value = torch.full((), value, device=self.device)
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(lab))

    def measure(self, custom: Sequence[CustomMetric]) -> None:
        """Also measure these metrics in validation and test."""
        for metrics in (self.val_metrics, self.test_metrics):
            metrics.custom = [metric.fresh() for metric in custom]

    def _evaluate(self, batch: Batch, metrics: ColorizationMetrics) -> None:
        L, _, lab = self.read(batch)
        metrics.update(color.join(color.split(lab)[0], self(L)), lab)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self.test_metrics)

    def _log_metrics(self, split: str, metrics: ColorizationMetrics) -> None:
        values = metrics.compute()
        values["delta_e2000_cf"] = values["delta_e2000"] + values["delta_colorfulness"]
        for name, value in values.items():
            self.log(f"{split}/{name}", value, prog_bar=name == "delta_e2000", sync_dist=True)
        metrics.reset()

    def describe(self) -> dict[str, Any]:
        """The document for :func:`colorization.models.checkpoint.save_weights`, with the trainer's current metrics."""
        trainer = self._trainer
        data = getattr(trainer, "datamodule", None)
        figures = {k: round(float(v), 5) for k, v in trainer.callback_metrics.items()} if trainer else {}
        return descriptions.describe(
            self.name,
            self.hparams["network"],
            self.pretrained,
            data.describe() if data is not None else None,
            {k: v for k, v in figures.items() if k.startswith("val/")},
            self.about,
            loss=self.hparams["loss"].get("name", self.hparams["loss"]["_target_"].rpartition(".")[2]),
        )

    def on_save_checkpoint(self, checkpoint_content: dict[str, Any]) -> None:
        checkpoint_content[descriptions.KEY] = self.describe()

    def on_load_checkpoint(self, checkpoint_content: dict[str, Any]) -> None:
        self.pretrained = checkpoint_content[descriptions.KEY]["pretrained"]
