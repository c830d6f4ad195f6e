"""How the four stages train, through Lightning, with the shipped configs at small widths; and the losses."""

import copy
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import SMALL_ENCODERS
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger
from skimage.color import deltaE_ciede94, deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.data import astronaut
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import resize
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from colorization.core import color, hydra_main
from colorization.core.errors import InputError
from colorization.evaluation import metrics
from colorization.models import checkpoint
from colorization.networks.layers import running_averages_kept
from colorization.training.callbacks import EMA
from colorization.training.losses import AdversarialLoss, PixelLoss, delta_e94
from colorization.training.stages.base import ColorizationStage, lr_factor
from colorization.training.stages.gan import GANStage

Batch = dict[str, torch.Tensor]
MODELS = ["baseline", "unet", "gan", "fusion"]
EVERY = [*MODELS, "encoder_unet"]
GANS = ["gan", "fusion"]
SMALL = {
    "baseline": ["model.network.width=4"],
    "unet": ["model.network.width=4", "model.network.depth=4"],
    "gan": ["model.network.width=4", "model.network.depth=4", "model.discriminator.width=4"],
}
SMALL["fusion"] = [*SMALL["gan"], "model.network.resnet_size=null", "model.resnet_weights=null"]
SMALL["encoder_unet"] = SMALL_ENCODERS["encoder_unet"]
# A GAN without batch norm and dropout, in which a batch is the mean of its pictures; plain descent, so that equal
# gradients are equal steps.
PLAIN_GAN = {
    "network": {"_target_": "colorization.networks.unet.UNet", "width": 4, "depth": 1},
    "discriminator": {"_target_": "colorization.networks.patchgan.PatchGAN", "width": 4, "layers": 0},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "lr_schedule": "constant",
}


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation must not ask the internet for AlexNet."""
    monkeypatch.setattr(metrics, "lpips_network", lambda: (None, "not in these tests"))


@cache
def _composed(model: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_module("colorization.configs", version_base="1.3"):
        cfg = compose("train", overrides=[f"model={model}", *SMALL[model], *overrides])
    return OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[return-value]


def build(model: str, *overrides: str, **replaced: Any) -> Any:
    """The stage of a shipped config: small, with Hydra ``overrides``, and whole entries ``replaced``."""
    torch.manual_seed(0)
    return hydra_main.instantiate(OmegaConf.create({**copy.deepcopy(_composed(model, *overrides)), **replaced}))


def batches(count: int, size: int = 2, side: int = 32) -> list[Batch]:
    """Random pictures."""
    rng = np.random.default_rng(5)
    return [
        {
            "rgb": torch.from_numpy(rng.integers(0, 256, (size, 3, side, side), dtype=np.uint8)),
            "index": torch.arange(i * size, (i + 1) * size),
        }
        for i in range(count)
    ]


def loader(content: list[Batch]) -> DataLoader:
    return DataLoader(content, batch_size=None)  # type: ignore[arg-type]


def trainer(*callbacks: Callback, **settings: Any) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    if "max_steps" in settings:
        quiet["max_epochs"] = -1
    return pl.Trainer(**{"accelerator": "cpu", **quiet, **settings}, callbacks=list(callbacks))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """The parameters that have changed."""
    return {k for k, v in module.named_parameters() if not torch.equal(v, before[k])}


def trainable(module: nn.Module) -> set[str]:
    return {k for k, v in module.named_parameters() if v.requires_grad}


class Each(Callback):
    """Calls ``at_end(stage, number)`` after each training batch, numbered from one through all epochs."""

    def __init__(self, at_end: Callable[[Any, int], None]) -> None:
        self.at_end, self.count = at_end, 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.count += 1
        self.at_end(pl_module, self.count)


def around(stage: Any, step: str, before: Callable[[], Any], after: Callable[[Any], None]) -> None:
    """Run ``before()`` ahead of a method of the stage and ``after`` with its answer behind it."""
    original = getattr(stage, step)

    def spied(*args: Any, **kwargs: Any) -> Any:
        seen = before()
        result = original(*args, **kwargs)
        after(seen)
        return result

    setattr(stage, step, spied)


STEPS = ["discriminator_step", "generator_step"]


# They learn


@pytest.fixture(scope="module")
def photo() -> Batch:
    """A smooth, colourful picture, 32x32."""
    picture = resize(gaussian(astronaut()[:256, 96:352], 6, channel_axis=-1), (32, 32))
    rgb = torch.from_numpy(np.rint(picture * 255).astype(np.uint8)).permute(2, 0, 1)[None]
    assert float(color.colorfulness(rgb)) > 30
    return {"rgb": rgb.contiguous(), "index": torch.tensor([0])}


@pytest.mark.parametrize(
    ("model", "part", "fall", "steps"),
    [("baseline", "loss", 10, 80), ("unet", "loss", 10, 140), ("gan", "l1", 2, 50), ("fusion", "l1", 2, 50)],
)
def test_learns_one_batch_by_heart(photo: Batch, model: str, part: str, fall: float, steps: int) -> None:
    """The loss falls to a tenth (of a GAN the L1 part to a half) of the first, and of what a grey answer has."""
    dropout = [] if model == "baseline" else ["model.network.dropout=0"]
    stage = build(model, "model.network.width=8", "model.optimizer.lr=5e-3", *dropout)
    values: list[float] = []
    record = Each(lambda s, _: values.append(float(s.trainer.callback_metrics[f"train/{part}"])))
    trainer(record, max_steps=steps).fit(stage, loader([photo] * 10))
    _, ab, _ = stage.read(photo)
    grey = float((ab**2).mean() if model == "baseline" else ab.abs().mean())
    assert len(values) == steps
    assert np.mean(values[-5:]) < min(values[0], grey) / fall


@pytest.mark.parametrize("model", EVERY)
def test_validation_measures_the_prediction_on_the_true_lightness(photo: Batch, model: str) -> None:
    """``val/l1`` and ΔE of a stage, against the same figures from its output by scikit-image."""
    from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

    stage = build(model)
    (result,) = trainer().validate(stage, loader([photo]), verbose=False)
    truth = rgb2lab(photo["rgb"][0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        ab = stage.network.eval()(torch.from_numpy(truth[None, None, ..., 0] / 100).float())[0].permute(1, 2, 0).numpy()
    assert result["val/l1"] == pytest.approx(np.abs(ab - truth[..., 1:] / 110).mean(), abs=1e-4)
    shown = rgb2lab(lab2rgb(np.concatenate((truth[..., :1], ab * 110), -1)))
    assert result["val/delta_e2000"] == pytest.approx(deltaE_ciede2000(shown, truth).mean(), abs=0.02)


def test_damaged_grey_is_the_input_and_the_truth_stays() -> None:
    """A batch with its own grey picture: L comes from it, ab and Lab from the colours."""
    batch = batches(1)[0]
    L, ab, lab = build("unet").read(batch)
    grey = torch.randint(0, 256, L.shape, dtype=torch.uint8)
    damaged_L, same_ab, same_lab = build("unet").read({**batch, "grey": grey})
    assert torch.equal(ab, same_ab) and torch.equal(lab, same_lab)
    expected = color.rgb_to_lab(grey.expand(-1, 3, -1, -1))[:, :1] / 100
    assert torch.allclose(damaged_L, expected, atol=1e-4) and not torch.allclose(damaged_L, L, atol=0.1)


# Generator against discriminator


@pytest.mark.parametrize("model", GANS)
def test_each_step_moves_its_own_network_and_leaves_no_gradient_in_the_other(model: str) -> None:
    stage = build(model)
    both = {
        "discriminator_step": (stage.discriminator, stage.network),
        "generator_step": (stage.network, stage.discriminator),
    }
    seen: list[str] = []

    def watch(step: str) -> None:
        own, other = both[step]

        def after(before: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> None:
            seen.append(step)
            assert moved(own, before[0]) == trainable(own)
            assert moved(other, before[1]) == set()
            assert all(p.grad is None or not p.grad.any() for p in other.parameters())

        around(stage, step, lambda: (weights(own), weights(other)), after)

    for step in STEPS:
        watch(step)
    trainer(max_steps=2).fit(stage, loader(batches(2)))
    assert seen == STEPS * 2
    # Training has left both as they were: everything that is no ResNet trains.
    assert trainable(stage.discriminator) == set(weights(stage.discriminator))
    assert {k for k in weights(stage.network) if not k.startswith("resnet.")} == trainable(stage.network)


@pytest.mark.parametrize("model", GANS)
def test_accumulation_shows_every_batch_to_the_generator_after_the_discriminators_step(model: str) -> None:
    """As in one large batch. What D sees before leaves no gradient in G, and G's running averages where they were."""
    stage = build(model)
    stage.accumulate_grad_batches = 2
    order: list[str] = []
    for step in STEPS:
        around(stage, step, lambda step=step: order.append(step), lambda _: None)

    def network() -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in stage.network.state_dict().items()}

    def after(before: dict[str, torch.Tensor]) -> None:
        assert all(torch.equal(v, before[k]) for k, v in stage.network.state_dict().items())
        assert all(p.grad is None for p in stage.network.parameters())
        order.append("shown")

    around(stage, "shown_to_discriminator", network, after)
    trainer(max_steps=1).fit(stage, loader(batches(2)))
    assert order == ["shown", "discriminator_step"] * 2 + ["generator_step"] * 2
    assert int(stage.network.down[1][2].num_batches_tracked) == 2


def test_adversarial_loss_alone_moves_the_generator() -> None:
    """The gradient passes through the frozen D."""
    stage = build("gan", "loss.l1_weight=0")
    before = weights(stage.network)
    trainer(max_steps=1).fit(stage, loader(batches(1)))
    assert moved(stage.network, before) == trainable(stage.network)


@pytest.mark.parametrize("model", GANS)
def test_running_averages_of_the_discriminator_move_in_its_own_step_only(model: str) -> None:
    stage = build(model)
    changed: list[tuple[str, set[str]]] = []

    def watch(step: str) -> None:
        def after(before: dict[str, torch.Tensor]) -> None:
            kinds = {
                k.rpartition(".")[2] for k, v in stage.discriminator.named_buffers() if not torch.equal(v, before[k])
            }
            changed.append((step, kinds))

        around(stage, step, lambda: {k: v.clone() for k, v in stage.discriminator.named_buffers()}, after)

    for step in STEPS:
        watch(step)
    trainer(max_steps=2).fit(stage, loader(batches(2)))
    everything = {"running_mean", "running_var", "num_batches_tracked"}
    assert changed == [("discriminator_step", everything), ("generator_step", set())] * 2


@pytest.mark.parametrize("model", GANS)
def test_discriminator_uses_the_statistics_of_the_batch_in_both_steps(model: str) -> None:
    """Every output of its batch norms in training has, before scale and shift, mean 0 and variance 1."""
    stage = build(model)
    now = [""]
    outputs: dict[str, int] = defaultdict(int)
    for step in STEPS:
        around(stage, step, lambda step=step: now.__setitem__(0, step), lambda _: now.__setitem__(0, ""))

    def hook(norm: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        x = (output - norm.bias[:, None, None]) / norm.weight[:, None, None]
        outputs[now[0]] += 1
        assert x.mean((0, 2, 3)).abs().max() < 1e-3
        variance = inputs[0].var((0, 2, 3), correction=0)
        assert torch.allclose(x.var((0, 2, 3), correction=0), variance / (variance + norm.eps), atol=1e-3)

    norms = [m for m in stage.discriminator.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_hook(hook)
    trainer(max_steps=2).fit(stage, loader(batches(2)))
    assert len(norms) == 3
    assert outputs == {"discriminator_step": 2 * 2 * 3, "generator_step": 2 * 3}


def test_running_averages_kept_is_train_mode_without_the_memory() -> None:
    stage = build("gan")
    network = stage.discriminator.train()
    L, ab = torch.rand(2, 1, 64, 64), torch.rand(2, 2, 64, 64)
    plain = copy.deepcopy(network)(L, ab)
    before = {k: v.clone() for k, v in network.named_buffers()}
    with running_averages_kept(network):
        kept = network(L, ab)
    assert torch.equal(kept, plain)
    assert all(torch.equal(v, before[k]) for k, v in network.named_buffers())
    assert not torch.allclose(kept, copy.deepcopy(network).eval()(L, ab), atol=1e-3)
    network(L, ab)  # and it is over
    assert not any(torch.equal(v, before[k]) for k, v in network.named_buffers())


@pytest.mark.parametrize(("epochs", "rests"), [(1, 3), (0.7, 2), (0, 0)])
def test_discriminator_rests_during_warmup(epochs: float, rests: int) -> None:
    """Nothing of it moves, weights or averages, G trains on L1 alone; then both train."""
    stage = build("gan", f"model.warmup_epochs={epochs}")
    changed: list[tuple[bool, bool]] = []
    last = [copy.deepcopy(stage.discriminator.state_dict()), copy.deepcopy(stage.network.state_dict())]

    def look(s: Any, _: int) -> None:
        new = [copy.deepcopy(m.state_dict()) for m in (s.discriminator, s.network)]
        changed.append(
            tuple(any(not torch.equal(v, a[k]) for k, v in b.items()) for a, b in zip(last, new, strict=True))
        )  # type: ignore[arg-type]
        last[:] = new
        figures = s.trainer.callback_metrics
        if len(changed) <= rests:
            assert "train/g_adversarial" not in figures and "train/d_loss" not in figures
            weight = s.loss.l1_weight
            assert float(figures["train/loss"]) == pytest.approx(weight * float(figures["train/l1"]), rel=1e-5)
        else:
            assert "train/g_adversarial" in figures and "train/d_loss" in figures

    trainer(Each(look), max_steps=5).fit(stage, loader(batches(3)))
    assert changed == [(i >= rests, True) for i in range(5)]


# The same count in all stages


@pytest.mark.parametrize("model", EVERY)
def test_max_steps_are_batches(model: str) -> None:
    """Through the end of an epoch, though a GAN has two optimizers."""
    stage = build(model)
    calls: list[None] = []
    around(stage, "training_step", lambda: None, calls.append)
    t = trainer(max_steps=5)
    t.fit(stage, loader(batches(3)))
    assert len(calls) == 5
    assert t.global_step == 5


class Recorder(Logger):
    """Keeps at which step which names came."""

    name = "recorder"
    version = 0

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.names: set[str] = set()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train/loss" in metrics:
            assert step is not None
            self.steps.append(step)
            self.names |= set(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


@pytest.mark.parametrize("model", EVERY)
def test_training_metrics_are_those_of_what_was_predicted(model: str) -> None:
    """A network of zeros answers grey; its first step logs what grey scores, by scikit-image."""
    stage = build(model)
    for parameter in stage.network.parameters():
        parameter.data.zero_()
    (batch,) = batches(1, size=3)
    figures: dict[str, float] = {}
    look = Each(lambda s, _: figures.update(s.trainer.callback_metrics))
    trainer(look, max_steps=1, log_every_n_steps=1).fit(stage, loader([batch]))
    truths = batch["rgb"][:2].permute(0, 2, 3, 1).numpy() / 255
    greys = [lab2rgb(rgb2lab(truth) * (1, 0, 0)) for truth in truths]
    psnr = [peak_signal_noise_ratio(t, g, data_range=1) for t, g in zip(truths, greys, strict=True)]
    distance = [deltaE_ciede2000(rgb2lab(t), rgb2lab(g)).mean() for t, g in zip(truths, greys, strict=True)]
    assert float(figures["train/psnr"]) == pytest.approx(np.mean(psnr), abs=1e-3)
    assert float(figures["train/delta_e2000"]) == pytest.approx(np.mean(distance), abs=1e-2)
    assert float(figures["train/colorfulness"]) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("model", EVERY)
def test_logs_and_checkpoints_come_at_the_same_batches(model: str, tmp_path: Path) -> None:
    """Logs every two batches (numbered from zero), checkpoints every three, epochs of four."""
    logger = Recorder()
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
    settings = {"logger": logger, "enable_checkpointing": True, "log_every_n_steps": 2}
    trainer(saver, max_steps=7, **settings).fit(build(model), loader(batches(4)))
    assert logger.steps == [1, 3, 5]
    assert {"train/loss", "train/lr"} <= logger.names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step=3.ckpt", "step=6.ckpt"]


@pytest.mark.parametrize("model", EVERY)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fast_dev_run(model: str, precision: str) -> None:
    """One batch of training, validation and test; the weights stay float32 and finite."""
    stage = build(model)
    t = trainer(fast_dev_run=True, precision=precision)
    t.fit(stage, loader(batches(1)), loader(batches(1)))
    assert {"val/l1", "val/psnr", "val/ssim", "val/delta_e2000", "val/delta_colorfulness"} <= set(t.callback_metrics)
    t.test(stage, loader(batches(1)), verbose=False)
    assert {"test/l1", "test/psnr"} <= set(t.callback_metrics)
    assert all(v.isfinite() for v in t.callback_metrics.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in stage.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_fast_dev_run_on_cuda(model: str, precision: str) -> None:
    stage = build(model)
    t = trainer(accelerator="cuda", devices=1, fast_dev_run=True, precision=precision)
    t.fit(stage, loader(batches(1)), loader(batches(1)))
    assert all(v.isfinite() for v in t.callback_metrics.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in stage.parameters())


# Accumulation and clipping, which the GAN stage does by itself


def test_accumulation_moves_the_networks_every_second_batch() -> None:
    """And at the end of an epoch, as Lightning does; steps are counted as those of the optimizer."""
    stage = build("gan", "model.lr_schedule=constant")
    stage.accumulate_grad_batches = 2
    last = [weights(stage.network), weights(stage.discriminator)]
    changed: list[tuple[bool, bool]] = []

    def look(s: Any, _: int) -> None:
        changed.append((bool(moved(s.network, last[0])), bool(moved(s.discriminator, last[1]))))
        last[:] = [weights(s.network), weights(s.discriminator)]

    t = trainer(Each(look), max_epochs=2)
    t.fit(stage, loader(batches(5)))
    epoch = [False, True, False, True, True]
    assert changed == [(x, x) for x in epoch * 2]
    assert t.global_step == 6


def test_two_accumulated_batches_are_one_of_twice_the_size() -> None:
    """For D and for G, which learns from the D that has moved."""
    big = batches(1, size=4)[0]
    halves = [{k: v[:2] for k, v in big.items()}, {k: v[2:] for k, v in big.items()}]
    for warmup in (0, 1):
        once = build("gan", **PLAIN_GAN, warmup_epochs=warmup)
        twice = copy.deepcopy(once)
        before = weights(once)
        trainer(max_steps=1).fit(once, loader([big]))
        twice.accumulate_grad_batches = 2
        trainer(max_steps=1).fit(twice, loader(halves))
        after = weights(once)
        for k, v in twice.named_parameters():
            step = after[k] - before[k]
            assert step.abs().max() > 1e-5 or (warmup and k.startswith("discriminator."))
            assert (v - after[k]).abs().max() < 1e-3 * step.abs().max() + 1e-7, k


class Norms(Callback):
    """The norm of the gradient that each optimizer has used, read right after its step."""

    def __init__(self) -> None:
        self.norms: dict[int, list[float]] = defaultdict(list)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for i, optimizer in enumerate(trainer.optimizers):
            optimizer.register_step_post_hook(lambda o, *_, i=i: self.norms[i].append(self.norm(o)))

    @staticmethod
    def norm(optimizer: torch.optim.Optimizer) -> float:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        return math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads if g is not None))


def test_gradients_of_both_networks_are_clipped_by_value() -> None:
    class Largest(Norms):
        @staticmethod
        def norm(optimizer: torch.optim.Optimizer) -> float:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            return max(float(g.abs().max()) for g in grads if g is not None)

    stage = build("gan")
    stage.gradient_clip_val, stage.gradient_clip_algorithm = 1e-4, "value"
    largest = Largest()
    trainer(largest, max_steps=2).fit(stage, loader(batches(2)))
    for used in largest.norms.values():
        assert used == pytest.approx([1e-4] * 2)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_gradients_of_both_networks_are_clipped(clip: float | None) -> None:
    """Each to the norm that was asked for; without it they are larger, so the clip is at work."""
    stage = build("gan")
    stage.gradient_clip_val = clip
    norms = Norms()
    trainer(norms, max_steps=3).fit(stage, loader(batches(3)))
    assert len(norms.norms[0]) == len(norms.norms[1]) == 3
    for used in norms.norms.values():
        if clip is None:
            assert min(used) > 2e-3
        else:
            assert used == pytest.approx([clip] * 3, rel=1e-2)


# Learning rates


def expected_factor(schedule: str, progress: float, warmup: float) -> float:
    """The three schedules as one would draw them."""
    if warmup and progress < warmup:
        return float(np.interp(progress, [0, warmup], [0, 1]))
    if schedule == "linear_decay":
        return float(np.interp(progress, [0, 0.5, 1], [1, 1, 0]))
    if schedule == "cosine":
        return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2
    return 1.0


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "linear_decay", "cosine"])
def test_lr_factor(schedule: str, warmup: float) -> None:
    for progress in np.linspace(0, 1, 41):
        expected = expected_factor(schedule, float(progress), warmup)
        assert lr_factor(schedule, float(progress), warmup) == pytest.approx(expected, abs=1e-6)


def rates(stage: Any, **settings: Any) -> list[list[float]]:
    """The learning rate of each optimizer at each of its steps."""
    used: dict[int, list[float]] = defaultdict(list)

    class Rates(Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            for i, optimizer in enumerate(trainer.optimizers):
                optimizer.register_step_pre_hook(lambda o, *_, i=i: used[i].append(o.param_groups[0]["lr"]))

    count = settings.pop("batches", 5)
    trainer(Rates(), **settings).fit(stage, loader(batches(count)))
    return [used[i] for i in sorted(used)]


LINEAR_10 = [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]


@pytest.mark.parametrize("end", [{"max_steps": 10}, {"max_epochs": 2}], ids=["max_steps", "max_epochs"])
@pytest.mark.parametrize("model", MODELS)
def test_rate_is_constant_and_then_falls_to_zero_from_half_way(model: str, end: dict[str, int]) -> None:
    """For each optimizer; D's is the configured multiple of G's."""
    more = ["model.d_lr_factor=0.5"] if model in GANS else []
    used = rates(build(model, "model.lr_schedule=linear_decay", "model.optimizer.lr=1e-3", *more), **end)
    assert used[0] == pytest.approx([1e-3 * x for x in LINEAR_10])
    assert len(used) == (2 if model in GANS else 1)
    if model in GANS:
        assert used[1] == pytest.approx([0.5e-3 * x for x in LINEAR_10])


@pytest.mark.parametrize(
    "end",
    [{"max_steps": 10, "batches": 4}, {"max_epochs": 5, "batches": 4}, {"max_epochs": 5, "batches": 3}],
    ids=["max_steps", "even epochs", "odd epochs"],
)
@pytest.mark.parametrize("model", ["unet", "gan"])
def test_schedule_spans_the_run_with_accumulation(model: str, end: dict[str, int]) -> None:
    """Ten optimizer steps of two batches each (the last of an odd epoch has one), in both kinds of stage."""
    stage = build(model, "model.lr_schedule=linear_decay", "model.optimizer.lr=1e-3")
    if model in GANS:  # as train.py does
        stage.accumulate_grad_batches = 2
        used = rates(stage, **end)
    else:
        used = rates(stage, accumulate_grad_batches=2, **end)
    for each in used:
        assert each == pytest.approx([1e-3 * x for x in LINEAR_10])


# What is refused


@pytest.mark.parametrize(
    ("model", "loss"), [("baseline", "gan_l1"), ("unet", "gan_l1"), ("gan", "l1"), ("fusion", "mse")]
)
def test_loss_that_does_not_fit_is_refused(model: str, loss: str) -> None:
    with pytest.raises(InputError, match=rf"loss={loss}\b.*model={model}\b"):
        build(model, f"loss={loss}")


@pytest.mark.parametrize(
    ("model", "override", "key"),
    [
        ("baseline", "model.lr_schedule=step", "model.lr_schedule=step"),
        ("fusion", "model.lr_schedule=step", "model.lr_schedule=step"),
        ("unet", "model.optimizer.lr=0", "model.optimizer.lr=0"),
        ("gan", "model.d_lr_factor=0", "model.d_lr_factor=0"),
        ("gan", "model.warmup_epochs=-1", "model.warmup_epochs=-1"),
        ("unet", "+model.resnet_weights=imagenet", "model.resnet_weights"),
    ],
)
def test_setting_that_cannot_work_is_refused_by_its_name(model: str, override: str, key: str) -> None:
    with pytest.raises(InputError, match=key):
        build(model, override)


# Averaged weights


@pytest.mark.parametrize("model", ["unet", "gan"])
def test_checkpoint_under_ema_holds_the_average(model: str, tmp_path: Path) -> None:
    """Of G and D, over recorded weights: the first step's, then keep · average + (1 - keep) · new, where keep is
    TensorFlow's min(decay, (1 + updates) / (10 + updates)), here 2/11, 0.25, 0.25."""
    decay, average = 0.25, dict[str, torch.Tensor]()
    current: dict[str, torch.Tensor] = {}

    def record(s: ColorizationStage, number: int) -> None:
        current.update({k: v.detach().clone().double() for k, v in s.state_dict().items() if v.is_floating_point()})
        for k, v in current.items():
            keep = min(decay, number / (9 + number))  # it was updated number - 1 times
            average[k] = v if number == 1 else keep * average[k] + (1 - keep) * v

    stage = build(model, "model.optimizer.lr=1e-2", "model.lr_schedule=constant")
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4)
    t = trainer(Each(record), EMA(decay), saver, max_steps=4, enable_checkpointing=True)
    t.fit(stage, loader(batches(2)))

    content = checkpoint.read_checkpoint(tmp_path / "step=4.ckpt")
    saved = {k: v.double() for k, v in content["state_dict"].items() if k in average}
    assert saved.keys() == average.keys() and any(k.startswith("network.") for k in saved)
    assert any(k.startswith("discriminator.") for k in saved) == (model == "gan")
    for k, v in saved.items():
        assert torch.allclose(v, average[k], rtol=1e-4, atol=1e-6), k
    assert max(float((saved[k] - current[k]).abs().max()) for k in saved) > 1e-3  # it is not just the last weights
    network, description = checkpoint.load_weights(tmp_path / "step=4.ckpt")
    assert description["stage"] == model
    for k, v in network.named_parameters():
        assert torch.equal(v, content["state_dict"][f"network.{k}"])


# Losses


@pytest.fixture
def pair() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(4)
    yield torch.rand(2, 2, 8, 8, generator=g) - 0.5, torch.rand(2, 2, 8, 8, generator=g) - 0.5


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mse", lambda e: e**2),
        ("l1", np.abs),
        ("huber", lambda e: np.where(abs(e) < 0.05, e**2 / 2, 0.05 * (abs(e) - 0.025))),
    ],
)
def test_pixel_loss_is_the_mean_of_its_formula(
    pair: tuple[torch.Tensor, torch.Tensor], name: str, formula: Callable[[np.ndarray], np.ndarray]
) -> None:
    error = (pair[0].double() - pair[1].double()).numpy()
    assert 0.01 < (np.abs(error) < 0.05).mean() < 0.99  # both branches of the Huber loss
    loss = PixelLoss(name)
    assert float(loss(*pair)) == pytest.approx(formula(error).mean(), rel=1e-5)
    half = loss(pair[0].bfloat16(), pair[1])
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(
        formula((pair[0].bfloat16().double() - pair[1].double()).numpy()).mean(), rel=1e-5
    )


def test_delta_e94_is_the_formula_of_skimage_with_the_truth_as_standard() -> None:
    g = torch.Generator().manual_seed(4)
    ab, truth = (80 * (torch.rand(2, 2, 16, 16, generator=g) - 0.5) for _ in range(2))
    lab, true_lab = (np.moveaxis(np.insert(x.double().numpy(), 0, 50.0, axis=1), 1, -1) for x in (ab, truth))
    assert np.allclose(delta_e94(ab, truth), deltaE_ciede94(true_lab, lab), atol=1e-3)
    assert float(PixelLoss("delta_e94")(ab / 110, truth / 110)) == pytest.approx(
        deltaE_ciede94(true_lab, lab).mean() / 110, rel=1e-4
    )
    grey = torch.zeros_like(ab, requires_grad=True)
    for standard in (truth, torch.zeros_like(ab)):  # where both are grey the formula's own gradient does not exist
        (gradient,) = torch.autograd.grad(delta_e94(grey, standard).sum(), grey)
        assert torch.isfinite(gradient).all()


def test_colorfulness_term_is_the_distance_between_the_pictures_colorfulness(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    def formula(ab: np.ndarray) -> float:  # Hasler and Süsstrunk 2003, the metric in CIELAB
        return np.hypot(ab[0].std(), ab[1].std()) + 0.37 * np.hypot(ab[0].mean(), ab[1].mean())

    ab, truth = pair[0], 0.3 * pair[1]
    distances = [abs(formula(a) - formula(t)) for a, t in zip(ab.numpy(), truth.numpy(), strict=True)]
    plain, with_it = (float(PixelLoss("l1", colorfulness=weight)(ab, truth)) for weight in (0, 0.5))
    assert with_it == pytest.approx(plain + 0.5 * np.mean(distances), rel=1e-5)
    grey = torch.zeros_like(ab, requires_grad=True)
    PixelLoss("l1", colorfulness=1)(grey, truth).backward()
    assert grey.grad is not None and torch.isfinite(grey.grad).all()


def test_shipped_pixel_losses_are_those_of_torch(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """What ``loss=`` names in the config."""
    for name, reference in (("mse", nn.MSELoss()), ("l1", nn.L1Loss()), ("huber", nn.HuberLoss(delta=0.05))):
        assert torch.equal(build("unet", f"loss={name}").loss(*pair), reference(*pair))


@pytest.mark.parametrize("real_label", [0.9, 1.0])
def test_vanilla_adversarial_loss_is_cross_entropy_of_probabilities(real_label: float) -> None:
    g = torch.Generator().manual_seed(4)
    real, fake = (3 * torch.randn(2, 1, 6, 6, generator=g) for _ in range(2))
    loss = AdversarialLoss(real_label=real_label)

    def entropy(logits: torch.Tensor, target: float) -> float:
        probability = torch.sigmoid(logits.double())
        return float(nn.functional.binary_cross_entropy(probability, torch.full_like(probability, target)))

    expected = (entropy(real, real_label) + entropy(fake, 0.0)) / 2
    assert float(loss.discriminator(real, fake)) == pytest.approx(expected, rel=1e-5)
    assert float(loss.generator(fake)) == pytest.approx(entropy(fake, 1.0), rel=1e-5)  # no smoothing for G
    assert loss.generator(fake.bfloat16()).dtype == torch.float32


def test_lsgan_adversarial_loss_is_least_squares() -> None:
    g = torch.Generator().manual_seed(4)
    real, fake = (torch.randn(2, 1, 6, 6, generator=g) for _ in range(2))
    loss = AdversarialLoss(mode="lsgan", real_label=0.9)
    expected = (np.mean((real.double().numpy() - 0.9) ** 2) + np.mean(fake.double().numpy() ** 2)) / 2
    assert float(loss.discriminator(real, fake)) == pytest.approx(expected, rel=1e-5)
    assert float(loss.generator(fake)) == pytest.approx(np.mean((fake.double().numpy() - 1) ** 2), rel=1e-5)


def test_adversarial_loss_cannot_be_fooled_into_overflow() -> None:
    """Logits at which a probability is 0 or 1 in float32 give the linear loss that they should, and a gradient."""
    fake = torch.full((1, 1, 1, 1), -200.0, requires_grad=True)
    value = AdversarialLoss().generator(fake)
    value.backward()
    assert float(value) == pytest.approx(200.0)
    assert float(fake.grad) == pytest.approx(-1.0)  # type: ignore[arg-type]


def test_generator_loss_is_the_weighted_sum() -> None:
    """What the stage logs: λ · L1 + adversarial, with the shipped λ of pix2pix."""
    stage = build("gan")
    seen: list[dict[str, float]] = []
    record = Each(lambda s, _: seen.append({k: float(v) for k, v in s.trainer.callback_metrics.items()}))
    trainer(record, max_steps=1).fit(stage, loader(batches(1)))
    assert seen[0]["train/loss"] == pytest.approx(100 * seen[0]["train/l1"] + seen[0]["train/g_adversarial"], rel=1e-5)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="ssim"):
        PixelLoss("ssim")
    with pytest.raises(ValueError, match="colorfulness=-1"):
        PixelLoss("l1", colorfulness=-1)
    with pytest.raises(ValueError, match="wgan"):
        AdversarialLoss(mode="wgan")


def test_stage_classes_are_those_of_the_configs() -> None:
    """Stages 3 and 4 are one class, with different networks."""
    assert [type(build(m)).__name__ for m in MODELS] == ["RegressionStage", "RegressionStage", "GANStage", "GANStage"]
    assert isinstance(build("fusion"), GANStage)
    assert len({type(build(m).network) for m in ("unet", "gan", "fusion")}) == 2


# How the step runs


def prepare(stage: Any, **how: bool) -> Any:
    """The stage as ``train.py`` prepares it."""
    plain = {"channels_last": False, "fused": False, "activation_checkpointing": False, "compile": False}
    stage.prepare(**{**plain, **how})
    return stage


class Allocated(Callback):
    """``peak``: the most bytes that torch had allocated within the first training batch, beyond those before it."""

    def on_train_batch_start(self, *_: Any) -> None:
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self._profile.start()

    def on_train_batch_end(self, *_: Any) -> None:
        self._profile.stop()
        events = self._profile.profiler.kineto_results.events()  # type: ignore[union-attr]
        self.peak = max(np.cumsum([e.nbytes() for e in events if e.name() == "[memory]"]))


def bytes_kept(network: nn.Module, L: torch.Tensor) -> int:
    """What a forward pass in training keeps for the backward pass, beside parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in network.state_dict().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _answer = network.train()(L)
    return sum(s.nbytes() for k, s in kept.items() if k not in own)


@pytest.mark.parametrize("model", MODELS)
def test_activation_checkpointing_takes_less_memory_and_changes_nothing(model: str) -> None:
    """Weights, running averages (which move once) and dropout after three steps, to the bit."""
    results, kept = [], []
    for recompute in (False, True):
        stage = prepare(build(model), activation_checkpointing=recompute)
        kept.append(bytes_kept(stage.network, torch.rand(2, 1, 64, 64)))
        torch.manual_seed(1)
        trainer(max_steps=3).fit(stage, loader(batches(3, side=33)))
        results.append(stage.state_dict())
    plain, again = results
    assert plain.keys() == again.keys()
    assert all(torch.equal(v, again[k]) for k, v in plain.items())
    assert kept[1] < 0.75 * kept[0]


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm2d], ids=lambda n: n.__name__)
def test_gan_at_512_pixels_trains_in_less_than_half_the_memory(norm: type[nn.Module]) -> None:
    """A batch of four as four of one, activations computed again: without batch norm the same step within rounding."""
    (big,) = batches(1, size=4, side=512)
    single = [{k: v[i : i + 1] for k, v in big.items()} for i in range(4)]
    steps, peaks = [], []
    for accumulated, content in ((1, [big]), (4, single)):
        stage = build("gan", "model.network.dropout=0", optimizer=PLAIN_GAN["optimizer"])
        for module in list(stage.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d) and norm is nn.Identity:
                    setattr(module, name, nn.Identity())
        prepare(stage, activation_checkpointing=accumulated > 1)
        stage.accumulate_grad_batches = accumulated
        before = weights(stage)
        allocated = Allocated()
        trainer(allocated, max_steps=1).fit(stage, loader(content))
        steps.append({k: v.detach() - before[k] for k, v in stage.named_parameters()})
        peaks.append(allocated.peak)
    assert peaks[1] < 0.5 * peaks[0]
    if norm is nn.Identity:
        for k, step in steps[0].items():
            assert step.abs().max() > 0
            assert (steps[1][k] - step).abs().max() < 1e-3 * step.abs().max() + 1e-7, k


def test_activation_checkpointing_without_levels_is_refused() -> None:
    stage = build("unet")
    stage.network = nn.Conv2d(1, 2, 1)
    with pytest.raises(InputError, match=r"activation_checkpointing=true.*unet"):
        prepare(stage, activation_checkpointing=True)


def test_generator_learns_under_autocast_from_accumulated_batches() -> None:
    """Autocast keeps 16-bit copies of the weights; those made for D carry no gradient."""
    stage = build("gan")
    stage.accumulate_grad_batches = 2
    before = weights(stage.network)
    trainer(max_steps=1, precision="bf16-mixed").fit(stage, loader(batches(2)))
    assert moved(stage.network, before) == trainable(stage.network)


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        ({"_target_": "torch.optim.Adam", "lr": 1e-3}, True),
        ({"_target_": "torch.optim.AdamW", "lr": 1e-3}, True),
        ({"_target_": "torch.optim.SGD", "lr": 1e-3, "momentum": 0.9}, True),
        ({"_target_": "torch.optim.Adam", "lr": 1e-3, "fused": False}, False),
        ({"_target_": "torch.optim.Adam", "lr": 1e-3, "foreach": True}, None),
        ({"_target_": "torch.optim.RMSprop", "lr": 1e-3}, None),  # has no such argument
    ],
)
def test_optimizer_is_fused_where_it_can_be_and_nothing_else_was_asked(
    optimizer: dict[str, Any], fused: bool | None
) -> None:
    """And goes where the plain one goes."""
    results = []
    for asked in (True, False):
        stage = prepare(build("baseline", optimizer=optimizer), fused=asked)
        before = weights(stage)
        t = trainer(max_steps=2)
        t.fit(stage, loader(batches(2)))
        used = t.optimizers[0].param_groups[0].get("fused")
        assert used == (fused if asked else (fused and None))
        results.append({k: v.detach() - before[k] for k, v in stage.named_parameters()})
    for k, step in results[1].items():
        assert (results[0][k] - step).abs().max() < 0.01 * step.abs().max(), k


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("model", EVERY)
def test_convolutions_are_channels_last_only_when_asked(model: str, asked: bool) -> None:
    stage = prepare(build(model), channels_last=asked)
    seen: set[tuple[bool, bool]] = set()

    def look(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        if min(output.shape[1:]) > 1:  # else it is both
            last = output.is_contiguous(memory_format=torch.channels_last)
            seen.add((output.is_contiguous(), last))

    for module in stage.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(look)
    trainer(max_steps=1).fit(stage, loader(batches(1, side=64)))
    assert seen == {(not asked, asked)}


class Operations(TorchDispatchMode):
    """Counts what torch is asked for: each operation, and the gradients of convolutions' weights."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        if name == "convolution_backward":
            self.counts["weight gradients"] += args[-1][1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", EVERY)
def test_step_waits_for_nothing_and_computes_nothing_twice(model: str) -> None:
    """No ``.item()``; one pass of G, three of D (true, generated, generated for G), no gradient of the frozen D."""
    stage = prepare(build(model), fused=True)
    convolutions = (nn.Conv2d, nn.ConvTranspose2d)
    g, frozen = (
        sum(isinstance(m, convolutions) and m.weight.requires_grad == trains for m in stage.network.modules())
        for trains in (True, False)
    )
    d = sum(isinstance(m, convolutions) for m in stage.discriminator.modules()) if model in GANS else 0
    operations = Operations()
    around(stage, "training_step", operations.__enter__, lambda _: operations.__exit__(None, None, None))
    trainer(max_steps=1).fit(stage, loader(batches(1)))
    assert operations.counts["_local_scalar_dense"] == 0
    assert operations.counts["convolution"] == g + frozen + 3 * d
    if model in GANS:  # whose step holds the backward passes
        assert operations.counts["weight gradients"] == g + 2 * d


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("model", MODELS)
def test_compiled_stage_trains_like_an_eager_one(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The losses of three steps, the validation, and the names in the checkpoint.

    By torch's C++ for one stage of each class; the others' graphs, forward and backward, are run as they were traced.
    """
    if model in ("baseline", "fusion"):
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    # What other torch, processor or run has left in the cache of this machine is not what is tested.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    small = [] if model == "baseline" else ["model.network.dropout=0", "model.network.depth=2"]
    small += ["model.discriminator.layers=1"] if model in GANS else []
    results, stages = [], []
    for compiled in (False, True):
        stage = build(model, *small)
        prepare(stage, compile=compiled, channels_last=True, fused=True)
        losses: list[float] = []
        record = Each(lambda s, _, losses=losses: losses.append(float(s.trainer.callback_metrics["train/loss"])))
        t = trainer(record, max_steps=3)
        t.fit(stage, loader(batches(3)), loader(batches(1)))
        results.append([*losses, float(t.callback_metrics["val/l1"])])
        stages.append(stage)
    assert results[1] == pytest.approx(results[0], rel=1e-3)
    assert stages[1].network._compiled_call_impl is not None
    stages[0].load_state_dict(stages[1].state_dict(), strict=True)
