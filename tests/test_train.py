"""The training command: composition, the run folder, mistakes, stopping, resuming, sweeping, a fifth stage."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forks
import numpy as np
import pytest
import skimage.color
import torch
import yaml
from conftest import SMALL_STAGES as STAGES
from conftest import wait_for
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open

import colorization.networks
from colorization import train
from colorization.colorize.colorizer import Colorizer
from colorization.core import devices, hydra_main, overrides
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.data.datamodules import SampleDataModule
from colorization.models import checkpoint, descriptions
from colorization.networks import building
from colorization.summarize import collect, epochs
from colorization.summarize import main as summarize
from colorization.training import callbacks, resume

CONFIGS = Path(hydra_main.__file__).parents[3] / "configs"
MEASURED = {"images_per_second", "peak_memory_mb"}  # of a run, not of what it computes
SMALL = [
    "datamodule=sample",
    "datamodule.image_size=32",
    "datamodule.crops=2",
    "datamodule.batch_size=2",
    "datamodule.num_workers=0",
    "accelerator=cpu",
    "logger=csv",
    "trainer.max_epochs=2",
]


@pytest.fixture
def command(run_main: Callable[..., int]) -> Callable[..., int]:
    """``command(*overrides)``: the training command in this process, in ``tmp_path``; returns its exit code."""
    return lambda *overrides: run_main(train.main, *overrides)


def runs_in(folder: Path) -> list[Run]:
    return [Run(f.parent) for f in sorted(folder.glob("outputs/runs/*/status.json"))]


# Configuration


def options(group: str) -> list[str]:
    """Its names, of an experiment with its study's; other groups' folders are groups of their own."""
    files = (CONFIGS / group).glob("**/*.yaml" if group == "experiment" else "*.yaml")
    return sorted(
        f.relative_to(CONFIGS / group).with_suffix("").as_posix() for f in files if not f.stem.startswith("_")
    )


GROUPS = {p.name for p in CONFIGS.iterdir() if p.is_dir()} - {"__pycache__", "space"}  # that is of configs/sweep.yaml


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_yaml_composes_and_resolves(group: str, compose_train: Callable[..., DictConfig]) -> None:
    for option in options(group):
        extra = ["model=gan"] if (group, option) == ("loss", "gan_l1") else []
        cfg = compose_train(f"{group}={option}", *extra)
        resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        # experiment and debug are packages of the root: they leave their values in the other groups
        assert group in ("experiment", "debug") or resolved[group], option


@pytest.mark.parametrize(
    ("model", "loss"),
    [("baseline", "mse"), ("unet", "l1"), ("gan", "gan_l1"), ("fusion", "gan_l1"), ("classes", "rebalanced")],
)
def test_each_model_brings_its_loss_and_yields_to_an_explicit_one(model, loss, compose_train) -> None:
    assert compose_train(f"model={model}").loss.name == loss
    assert compose_train(f"model={model}", "loss=huber").loss.name == "huber"


@pytest.mark.parametrize(("kind", "batch"), [("cpu", 4), ("mps", 8), ("cuda", 16)])
def test_the_accelerator_selects_defaults_and_the_trainers_wins(kind, batch, compose_train) -> None:
    assert compose_train(f"accelerator={kind}").datamodule.batch_size == batch
    other = compose_train("accelerator=cpu", f"trainer.accelerator={kind}")
    assert other.trainer.accelerator == kind
    assert other.datamodule.batch_size == batch
    assert other.datamodule.pin_memory == (kind == "cuda")


def test_auto_prefers_mps_then_cuda_then_cpu(compose_train, monkeypatch) -> None:
    for mps, cuda, expected in [(True, True, "mps"), (False, True, "cuda"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert compose_train().accelerator.kind == expected


def test_paths_default_to_the_environment(compose_train, monkeypatch) -> None:
    assert compose_train().datamodule.data_dir == "data"
    monkeypatch.setenv("COLORIZATION_DATA", "/photos")
    assert compose_train().datamodule.data_dir == "/photos"
    assert compose_train("datamodule=coco").datamodule.data_dir == "/photos/coco/val2017"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("debug", ["fast", "overfit"])
def test_debug_configs_run(stage, debug, command, tmp_path) -> None:
    extra = ["trainer.max_epochs=2"] if debug == "overfit" else []
    extra += ["model.network.features=null"] if (stage, debug) == ("fusion", "fast") else []  # a run with the ResNet-18
    small = [o for o in SMALL if not o.startswith("trainer")]
    assert command(*STAGES[stage], *small, f"debug={debug}", *extra) == 0
    (run,) = runs_in(tmp_path)
    assert run.status()["state"] == "finished"


@pytest.mark.parametrize("stage", STAGES)
def test_the_quickstart_of_each_stage_learns(stage, command, tmp_path, capsys) -> None:
    """Better at its end than at its begin, and than grey but for fusion, which starts from nothing."""
    assert command(f"experiment=quickstart/{stage}", "logger=csv", "test=false") == 0
    (run,) = runs_in(tmp_path)
    assert "LPIPS" not in capsys.readouterr().err  # no word of what was not asked for
    values = {
        n: [r["value"] for r in run.metrics() if (r["split"], r["name"]) == ("val", n)] for n in ("psnr", "delta_e2000")
    }
    module = SampleDataModule(image_size=64, batch_size=8, num_workers=0)
    module.setup("fit")
    photos = next(iter(module.loader("val", train=False)))["rgb"].permute(0, 2, 3, 1).numpy()
    truths = [skimage.color.rgb2lab(photo) for photo in photos]
    grey = np.mean([skimage.color.deltaE_ciede2000(t, t * [1, 0, 0]).mean() for t in truths])
    if stage == "fusion":
        assert values["psnr"][-1] > values["psnr"][0]
    else:
        assert values["delta_e2000"][-1] < min(values["delta_e2000"][0], 0.95 * grey)


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=vgg"], ["model/vgg", "unet"]),
        (["datamodule.batch_size=-4"], ["datamodule.batch_size=-4", "1 or more"]),
        (["datamodule=folder", "datamodule.data_dir=nowhere"], ["datamodule.data_dir=nowhere", "no such folder"]),
        (["datamodule=folder", "datamodule.data_dir=empty"], ["datamodule.data_dir=empty", "no photographs"]),
        (["model=unet", "loss=gan_l1"], ["loss=gan_l1", "model=unet", "huber"]),
        (["model=gan", "loss=l1"], ["loss=l1", "model=gan", "gan_l1"]),
        (["trainer.accelerator=tpu"], ["trainer.accelerator=tpu", "cpu"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0"]),
        (["trainer.precision=16-mixed"], ["trainer.precision=16-mixed", "bf16"]),
        (["model.optimizer.lr=0"], ["model.optimizer.lr=0"]),
        (["model.lr_schedule=steps"], ["model.lr_schedule=steps", "cosine"]),
        (["trainer.epochs=3"], ["trainer.epochs"]),
        (["trainer.precision=8"], ["trainer.precision=8", "bf16-mixed"]),
        (["trainer.val_check_interval=-2"], ["trainer", "val_check_interval"]),
        (["model=gan", "loss.mode=wgan"], ["loss.mode=wgan", "vanilla"]),
        (["+model.optimizer.momentum=0.9"], ["model.optimizer", "momentum"]),
        (["seed=-1"], ["seed=-1"]),
        (["run_id=../x"], ["run_id=../x"]),
        (["run_id=new", "ckpt_path=last"], ["ckpt_path=last", "run_id=new"]),
        (["ckpt_path=nothing.ckpt"], ["ckpt_path=nothing.ckpt"]),
        (["init_weights=nothing"], ["nothing"]),
        (["model=unet", "+model.resnet_weights=null"], ["model.resnet_weights", "model=unet"]),
        ([*STAGES["fusion"], "+model.warmup_epoch=1"], ["model.warmup_epoch", "model=fusion"]),
        (["+trainer.overfit_batches=1"], ["trainer.overfit_batches=1", "debug=overfit"]),
        (["trainer.precision=64-true"], ["trainer.precision=64-true", "32-true"]),
        (["model=gan", "+trainer.gradient_clip_algorithm=x"], ["trainer.gradient_clip_algorithm=x", "norm"]),
        (
            [*STAGES["baseline"], "+callbacks.rate._target_=pytorch_lightning.callbacks.LearningRateFinder"],
            ["LearningRateFinder"],
        ),
        (
            ["callbacks=early_stopping", "trainer.limit_val_batches=0"],
            ["callbacks=early_stopping", "limit_val_batches"],
        ),
        (["hydra/sweeper=optuna"], ["hydra/sweeper/optuna", "python -m colorization.sweep"]),
        (["datamodule._target_=builtins.dict"], ["datamodule._target_=builtins.dict", "LightningDataModule"]),
        (["datamodule.flip=a(b"], ["datamodule.flip=a(b", "'datamodule.flip='"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(overrides, words, command, capsys, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    small = [o for o in SMALL if "crops" not in o] if "datamodule=folder" in overrides else SMALL
    assert command(*small, *overrides) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert all(word in error for word in words), error
    assert not list(tmp_path.glob("outputs/runs/*/checkpoints/*"))


def test_names_are_names_and_paths_may_have_any_character(run_main, photo_folder, tmp_path) -> None:
    """A run of such a name on such a folder, and one that starts from its weights."""
    odd = photo_folder.rename(tmp_path / "José – (1950) & 'x', a=b")
    small = ["datamodule.image_size=32", "datamodule.num_workers=0", "accelerator=cpu", "trainer.max_epochs=1"]
    options = [*small, *STAGES["baseline"], "test=false", "logger=null", "callbacks=null", f"datamodule.data_dir={odd}"]
    assert run_main(train.main, *options, "run_id=1e3") == 0
    assert run_main(train.main, *options, "run_id=2024", "init_weights=1e3") == 0
    assert [r.id for r in runs_in(tmp_path)] == ["1e3", "2024"]
    assert all(r.weights_file.is_file() for r in runs_in(tmp_path))
    assert run_main(train.main, "run_id=2024", "ckpt_path=last", "trainer.max_epochs=2") == 0


@pytest.mark.parametrize("text", ["2024", "1e3", "true", "José", "a=b", "x'y\\", "(a) & b,c – d", "[1950]", "glob(a)"])
@pytest.mark.parametrize("key", ["run_id", "datamodule.data_dir", "init_weights"])
def test_a_name_reaches_hydra_as_it_is(key: str, text: str) -> None:
    if key == "init_weights" and text.startswith("["):
        return  # weights may be a list
    (said,) = overrides.readable([f"{key}={text}"])
    assert OverridesParser.create().parse_override(said).value() == text
    assert overrides.readable([said]) == [said]
    assert overrides.readable([f"{key}=null", "-m"]) == [f"{key}=null", "-m"]


def test_few_batches_are_logged_and_a_profile_is_printed(command, tmp_path, capsys) -> None:
    options = [*SMALL, *STAGES["baseline"], "trainer.max_epochs=1", "trainer.limit_train_batches=3", "test=false"]
    assert command(*options, "+trainer.profiler=simple", "run_id=r") == 0
    assert [r["step"] for r in runs_in(tmp_path)[0].metrics() if (r["split"], r["name"]) == ("train", "loss")] == [2]
    assert "run_training_batch" in capsys.readouterr().err


@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_each_profiler_prints_and_keeps_its_report(profiler, command, tmp_path, capsys) -> None:
    options = [*SMALL, *STAGES["baseline"], "trainer.max_epochs=1", "trainer.limit_train_batches=2", "test=false"]
    assert command(*options, f"profiler={profiler}", "run_id=r") == 0
    report = (tmp_path / "outputs/runs/r/fit-profile.txt").read_text()
    assert "FIT Profiler Report" in report and "run_training_batch" in report
    assert "FIT Profiler Report" in capsys.readouterr().err
    assert "FIT Profiler Report" in (tmp_path / "outputs/runs/r/train.log").read_text()


def test_early_stopping_counts_on_in_a_resumed_run(command, tmp_path) -> None:
    """Among several callbacks; its patience of two is used up by the second and the third epoch."""
    several = "callbacks=[ema,early_stopping,model_summary,rich_progress]"
    patience = ["callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=1000"]
    options = [*SMALL, *STAGES["baseline"], "test=false", several, *patience, "run_id=r"]
    assert command(*options, "trainer.max_epochs=2") == 0
    (run,) = runs_in(tmp_path)
    said = (run.path / "train.log").read_text()
    assert "Total params" in said and "did not improve" not in said and "epoch 2/2 done" in said
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=9") == 0
    assert {r["epoch"] for r in run.metrics() if r["split"] == "val"} == {0, 1, 2}
    assert "Monitored metric val/delta_e2000 did not improve in the last 2" in (run.path / "train.log").read_text()
    assert run.status()["state"] == "finished" and run.best_checkpoint.is_file() and run.weights_file.is_file()
    # Without it the run goes on: settings of callbacks that are no longer chosen go with them.
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=4", "callbacks=ema") == 0
    assert {r["epoch"] for r in run.metrics() if r["split"] == "val"} == {0, 1, 2, 3}


def test_early_stopping_on_no_metric_is_a_sentence(command, capsys) -> None:
    monitor = "callbacks.early_stopping.monitor=val/nothing"
    assert command(*SMALL, *STAGES["baseline"], "callbacks=early_stopping", monitor, "run_id=r") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: callbacks.early_stopping.monitor: ")
    assert "val/nothing" in error and "val/delta_e2000" in error


ON_TERMINAL = f"""
import os, sys
terminal = os.open(sys.argv.pop(1), os.O_WRONLY)
for number, name in ((1, "stdout"), (2, "stderr")):
    os.dup2(terminal, number)
    setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # the old ones are of a file
os.close(terminal)
{forks.TRAIN}
"""


@pytest.mark.parametrize(("callbacks", "bar", "other"), [("default", "it/s", "•"), ("rich_progress", "•", "s/it")])
def test_a_terminal_has_one_bar(callbacks, bar, other, tmp_path) -> None:
    """tqdm's or Rich's; without a terminal there are log lines, which all other tests read."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))  # else it has no columns
    options = [*SMALL, *STAGES["baseline"], "test=false", f"callbacks={callbacks}"]
    environment = os.environ | {"TERM": "xterm-256color"}
    process = forks.Process(tmp_path, os.ttyname(theirs), *options, code=ON_TERMINAL, environment=environment)
    wait_for((tmp_path / "outputs").exists, process=process)  # it has opened its end
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # of its end, on Linux
        while more := os.read(ours, 2**16):
            said += more
    os.close(ours)
    text = said.decode()
    assert process.wait() == 0, text
    assert "Epoch" in text and bar in text
    assert other not in text and "epoch 1/2 done" not in text


@pytest.mark.parametrize(("logger", "package"), [("mlflow", "mlflow"), ("comet", "comet-ml")])
def test_a_logger_without_its_package_says_what_to_install(logger, package, command, capsys) -> None:
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    small = [o for o in SMALL if not o.startswith("logger")]
    assert command(*small, *STAGES["baseline"], f"logger={logger}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: logger.{logger}: ") and f"`pip install -U '{package}" in error


def test_mlflow_has_the_runs_metrics(command, tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    small = [o for o in SMALL if not o.startswith("logger")]
    assert command(*small, *STAGES["baseline"], "logger=[csv,mlflow]", "run_id=m", "test=false") == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("colorization").experiment_id])
    assert run.info.run_name == "m" and run.info.status == "FINISHED"
    (ours,) = runs_in(tmp_path)
    best = min(r["value"] for r in ours.metrics() if (r["split"], r["name"]) == ("val", "delta_e2000"))
    values = [m.value for m in client.get_metric_history(run.info.run_id, "val/delta_e2000")]
    assert len(values) == 2 and min(values) == pytest.approx(best)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_mps_composes_and_is_refused_where_there_is_none(command, capsys) -> None:
    assert command(*SMALL, "model=fusion", "trainer.accelerator=mps") == 2
    assert capsys.readouterr().err.strip().endswith("trainer.accelerator=mps: this machine has no MPS; it has cpu")


def test_a_stack_trace_is_there_for_the_asking(tmp_path) -> None:
    """Real processes: without HYDRA_FULL_ERROR one line, with it the trace."""
    arguments = [*SMALL, "datamodule.batch_size=-4"]
    plain = subprocess.run(
        [sys.executable, "-m", "colorization.train", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    full = forks.Process(tmp_path, *arguments, environment={**os.environ, "HYDRA_FULL_ERROR": "1"})
    assert plain.returncode == 2
    assert plain.stderr.count("\n") == 1
    assert "Traceback" in full.communicate()[0]
    assert full.returncode != 0


def test_a_finished_run_is_not_overwritten(command, capsys) -> None:
    assert command(*SMALL, *STAGES["baseline"], "run_id=one", "trainer.max_epochs=1") == 0
    assert command(*SMALL, *STAGES["baseline"], "run_id=one") == 2
    assert "run_id=one" in capsys.readouterr().err


# The run folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the GAN, made by the command in a process of its own with two loader processes."""
    folder = tmp_path_factory.mktemp("finished")
    options = ["run_id=done", "datamodule.num_workers=2", "logger=tensorboard", "datamodule.damage=0.5"]
    process = forks.Process(folder, *SMALL, *STAGES["gan"], *options)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return Run(folder / "outputs" / "runs" / "done")


def test_the_run_folder_is_complete(finished: Run) -> None:
    status = finished.status()
    assert status["schema"] == 1
    assert (status["state"], status["model"], status["epoch"], status["max_epochs"]) == ("finished", "gan", 2, 2)
    assert status["step"] == 8  # 8 photos, batches of 2, 2 epochs: batches, not optimizer steps
    assert status["best"]["name"] == "val/delta_e2000_cf"  # without LPIPS
    assert status["error"] is None
    assert status["weights"] == "weights.safetensors"
    assert yaml.safe_load((finished.path / "config.yaml").read_text())["datamodule"]["batch_size"] == 2
    assert "model=gan" in yaml.safe_load((finished.path / "overrides.yaml").read_text())
    environment = json.loads((finished.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    split = json.loads((finished.path / "split.json").read_text())
    assert {p["split"] for p in split["photos"]} == {"train", "val", "test"}
    assert (finished.path / "train.log").stat().st_size > 0
    assert {f.name for f in (finished.path / "samples").iterdir()} == {"epoch_0000.png", "epoch_0001.png"}
    assert finished.last_checkpoint.is_file()
    assert finished.best_checkpoint.is_file()


def test_metrics_are_rows_of_step_epoch_split_name_value(finished: Run) -> None:
    rows = finished.metrics()
    names = {(r["split"], r["name"]) for r in rows}
    for split in ("train", "val", "test"):
        for name in ("psnr", "ssim", "delta_e2000", "colorfulness", "delta_colorfulness"):
            assert (split, name) in names
    losses = {"loss", "l1", "g_adversarial", "d_loss", "lr", "d_lr"}
    assert {("train", n) for n in losses | MEASURED} <= names
    (memory,) = {r["value"] for r in rows if r["name"] == "peak_memory_mb" and r["step"] == 7}
    assert 100 < memory <= finished.status()["peak_memory_mb"] < 16_000
    assert all({"schema", "time", "step", "epoch", "split", "name", "value"} == set(r) - {"reason"} for r in rows)
    lpips = [r for r in rows if r["name"] == "lpips"]  # AlexNet cannot be had in tests
    assert {r["split"] for r in lpips} == {"train", "val", "test"}
    assert all(r["value"] is None and "AlexNet" in r["reason"] for r in lpips)
    best = min(r["value"] for r in rows if (r["split"], r["name"]) == ("val", "delta_e2000_cf"))
    assert finished.status()["best"]["value"] == pytest.approx(best)


def test_tensorboard_has_the_same_figures_and_the_samples(finished: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.path / "tensorboard"))
    events.Reload()
    assert "val/samples" in events.Tags()["images"]
    ours = {r["step"]: r["value"] for r in finished.metrics() if (r["split"], r["name"]) == ("val", "psnr")}
    theirs = {e.step: e.value for e in events.Scalars("val/psnr")}
    assert theirs == pytest.approx(ours)


def test_the_weights_describe_themselves(finished: Run) -> None:
    with safe_open(str(finished.weights_file), "pt") as file:
        description = json.loads(file.metadata()["colorization"])
    assert description["format_version"] == 1
    assert description["stage"] == "gan"
    assert description["network"]["_target_"] == "colorization.networks.unet.UNet"
    assert description["color"]["ab_scale"] == 110
    assert description["training_data"]["photos"] == 8
    assert len(description["training_data"]["mean_ab"]) == 2
    assert "val/delta_e2000" in description["metrics"]


def test_the_weights_are_those_of_the_best_checkpoint(finished: Run) -> None:
    network, _ = checkpoint.load_weights(finished.weights_file)
    state = torch.load(finished.best_checkpoint, weights_only=True)["state_dict"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[f"network.{name}"]), name


def test_a_cut_line_in_metrics_loses_only_itself(tmp_path) -> None:
    run = Run(tmp_path)
    run.append_metrics([{"step": 1, "epoch": 0, "split": "train", "name": "loss", "value": 1.0}])
    with run.metrics_file.open("a") as file:
        file.write('{"step": 2, "spl')
    run.append_metrics([{"step": 1, "epoch": 0, "split": "train", "name": "loss", "value": 0.5}])
    assert [r["value"] for r in run.metrics()] == [0.5]


def test_what_a_resume_has_trained_anew_replaces_what_a_crash_left(tmp_path) -> None:
    """Killed behind step 30, resumed from step 10, stopped at step 20: nothing of what came after counts any more."""
    run = Run(tmp_path)
    place = {"epoch": 0, "split": "val", "name": "delta_e2000"}
    run.append_metrics({**place, "step": step, "value": value} for step, value in ((10, 5.0), (20, 4.0), (30, 1.0)))
    run.append_metrics([{**place, "step": 20, "value": 3.0}, {**place, "step": 20, "split": "test", "value": 2.0}])
    run.update_status(state="stopped", best={"name": "val/delta_e2000", "value": 3.0})
    assert [(r["split"], r["step"], r["value"]) for r in run.metrics()] == [
        ("val", 10, 5.0), ("val", 20, 3.0), ("test", 20, 2.0),
    ]  # fmt: skip
    assert collect(run)["val/delta_e2000"] == 3.0 and [e["delta_e2000"] for e in epochs(run)] == [5.0, 3.0]


def test_wandb_works_offline(command, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert command(*SMALL, *STAGES["baseline"], "logger=wandb", "logger.wandb.offline=true", "run_id=w") == 0
    assert list((tmp_path / "outputs/runs/w").glob("wandb/offline-run-*/run-w.wandb"))


# Stopping and resuming


def state_of(run: Run) -> dict[str, torch.Tensor]:
    content = torch.load(run.last_checkpoint, weights_only=True)
    return content["state_dict"]


wholes: dict[str, Run] = {}  # stage -> its run that was never interrupted


@pytest.mark.parametrize("where", ["in an epoch", "in validation", "at the end of an epoch"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(stage, where, command, tmp_path, monkeypatch) -> None:
    """The same weights, to the bit, and the same figures as a run that was never interrupted."""
    options = [*SMALL, *STAGES[stage], "test=false", "trainer.max_epochs=3"]
    if stage == "gan":
        options += ["callbacks=ema", "callbacks.ema.decay=0.9"]
    if stage not in wholes:
        assert command(*options, "run_id=whole") == 0
        (wholes[stage],) = runs_in(tmp_path)

    hook, at = {
        "in an epoch": ("on_train_batch_end", 6),
        "in validation": ("on_validation_batch_start", 3),
        "at the end of an epoch": ("on_train_batch_end", 8),
    }[where]
    calls = 0

    def interrupt(self, *args):
        nonlocal calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.RunStatus, hook, interrupt)
        assert command(*options, "run_id=parts") == 143
    whole, parts = wholes[stage], Run(tmp_path / "outputs/runs/parts")
    assert parts.status()["state"] == "stopped"
    assert Colorizer.load(parts.path).description["stage"] == stage

    assert command("run_id=parts", "ckpt_path=last") == 0
    assert parts.status()["state"] == "finished"
    ours, expected = state_of(parts), state_of(whole)
    for name in expected:
        assert torch.equal(ours[name], expected[name]), name

    def figures(run: Run) -> dict:
        return {(r["step"], r["split"], r["name"]): r["value"] for r in run.metrics() if r["name"] not in MEASURED}

    assert figures(parts) == figures(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_real_signals_end_a_real_process(number, code, tmp_path) -> None:
    """A process group with loader processes gets the signal, as from Ctrl-C in a terminal or a scheduler."""
    arguments = [*SMALL, *STAGES["unet"], "run_id=s", "trainer.max_epochs=1000", "datamodule.num_workers=2"]
    process = forks.Process(tmp_path, *arguments)
    run = Run(tmp_path / "outputs/runs/s")
    wait_for(lambda: run.last_checkpoint.is_file() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    assert run.status()["state"] == "stopped"
    assert "Traceback" not in output, output
    checkpoint.load_weights(run.last_checkpoint)


def test_a_checkpoint_of_another_stage_is_refused(finished: Run, command, capsys) -> None:
    assert command(*SMALL, *STAGES["unet"], f"ckpt_path={finished.last_checkpoint}") == 2
    error = capsys.readouterr().err
    assert "ckpt_path=" in error
    assert "model=gan" in error
    assert "model=unet" in error


def test_a_checkpoint_file_starts_a_new_run_that_knows_its_parent(finished: Run, command, tmp_path) -> None:
    overrides = ["run_id=child", f"ckpt_path={finished.last_checkpoint}", "trainer.max_epochs=3"]
    assert command(*SMALL, *STAGES["gan"], *overrides) == 0
    child = Run(tmp_path / "outputs/runs/child")
    assert child.status()["parent"] == str(finished.last_checkpoint)
    assert {r["epoch"] for r in child.metrics() if r["split"] == "val"} == {2}  # epochs 0 and 1 were the parent's


def test_init_weights_start_another_stage_from_the_same_network(finished: Run, command, tmp_path) -> None:
    overrides = ["run_id=tuned", f"init_weights={finished.path}", "trainer.max_epochs=1", "model.optimizer.lr=1e-12"]
    assert command(*SMALL, *STAGES["unet"], *overrides) == 0
    tuned, _ = checkpoint.load_weights(Run(tmp_path / "outputs/runs/tuned").weights_file)
    start, _ = checkpoint.load_weights(finished.weights_file)
    for (name, a), b in zip(tuned.named_parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_later_overrides_replace_stored_ones() -> None:
    merged = resume.merge_overrides(
        ["model=gan", "trainer.max_epochs=3", "seed=0"], ["trainer.max_epochs=9", "run_id=x"]
    )
    assert merged == ["model=gan", "seed=0", "trainer.max_epochs=9", "run_id=x"]


# Sweeps and reproducibility


def test_a_sweep_gives_each_job_its_own_run_and_one_table(command, tmp_path, capsys) -> None:
    grid = ["model=baseline,unet", "model.network.width=4", "model.optimizer.lr=1e-3,2e-4"]
    code = command("-m", *SMALL, *grid, "trainer.max_epochs=1")
    assert code == 0
    runs = runs_in(tmp_path)
    assert len({r.id for r in runs}) == 4
    capsys.readouterr()
    assert summarize(["--epochs", str(tmp_path / "epochs.csv")]) == 0
    with (tmp_path / "epochs.csv").open(newline="") as file:
        validations = {line["run"]: line for line in csv.DictReader(file)}
    assert len(validations) == 4 and {v["epoch"] for v in validations.values()} == {"1"}
    for run in runs:
        (expected,) = [r["value"] for r in run.metrics() if (r["split"], r["name"]) == ("val", "delta_e2000")]
        assert float(validations[run.id]["delta_e2000"]) == expected
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 6
    assert "model.optimizer.lr" in lines[0]
    for run in runs:
        rate = yaml.safe_load((run.path / "config.yaml").read_text())["model"]["optimizer"]["lr"]
        (line,) = [x for x in lines if run.id in x]
        assert f"| {rate} |" in line.replace("1e-3", "0.001").replace("2e-4", "0.0002")


def test_a_sweep_goes_on_after_a_job_that_fails(command, tmp_path, capsys) -> None:
    assert command("-m", *SMALL, *STAGES["baseline"], "datamodule.batch_size=-1,2", "trainer.max_epochs=1") != 0
    assert sorted(r.status()["state"] for r in runs_in(tmp_path)) == ["failed", "finished"]
    assert "datamodule.batch_size=-1" in capsys.readouterr().err


def test_seed_zero_counts_and_the_same_seed_gives_the_same_run(command, tmp_path) -> None:
    for run_id, seed in [("a", 0), ("b", 0), ("c", 1)]:
        assert command(*SMALL, *STAGES["unet"], f"run_id={run_id}", f"seed={seed}", "trainer.max_epochs=1") == 0
    a, b, c = (state_of(r) for r in runs_in(tmp_path))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


# A fifth stage

NETWORK = '''
import torch
from torch import nn
from colorization.core.color import squash_ab

class Pointwise(nn.Module):
    """Colour from the lightness of the pixel alone."""
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 1), nn.ReLU(), nn.Conv2d(width, 2, 1))
    def forward(self, L: torch.Tensor) -> torch.Tensor:
        return squash_ab(self.layers(L))
'''
MODEL = """
defaults:
  - _self_
  - override /loss@_global_.loss: huber
_target_: colorization.training.stages.RegressionStage
name: pointwise
network:
  _target_: colorization.networks.pointwise.Pointwise
  width: 8
loss: ${loss}
optimizer:
  _target_: torch.optim.Adam
  lr: 1e-3
"""


def test_a_fifth_stage_is_one_network_file_and_one_yaml(command, tmp_path, monkeypatch) -> None:
    """Trained, described, evaluated and used with no edit anywhere else."""
    from colorization import eval as evaluation

    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "pointwise.py").write_text(NETWORK)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "pointwise.yaml").write_text(MODEL)
    monkeypatch.setattr(
        colorization.networks, "__path__", [*colorization.networks.__path__, str(tmp_path / "networks")]
    )
    search = f"hydra.searchpath=[file://{tmp_path}/conf]"
    assert command(search, *SMALL, "model=pointwise", "run_id=fifth") == 0
    run = Run(tmp_path / "outputs/runs/fifth")
    assert Colorizer.load(run.path).description["stage"] == "pointwise"
    assert command("run_id=fifth", "ckpt_path=last", "trainer.max_epochs=3") == 0  # finds its YAML again
    monkeypatch.setattr(sys, "argv", ["eval", "weights=fifth", *SMALL[:5], "eval_dir=eval"])
    evaluation.main()
    assert "| pointwise |" in (tmp_path / "eval" / "table.md").read_text()


# What a stranger's file may not do


def test_only_networks_of_this_package_are_ever_built() -> None:
    for target in ("os.system", "torch.nn.Linear", "colorization.networks.unet.torch.load", "colorization.networks"):
        with pytest.raises(InputError):
            building.build_network({"_target_": target})


def test_a_pickle_with_code_is_refused(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"state_dict": {}, "colorization": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match="safely"):
        checkpoint.load_weights(tmp_path / "evil.ckpt")
    assert not (tmp_path / "pwned").exists()


# How the step runs


def test_bf16_is_what_the_processor_says() -> None:
    """Against what Linux says of it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file() or "flags" not in cpuinfo.read_text():
        pytest.skip("needs Linux on x86")
    flags = set(next(x for x in cpuinfo.read_text().splitlines() if x.startswith("flags")).split())
    assert devices.has_bf16("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})
    assert not devices.has_bf16("mps")


@pytest.mark.parametrize(("capability", "pays"), [("AVX512", True), ("AVX2", False), ("NEON", False)])
def test_channels_last_follows_the_processor(capability, pays, compose_train, monkeypatch) -> None:
    """And an explicit choice wins."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for override, expected in (([], pays), (["accelerator.channels_last=true"], True)):
        cfg = compose_train("accelerator=cpu", *STAGES["baseline"], *override)
        stage = hydra_main.instantiate(cfg.model)
        train.prepare(cfg, stage)
        weight = stage.network.middle[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == expected


@pytest.mark.parametrize("capable", [True, False])
def test_precision_auto_is_bf16_where_the_hardware_has_it(capable, command, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": capable})
    options = [*SMALL, *STAGES["baseline"], "trainer.precision=auto", "test=false", "trainer.max_epochs=1"]
    assert command(*options) == 0
    (run,) = runs_in(tmp_path)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["trainer"]["precision"] == ("bf16-mixed" if capable else "32-true")


def test_compile_without_a_compiler_is_refused(command, capsys, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert command(*SMALL, *STAGES["baseline"], "accelerator.compile=true") == 2
    error = capsys.readouterr().err
    assert "accelerator.compile=true" in error and "no-such-compiler" in error


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_mixed_precision_with_clipping_does_not_take_a_fused_optimizer(precision, compose_train, monkeypatch) -> None:
    """Clipping would come before the loss scaling is undone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = ["trainer.accelerator=cuda", f"trainer.precision={precision}", "+model.optimizer.fused=true"]
    train.check(compose_train(*options))
    with pytest.raises(InputError, match=rf"model\.optimizer\.fused=true.*{precision}.*gradient_clip_val"):
        train.check(compose_train(*options, "trainer.gradient_clip_val=1"))


@pytest.mark.parametrize("stage", ["unet", "gan"])
def test_gradients_are_clipped_in_bf16(stage, command, tmp_path) -> None:
    options = [*SMALL, *STAGES[stage], "trainer.precision=bf16-mixed", "test=false", "run_id=r"]
    assert command(*options, "trainer.gradient_clip_val=1", "trainer.max_epochs=1") == 0
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=2") == 0


@pytest.mark.parametrize("stage", ["unet", "gan"])
def test_a_run_with_activation_checkpointing_and_fused_steps_goes_on(stage, command, tmp_path) -> None:
    """Its optimizer is fused; what it leaves is what any run leaves."""
    options = [*SMALL, *STAGES[stage], "accelerator.activation_checkpointing=true", "test=false", "run_id=r"]
    assert command(*options, "trainer.max_epochs=1") == 0
    (run,) = runs_in(tmp_path)
    for state in torch.load(run.last_checkpoint, weights_only=True)["optimizer_states"]:
        assert state["param_groups"][0]["fused"] is True
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=2") == 0
    assert Colorizer.load(run.path).description["stage"] == stage


def test_weights_say_which_revision_of_the_code_they_are_of() -> None:
    asked = ["git", "-C", str(CONFIGS.parent), "rev-parse", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True)
    described = descriptions.describe("unet", {}, {}, None, {}, {"title": "U-Net"}, loss="l1")
    assert described["git"]["revision"] == (done.stdout.strip() if done.returncode == 0 else None)
