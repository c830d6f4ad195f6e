"""Training: images/s of the stages as configured, through Lightning and the loader, against the plain loop, in one run.

    python benchmarks/bench_train.py [--stages baseline,unet,gan,fusion] [--size 256] [--seconds 40] [--device cuda]
        [--overrides "trainer.precision=auto accelerator.compile=true"]

Same network, same batch size (the accelerator's default); FLOPs are counted, the peak is measured, and Lightning's own
share is that against a loop by hand of the same steps on the same batches.
"""

from __future__ import annotations

import logging
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from common import arguments, photos
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from reference import PlainPhotos, plain_training
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from colorization import train
from colorization.core import devices, hydra_main, runs, signals
from colorization.training import checkpointing

PHOTOS = 256
LOSS = {"baseline": nn.MSELoss(), "unet": nn.L1Loss(), "gan": nn.L1Loss(), "fusion": nn.L1Loss()}
Timed = tuple[int, float]  # images, seconds


class Peak:
    """``mb``: the most memory that tensors took within, beyond what there was before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() - self._before
        else:
            self._profile.stop()
            total = peak = 0
            assert self._profile.profiler is not None and self._profile.profiler.kineto_results is not None
            for event in self._profile.profiler.kineto_results.events():
                if event.name() == "[memory]":
                    total += event.nbytes()  # type: ignore[attr-defined]
                    peak = max(peak, total)
        self.mb = peak / 2**20


class Watch(pl.Callback):
    """Times the batches after the first ``warm`` ones, loading included; of the first it measures the memory."""

    def __init__(self, warm: int = 1, memory: bool = False) -> None:
        self.warm, self.memory, self.images = warm, memory, 0

    def on_train_batch_start(self, trainer: pl.Trainer, stage: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self.memory:
            self._peak = Peak(stage.device).__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, stage: pl.LightningModule, _: Any, batch: Any, i: int) -> None:
        if i == 0 and self.memory:
            self._peak.__exit__()
            self.mb = self._peak.mb
        if i + 1 < self.warm:
            return
        if i + 1 > self.warm:
            self.images += len(batch["rgb"])
        if i + 1 in (self.warm, trainer.num_training_batches):
            wait(stage.device)
            self._start, self.seconds = time.perf_counter(), time.perf_counter() - getattr(self, "_start", 0)


def quiet() -> None:
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Ours:
    """A stage, its data and its trainer as ``colorization.train`` makes them, without checkpoints and validation."""

    def __init__(
        self, name: str, folder: Path, size: int, device: str, overrides: list[str], prepared: bool = True
    ) -> None:
        with initialize_config_module("colorization.configs", version_base="1.3"):
            self.cfg: DictConfig = compose(
                "train",
                overrides=[
                    f"model={name}", f"trainer.accelerator={device}", f"paths.output_dir={folder.parent}/outputs",
                    f"datamodule.train_dir={folder}", f"datamodule.val_dir={folder.parent / 'val'}",
                    f"datamodule.image_size={size}", "trainer.max_epochs=1",
                    "trainer.limit_val_batches=0", "trainer.enable_progress_bar=false",
                    *(["model.resnet_weights=null"] if name == "fusion" else []), *overrides,
                ],
            )  # fmt: skip
        train.check(self.cfg)
        self.batch_size = self.cfg.datamodule.batch_size  # that of the accelerator
        kind = self.cfg.accelerator.kind
        self.cfg.trainer.precision = devices.resolve_precision(self.cfg.trainer.precision, kind)
        self.device = torch.device(kind)
        self.stage = hydra_main.instantiate(self.cfg.model)
        if prepared:
            train.prepare(self.cfg, self.stage)
        self.data = hydra_main.instantiate(self.cfg.datamodule)
        self.data.setup("fit")

    def fit(self, batches: int, watch: Watch, resident: list[Any] | None = None) -> Timed:
        """Train that many batches, those ``resident`` or from the loader."""
        self.cfg.trainer.limit_train_batches = batches
        run = runs.Run(Path(self.cfg.paths.run_dir))
        run.path.mkdir(parents=True, exist_ok=True)
        epoch = 1000  # batches; so few as here would be logged at each step
        trainer = train.build_trainer(self.cfg, self.stage, run, signals.StopSignals(), epoch)
        trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, checkpointing.LastCheckpoint)]  # type: ignore[attr-defined]
        trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        data: dict[str, Any] = (
            {"datamodule": self.data}
            if resident is None
            else {
                "train_dataloaders": DataLoader(resident, batch_size=None)  # type: ignore[arg-type]
            }
        )
        trainer.fit(self.stage, **data)
        return watch.images, watch.seconds

    def batches(self, count: int) -> list[Any]:
        """Batches of the loader on the device."""
        found = islice(self.data.train_dataloader(), count)
        return [{k: v.to(self.device) for k, v in b.items()} for b in found]


def plain_side(pipe: Connection, name: str, folder: Path, size: int, device: str, overrides: list[str]) -> None:
    """The plain loop in a process of its own, with nothing of what ours sets: tells its memory and FLOPs, then for
    each number of steps that it is sent the images and the seconds."""
    quiet()
    ours = Ours(name, folder, size, device, overrides, prepared=False)
    networks = (ours.stage.network, getattr(ours.stage, "discriminator", None))
    loader = DataLoader(
        PlainPhotos(sorted(folder.glob("*.jpg")), size), batch_size=ours.batch_size, shuffle=True, drop_last=True
    )
    plain = plain_training(*networks, loader, ours.device, LOSS[name], lr=2e-4)
    with Peak(ours.device) as memory:
        next(plain)
    with FlopCounterMode(display=False) as flops:
        next(plain)
    pipe.send((memory.mb, flops.get_total_flops()))
    while count := pipe.recv():
        wait(ours.device)
        start = time.perf_counter()
        images = sum(next(plain) for _ in range(count))
        wait(ours.device)
        pipe.send((images, time.perf_counter() - start))


def bench_stage(
    name: str, folder: Path, size: int, seconds: float, device: str, overrides: list[str]
) -> dict[str, Any]:
    """images/s of the plain loop and of ours, by turns, for about ``seconds``; at least two rounds."""
    pipe, other = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=plain_side, args=(other, name, folder, size, device, overrides), daemon=True)
    process.start()
    plain_mb, flops = pipe.recv()
    ours = Ours(name, folder, size, device, overrides)
    ours.fit(1, first := Watch(memory=True))

    def plain(steps: int) -> Timed:
        pipe.send(steps)
        return pipe.recv()

    steps = min(max(2, round(4 / plain(1)[1])), PHOTOS // ours.batch_size - 1)
    rates: dict[str, list[float]] = {"plain": [], "ours": []}
    if ours.device.type == "cuda":  # does the loader keep up?
        rates["ours, data on the device"] = []
        resident = ours.batches(steps + 1)
    start = time.perf_counter()
    while len(rates["ours"]) < 2 or time.perf_counter() - start < seconds:
        rounds = {"plain": plain(steps), "ours": ours.fit(steps + 1, Watch())}
        if ours.device.type == "cuda":
            rounds["ours, data on the device"] = ours.fit(steps + 1, Watch(), resident)
        for side, (images, took) in rounds.items():
            rates[side].append(images / took)
    pipe.send(0)
    process.join()
    medians = {side: statistics.median(r) for side, r in rates.items()}
    gflop = flops / ours.batch_size / 1e9
    precision = "bf16" if "bf16" in ours.cfg.trainer.precision else "fp32"
    return {
        "stage": name,
        "precision": precision,
        "batch": ours.batch_size,
        **{f"{side}, images/s": rate for side, rate in medians.items()},
        "ratio": medians["ours"] / medians["plain"],
        "GFLOP/image": gflop,
        "share of peak": gflop * medians["ours"] / peak_gflops(ours.device)[precision],
        "plain, peak MB": plain_mb,
        "ours, peak MB": first.mb,
    }


@cache
def peak_gflops(device: torch.device) -> dict[str, float]:
    """GFLOP/s of this machine: the best of a convolution and a matrix product that fit into the cache."""
    peaks = {}
    kinds = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if devices.has_bf16(device.type) else {})}
    n = 512 if device.type == "cpu" else 8192
    for name, dtype in kinds.items():
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        x = torch.randn(n // 64, 128, 28, 28, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        w = torch.randn(128, 128, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        works: list[tuple[Callable[[], Any], float]] = [
            (partial(torch.matmul, a, b), 2 * n**3),
            (partial(F.conv2d, x, w, padding=1), 2 * 9 * 128 * x.numel()),
        ]
        best = 0.0
        for work, flop in works:
            for _ in range(20):
                wait(device)
                start = time.perf_counter()
                for _ in range(10):
                    work()
                wait(device)
                best = max(best, 10 * flop / (time.perf_counter() - start) / 1e9)
        peaks[name] = best
    return peaks


def lightning_overhead(folder: Path, device: str, rounds: int = 7, steps: int = 100) -> float:
    """Milliseconds that Lightning and our callbacks add to a step of a loop by hand, in stage 1.

    On pictures of 32 x 32, where a step is so short that the difference is not lost in its noise.
    """
    ours = Ours("baseline", folder, 32, device, ["model.network.width=4"])
    batches = ours.batches(1) * (steps + 20)

    def by_hand() -> Timed:
        stage = ours.stage.to(ours.device).train()
        optimizer = stage.build_optimizer(stage.network.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        for i, batch in enumerate(batches):
            if i == 20:
                wait(ours.device)
                start = time.perf_counter()
            L, ab, _ = stage.read(batch)
            loss = stage.loss(stage(L), ab)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        wait(ours.device)
        return steps, time.perf_counter() - start

    differences = []
    for _ in range(rounds):
        _, plain = by_hand()
        _, lightning = ours.fit(len(batches), Watch(warm=20), batches)
        differences.append(1000 * (lightning - plain) / steps)
    return statistics.median(differences)


def bench(
    stages: str = "baseline,unet,gan,fusion", size: int = 256, seconds: float = 40.0, device: str = "auto",
    overrides: str = "",
) -> dict[str, Any]:  # fmt: skip
    """images/s in training, ours against the plain loop; ``seconds`` for each stage; Hydra ``overrides`` of ours."""
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        folder = photos(Path(scratch), PHOTOS)
        rows = [bench_stage(s, folder, size, seconds, device, overrides.split()) for s in stages.split(",")]
        overhead = lightning_overhead(folder, device)
    peaks = peak_gflops(torch.device(devices.choose(device, "device")))
    for row in rows:
        if row["stage"] == "baseline":
            row["Lightning"] = overhead / (1000 * row["batch"] / row["ours, images/s"])
    return {"rows": rows, "peak GFLOP/s": peaks, "Lightning, ms/step": overhead}


if __name__ == "__main__":
    arguments(bench)
