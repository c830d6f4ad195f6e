"""Metrics of torchmetrics or of another package, which a configuration names under ``metrics``.

``metrics: {uqi: {_target_: torchmetrics.image.UniversalImageQualityIndex}}`` measures one in training (``val/uqi``,
``test/uqi``) and in an evaluation (a column ``uqi``). It is called as torchmetrics documents it,
``metric(prediction, truth)``, with two tensors (B, 3, H, W) float32: RGB in [0, 1]. The prediction has the true L* and
the predicted a*b*; its channels are clipped.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
import torchmetrics
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from colorization.core import distributed
from colorization.core.errors import InputError
from colorization.evaluation.catalog import LOGGED, METRICS, Metric

log = logging.getLogger(__name__)

OWN_KEYS = ("label", "better", "digits")  # of an entry; all other keys are arguments of the metric
BETTER = ("higher", "lower")
# Names that metrics.jsonl, metrics.json and per_image.csv have for something else.
_TAKEN = {
    *(m.name for m in METRICS),
    *(it.name for it in LOGGED),
    *("true_bleeding", "true_top1", "fid", "kid", "photo", "model", "strip", "n", "without_near_grey", "beats_grey"),
    *("remarks", "name", "weights", "stage", "network", "pretrained", "training_data", "version", "git"),
    *("vividness", "hints", "mean_ab", "merge", "members", "predictions"),
}


class CustomMetric:
    """A metric of another package, and what tables say of it.

    Attributes:
        entry: as in :data:`.catalog.METRICS`.
        metric: counts what :meth:`update` was given.
        of_one: whether it takes a single photo.
    """

    def __init__(self, entry: Metric, metric: torchmetrics.Metric, of_one: bool = True) -> None:
        self.entry, self.metric, self.of_one = entry, metric, of_one

    def fresh(self) -> CustomMetric:
        """The same metric, without any photo so far."""
        other = CustomMetric(self.entry, copy.deepcopy(self.metric), self.of_one)
        other.metric.reset()
        return other

    def update(self, rgb: torch.Tensor, truth: torch.Tensor) -> None:
        """Count a batch of predictions and truths, (B, 3, H, W) in [0, 1]."""
        self._run(self.metric.update, rgb, truth)

    def update_each(self, rgb: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """As :meth:`update`, one photo at a time, each of which has a value of its own: (B,) float32."""
        values = [self._run(self.metric, *pair) for pair in zip(rgb.split(1), truth.split(1), strict=True)]
        return torch.stack([self._number(v, rgb.device) for v in values])

    def compute(self) -> torch.Tensor:
        """The value over all photos of all processes, a scalar.

        Raises:
            InputError: a process had no photo; torchmetrics would wait for it forever.
        """
        if not all(distributed.gather(self.metric.update_called)):
            raise InputError(
                f"metrics.{self.entry.name}: one of the processes had no photo; use fewer processes, or a smaller "
                "datamodule.batch_size"
            )
        return self._number(self.metric.compute(), self.metric.device)

    def _run(self, call: Any, rgb: torch.Tensor, truth: torch.Tensor) -> Any:
        if self.metric.device != rgb.device:
            self.metric.to(rgb.device)
        with torch.no_grad(), torch.autocast(rgb.device.type, enabled=False):
            return call(rgb.float(), truth.float())

    def _number(self, value: Any, device: torch.device) -> torch.Tensor:
        if isinstance(value, int | float):
            value = torch.tensor(value)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise InputError(
                f"metrics.{self.entry.name}: {type(self.metric).__name__} should answer with one number, not "
                f"{tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__}"
            )
        return value.detach().float().reshape(()).to(device)


def configured(config: Mapping[str, Any] | None, image_size: int = 256) -> list[CustomMetric]:
    """The metrics of a configuration, each tried on two pictures of noise.

    Args:
        config: name -> ``_target_``, a class of :class:`torchmetrics.Metric`; ``label`` (default: the name), ``better``
            (``higher`` or ``lower``; default: what the class says) and ``digits`` (default: 4) for tables; all else are
            arguments of the class. An entry that is ``None`` is left out.
        image_size: side of the pictures of noise.

    Raises:
        InputError: the name is taken, the target is no such class, or the metric cannot be used on pictures.
    """
    return [_configured(str(name), spec, image_size) for name, spec in (config or {}).items() if spec is not None]


def _configured(name: str, spec: Any, image_size: int) -> CustomMetric:
    key = f"metrics.{name}"
    if not name.isidentifier() or name in _TAKEN:
        reason = "is taken" if name in _TAKEN else "should be letters, digits and _"
        raise InputError(f"{key}: the name {reason}; choose another one")
    settings: Any = OmegaConf.to_container(spec, resolve=True) if isinstance(spec, DictConfig) else spec
    if not isinstance(settings, dict) or not isinstance(target := settings.get("_target_"), str):
        raise InputError(f"{key}: needs a _target_, a class of torchmetrics.Metric")
    try:
        cls: Any = get_class(target)
    except Exception as error:  # whatever importing that package raises
        raise InputError(f"{key}._target_={target}: cannot be imported ({_line(error.__cause__ or error)})") from error
    if not issubclass(cls, torchmetrics.Metric):
        raise InputError(f"{key}._target_={target}: should be a class of torchmetrics.Metric")
    better = settings.get("better", {True: "higher", False: "lower"}.get(cls.higher_is_better))
    if better not in (None, *BETTER):
        raise InputError(f"{key}.better={better}: should be {' or '.join(BETTER)}")
    digits = settings.get("digits", 4)
    if isinstance(digits, bool) or not isinstance(digits, int) or digits < 0:
        raise InputError(f"{key}.digits={digits}: should be a whole number, 0 or more")
    arguments = {k: v for k, v in settings.items() if k not in ("_target_", *OWN_KEYS)}
    form = f"{target}({', '.join(f'{k}={v}' for k, v in arguments.items())})"
    label = str(settings.get("label") or name)
    entry = Metric(name=name, label=label, digits=digits, better=better, help=form, form=form)
    # Its random initial weights, if it has any, would move the generator that dropout uses.
    with torch.random.fork_rng(devices=[]):
        try:
            metric = cls(**arguments)
        except Exception as error:  # another package may raise anything
            raise InputError(f"{key}: {cls.__name__} cannot be made with these settings ({_line(error)})") from error
    return _tried(CustomMetric(entry, metric), image_size)


def _tried(custom: CustomMetric, image_size: int) -> CustomMetric:
    """The metric, once it has taken two photos, and whether it takes a single one."""
    noise = torch.rand(2, 2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    name, cls = custom.entry.name, type(custom.metric)
    try:
        both = custom.fresh()
        both.update(*noise)
        both._number(both.metric.compute(), noise.device)
    except InputError:
        raise
    except Exception as error:
        parameters = ", ".join(list(inspect.signature(cls.update).parameters)[1:])
        raise InputError(
            f"metrics.{name}: {cls.__name__} takes ({parameters}) and cannot be called as metric(prediction, truth) on "
            f"RGB pictures of {image_size}x{image_size} in [0, 1] ({_line(error)})"
        ) from error
    try:
        custom.fresh().update_each(*noise[:, :1])
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError) as error:
        custom.of_one = False
        log.info("metrics.%s: %s takes no single photo (%s)", name, cls.__name__, _line(error))
    return custom


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
