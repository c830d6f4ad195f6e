"""Runs that are killed, and what they leave: checkpoints whole or not at all, and the same result to the bit."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forks
import pytest
import pytorch_lightning as pl
import torch
from conftest import SMALL_ENCODERS, SMALL_STAGES, wait_for
from omegaconf import OmegaConf
from pytorch_lightning.trainer import call

from colorization import train
from colorization.core.errors import InputError
from colorization.core.hydra_main import instantiate
from colorization.core.runs import Run
from colorization.data.datamodules import FolderDataModule
from colorization.models import checkpoint
from colorization.training import callbacks, checkpointing

STAGES = {
    "baseline": [*SMALL_STAGES["baseline"], "trainer.accumulate_grad_batches=4"],
    "unet": [*SMALL_STAGES["unet"], "trainer.val_check_interval=0.5"],
    "gan": [*SMALL_STAGES["gan"], "callbacks=ema"],
    "fusion": [*SMALL_STAGES["fusion"], "trainer.accumulate_grad_batches=4"],
    "hinted": [*SMALL_ENCODERS["hinted"], "model.head_epochs=0.5"],
}
SMALL = [
    "datamodule.data_dir=photos",
    "datamodule.val_fraction=0.2",
    "datamodule.image_size=32",
    "datamodule.batch_size=1",
    "datamodule.damage=0.5",
    "datamodule.num_workers=0",
    "accelerator=cpu",
    "logger=csv",
    "trainer.log_every_n_steps=1",
    "samples=2",
    "test=false",
]


@pytest.fixture
def command(run_main: Callable[..., int], photo_folder: Path) -> Callable[..., int]:
    """``command(*overrides)``: the training command in this process, in ``tmp_path`` beside ``photos``."""
    return lambda *overrides: run_main(train.main, *overrides)


def run_of(folder: Path, run_id: str) -> Run:
    return Run(folder / "outputs" / "runs" / run_id)


def differences(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Where two nests of dictionaries, lists and tensors differ in a bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield place
    elif isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from differences(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{place}[{i}]")
    elif a != b:
        yield place


def assert_same(run: Run, whole: Run) -> None:
    """Weights, averages, optimizers, schedulers, random generators, metrics and pictures, all to the bit."""
    ours, theirs = (torch.load(r.last_checkpoint, weights_only=True) for r in (run, whole))
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "rng", "epoch", "global_step")
    averaged = ("current_model_state", "averaging_state")
    for part in (*parts, *(k for k in averaged if k in theirs)):
        assert list(differences(ours[part], theirs[part], part)) == []

    def figures(run: Run) -> dict[Any, Any]:
        rows = [r for r in run.metrics() if r["name"] not in ("images_per_second", "peak_memory_mb")]
        return {(r["step"], r["split"], r["name"]): (r["epoch"], r["value"]) for r in rows}

    assert figures(run) == figures(whole)
    assert table(run) == table(whole)
    pictures = {f.name: f.read_bytes() for f in (whole.path / "samples").iterdir()}
    assert {f.name: f.read_bytes() for f in (run.path / "samples").iterdir()} == pictures
    assert run.status()["state"] == whole.status()["state"] == "finished"


def table(run: Run) -> dict[Any, Any]:
    """The last row of ``logger=csv`` for each step and set of columns, without what is measured."""
    with (run.path / "csv" / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    for row in rows:
        row.pop("train/images_per_second", None), row.pop("train/peak_memory_mb", None)
    return {(row["step"], *row): row for row in rows if len(row) > 2}


# What a resume keeps


def content(run: Run) -> dict[str, bytes]:
    """All files of a run but its log."""
    files = [f for f in run.path.rglob("*") if f.is_file() and f.name not in (".lock", "train.log")]
    return {str(f.relative_to(run.path)): f.read_bytes() for f in files}


def test_a_refused_resume_changes_nothing(command, photo_folder, tmp_path, capsys) -> None:
    """And the right command then works, with the photos elsewhere, and others beside them."""
    options = [*SMALL, "model=gan", "model.network.width=4", "model.discriminator.width=4"]
    assert command(*options, "run_id=r", "trainer.max_epochs=1") == 0
    run = run_of(tmp_path, "r")
    before = content(run)
    more = "trainer.max_epochs=2"
    (tmp_path / "others").mkdir()
    for i, photo in enumerate(sorted(photo_folder.rglob("*.jpg"))[:4]):
        shutil.copy(photo, tmp_path / "others" / f"{i}.jpg")
    for wrong, words in [
        (["datamodule.data_dir=typo"], ["datamodule.data_dir=typo", "no such folder"]),
        (["datamodule.data_dir=others"], ["datamodule.data_dir=others", "not the photos of r", "init_weights=r"]),
        (["model.network.width=8"], ["model.network.width=8", "4"]),
        (["seed=7"], ["seed=7", "42", "init_weights=r"]),
        (["datamodule.batch_size=3"], ["datamodule.batch_size=3"]),
        (["+model.optimizer.eps=1e-3"], ["model.optimizer.eps=0.001"]),
        (["model=unet"], ["model=unet", "gan"]),
        (["loss.l1_weight=-1"], ["loss.l1_weight=-1"]),
        (["trainer.val_check_interval=100"], ["val_check_interval"]),
    ]:
        assert command("run_id=r", "ckpt_path=last", more, *wrong) == 2, wrong
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and all(w in error for w in words), error
        assert content(run) == before, wrong
    (tmp_path / "moved").mkdir()
    photo_folder.rename(tmp_path / "moved" / "photos")
    shutil.copy(tmp_path / "others" / "0.jpg", tmp_path / "moved" / "photos" / "new.jpg")
    assert command("run_id=r", "ckpt_path=last", more, "datamodule.data_dir=moved/photos", "loss.l1_weight=50") == 0
    assert run.split() == json.loads(before["split.json"])
    config = OmegaConf.load(run.path / "config.yaml")
    assert (config.loss.l1_weight, config.datamodule.batch_size) == (50, 1)


def test_a_refused_resume_changes_nothing_where_there_is_no_checkpoint_yet(command, photo_folder, tmp_path) -> None:
    """As after a kill in the first minutes: the next command, which asks for nothing, still finds the right photos."""
    assert command(*SMALL, *STAGES["baseline"], "run_id=r", "trainer.max_epochs=1") == 0
    run = run_of(tmp_path, "r")
    shutil.rmtree(run.path / "checkpoints")
    before = content(run)
    for wrong in ("datamodule.data_dir=typo", "trainer.val_check_interval=100"):
        assert command("run_id=r", "ckpt_path=last", "seed=7", wrong) == 2
        assert content(run) == before, wrong
    assert command("run_id=r", "ckpt_path=last") == 0
    assert run.split() == json.loads(before["split.json"]) and run.last_checkpoint.is_file()


@pytest.mark.parametrize("monitor", ["val/delta_e2000", "val/psnr"])
def test_a_run_that_was_moved_keeps_its_best(monitor: str, command, tmp_path, monkeypatch) -> None:
    """Also by another criterion: the checkpoint knows its figures."""
    assert command(*SMALL, *STAGES["baseline"], "run_id=r", "trainer.max_epochs=1") == 0
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "outputs", elsewhere / "outputs")
    shutil.rmtree(tmp_path / "outputs")
    shutil.copytree(tmp_path / "photos", elsewhere / "photos")
    monkeypatch.chdir(elsewhere)
    mode = "max" if monitor == "val/psnr" else "min"
    criterion = [f"callbacks.best.monitor={monitor}", f"callbacks.best.mode={mode}"]
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=3", *criterion) == 0
    run = run_of(elsewhere, "r")
    measured = {r["epoch"]: r["value"] for r in run.metrics() if f"val/{r['name']}" == monitor}
    best = (max if mode == "max" else min)(measured, key=measured.__getitem__)
    assert checkpoint.read_checkpoint(run.best_checkpoint)["epoch"] == best
    assert run.status()["best"] == {"name": monitor, "value": measured[best]}
    said = repr(torch.load(run.last_checkpoint, weights_only=True)["callbacks"])
    assert str(tmp_path) not in said


def test_more_steps_in_the_middle_of_an_epoch(command, tmp_path) -> None:
    """The rest of the epoch is trained; where the steps ended it was validated."""
    options = [*SMALL, "model=baseline", "model.network.width=4", "trainer.max_epochs=-1"]
    options += ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=0.5"]  # 9 photos an epoch
    whole, parts = run_of(tmp_path, "whole"), run_of(tmp_path, "parts")
    assert command(*options, "run_id=whole", "trainer.max_steps=12") == 0
    for steps in (2, 3, 7, 12):  # at a validation, within an epoch, once more, at last
        going_on = ["ckpt_path=last"] if parts.status() else options
        assert command(*going_on, "run_id=parts", f"trainer.max_steps={steps}") == 0
        assert max(r["step"] for r in parts.metrics() if r["split"] == "val") == steps - 1
    ours, theirs = (checkpoint.read_checkpoint(r.last_checkpoint) for r in (parts, whole))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "rng", "epoch", "global_step"):
        assert list(differences(ours[part], theirs[part], part)) == []
    figures = [
        {(r["step"], r["name"]): r["value"] for r in run.metrics() if r["split"] == "train" and "_" not in r["name"]}
        for run in (parts, whole)
    ]
    assert figures[0] == figures[1]


# Kills


def test_a_run_that_trains_is_not_taken_up_by_another_process(command, tmp_path: Path, capsys) -> None:
    process = forks.Process(
        tmp_path, *SMALL, *STAGES["unet"], "run_id=one", "trainer.max_epochs=1000", "checkpoint_steps=1"
    )
    run = run_of(tmp_path, "one")
    wait_for(run.last_checkpoint.is_file)
    try:
        assert command("run_id=one", "ckpt_path=last") == 2
        assert f"another process is training this run (pid {process.pid})" in capsys.readouterr().err
        assert run.status()["state"] == "running"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    epoch = torch.load(run.last_checkpoint)["epoch"]
    if epoch > 1:
        assert command("run_id=one", "ckpt_path=last", "trainer.max_epochs=1") == 2
        assert f"trained for {epoch} epochs already" in capsys.readouterr().err
    assert command("run_id=one", "ckpt_path=last", f"trainer.max_epochs={epoch + 1}") == 0


def test_the_optimizer_of_a_checkpoint_is_not_changed_in_silence(command, tmp_path: Path, capsys) -> None:
    options = [*SMALL, *STAGES["unet"], "run_id=a", "trainer.max_epochs=1"]
    assert command(*options) == 0
    assert command("run_id=a", "ckpt_path=last", "trainer.max_epochs=2", "model.optimizer.lr=1e-5") == 2
    error = capsys.readouterr().err
    assert "model.optimizer.lr=1e-05" in error and "0.0002" in error and "init_weights=a" in error
    assert command("run_id=b", "init_weights=a", "model.optimizer.lr=1e-5", *options[:-2], "trainer.max_epochs=1") == 0
    assert (
        torch.load(run_of(tmp_path, "b").last_checkpoint)["optimizer_states"][0]["param_groups"][0]["initial_lr"]
        == 1e-5
    )


@pytest.mark.skipif(os.name == "nt", reason="process groups")
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_is_killed_ends_as_one_that_was_not(stage: str, command, tmp_path: Path) -> None:
    """Real processes with loader processes, SIGKILL at random places."""
    options = [*SMALL, *STAGES[stage], "trainer.max_epochs=4", "datamodule.num_workers=2", "checkpoint_steps=3"]
    assert command(*options, "run_id=whole") == 0

    def rows(run: Run) -> int:
        return run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.exists() else 0

    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole, run = run_of(tmp_path, "whole"), run_of(tmp_path, "parts")
    for _ in range(3):
        place = rows(run) + rng.randrange(rows(whole) // 2)
        process = forks.Process(tmp_path, *(["ckpt_path=last"] if run.status() else options), "run_id=parts")
        while process.poll() is None and rows(run) <= place:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        print(f"killed at step {run.status()['step']} or a little later: {[f.name for f in run.path.rglob('*.ckpt')]}")
        assert process.returncode in (0, -signal.SIGKILL), output
    end = forks.Process(tmp_path, "run_id=parts", "ckpt_path=last")
    output, _ = end.communicate(timeout=300)
    assert end.returncode == 0, output
    assert_same(run, whole)
    assert not list((run.path / "checkpoints").glob(".*"))


class Killed(BaseException):
    """Ends a run where it stands: nothing catches it to save anything."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[str]]:
    """``kill_at(n)``: the n-th hook, row of metrics or save from now on raises; returns the names of those passed."""
    passed: list[str] = []
    left: list[int | None] = [None]

    def tick(name: str) -> None:
        passed.append(name)
        if left[0] is not None and len(passed) >= left[0]:
            left[0] = None
            raise Killed(name)

    def around(owner: Any, attribute: str, name: Callable[[Any], str]) -> None:
        original = getattr(owner, attribute)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            tick(f"before {name(args)}")
            result = original(*args, **kwargs)
            tick(f"after {name(args)}")
            return result

        monkeypatch.setattr(owner, attribute, wrapped)

    around(call, "_call_callback_hooks", lambda args: args[1])
    around(call, "_call_lightning_module_hook", lambda args: f"{args[1]} of the stage")
    around(Run, "append_metrics", lambda args: "metrics")
    around(checkpointing.CheckpointFiles, "save_checkpoint", lambda args: f"saving {Path(args[2]).name}")

    def arm(n: int | None) -> list[str]:
        passed.clear()
        left[0] = n
        return passed

    return arm


@pytest.mark.parametrize(
    "options",
    [
        ["model=unet", "trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2", "checkpoint_minutes=0"],
        ["model=unet", "trainer.max_epochs=-1", "trainer.max_steps=11", "checkpoint_steps=2"],
        ["model=unet", "trainer.max_epochs=3", "trainer.val_check_interval=0.5", "checkpoint_steps=1"],
        ["model=gan", "trainer.max_epochs=3", "trainer.accumulate_grad_batches=3", "trainer.val_check_interval=0.5",
         "checkpoint_minutes=0", "callbacks=ema", "model.warmup_epochs=0.5"],
    ],
    ids=["rare validation", "max_steps", "frequent validation", "validation within an accumulation"],
)  # fmt: skip
def test_a_run_goes_on_from_any_place(options, command, kill_at, tmp_path) -> None:
    """Between any two hooks of Lightning, under settings in which it counts in its own way."""
    options = [*SMALL, *options, "model.network.width=4", "datamodule.batch_size=2"]
    options += ["model.discriminator.width=4"] if "model=gan" in options else []
    passed = kill_at(None)
    assert command(*options, "run_id=whole") == 0
    hooks = len(passed)

    seed = random.randrange(10**6)
    print(f"seed {seed}, {hooks} places")
    rng = random.Random(seed)
    run = run_of(tmp_path, "parts")
    ended = False
    for _ in range(3):
        kill_at(rng.randrange(hooks // 8, hooks // 2))
        try:
            ended = command(*(["ckpt_path=last"] if run.status() else options), "run_id=parts") == 0
            break
        except Killed as place:
            print(f"killed {place}")
    kill_at(None)
    assert ended or command("run_id=parts", "ckpt_path=last") == 0
    assert_same(run, run_of(tmp_path, "whole"))


@pytest.mark.parametrize("stage", ["baseline", "gan"])
def test_a_stop_within_an_accumulation_loses_none_of_it(stage, command, tmp_path, monkeypatch) -> None:
    """Stopped after two of three batches."""
    options = [*SMALL, *STAGES[stage], "trainer.accumulate_grad_batches=3", "trainer.max_epochs=2"]
    assert command(*options, "run_id=whole") == 0

    def stop(self, trainer: pl.Trainer, stage: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 4:
            signal.raise_signal(signal.SIGTERM)

    run = run_of(tmp_path, "parts")
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.RunStatus, "on_train_batch_end", stop)
        assert command(*options, "run_id=parts") == 143
    assert checkpoint.read_checkpoint(run.last_checkpoint)["gradients"]
    assert command("run_id=parts", "ckpt_path=last") == 0
    assert_same(run, run_of(tmp_path, "whole"))


def test_checkpoint_steps_bounds_what_a_crash_loses(command, tmp_path, monkeypatch) -> None:
    def kill(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 6:
            raise Killed

    monkeypatch.setattr(callbacks.RunStatus, "on_train_batch_end", kill)
    monkeypatch.setattr(callbacks.RunStatus, "on_train_batch_start", kill, raising=False)
    options = [*SMALL, "model=baseline", "model.network.width=4"]
    with pytest.raises(Killed):
        command(*options, "run_id=without")
    with pytest.raises(Killed):
        command(*options, "run_id=with", "checkpoint_steps=2")
    assert not run_of(tmp_path, "without").last_checkpoint.exists()
    assert checkpoint.read_checkpoint(run_of(tmp_path, "with").last_checkpoint)["global_step"] == 4
    assert command("run_id=without", "ckpt_path=last", "trainer.max_steps=2") == 0  # from the beginning


# Checkpoints that are torn, damaged, or do not fit on the disk


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit_of_a_tensor(file: Path) -> None:
    content = bytearray(file.read_bytes())
    tensors = torch.load(file, weights_only=True)["optimizer_states"][0]["state"][0]
    weight = tensors["exp_avg"].flatten()[:4].numpy().tobytes()
    content[content.index(weight) + len(weight) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [tear, flip_a_bit_of_a_tensor, lambda f: f.write_bytes(b""), Path.unlink])
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(harm, command, tmp_path) -> None:
    options = [*SMALL, "model=baseline", "model.network.width=4"]
    assert command(*options, "run_id=whole", "trainer.max_epochs=2") == 0
    assert command(*options, "run_id=r", "trainer.max_epochs=1") == 0
    run = run_of(tmp_path, "r")
    harm(run.last_checkpoint)
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=2") == 0
    assert_same(run, run_of(tmp_path, "whole"))
    (said,) = [x for x in (run.path / "train.log").read_text().splitlines() if "resuming from" in x]
    assert "r/checkpoints/last.ckpt" in said
    assert "r/checkpoints/previous.ckpt" in said
    assert all(checkpoint.read_checkpoint(f) for f in (run.last_checkpoint, run.previous_checkpoint))


def test_two_damaged_checkpoints_are_one_sentence(command, tmp_path, capsys) -> None:
    assert command(*SMALL, "model=baseline", "model.network.width=4", "run_id=r", "trainer.max_epochs=1") == 0
    run = run_of(tmp_path, "r")
    tear(run.last_checkpoint)
    tear(run.previous_checkpoint)
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=2") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "r/checkpoints/last.ckpt" in error
    assert "previous.ckpt" in error
    assert run.last_checkpoint.exists()


def test_no_damage_to_a_checkpoint_goes_unnoticed(tmp_path) -> None:
    """Any changed byte and any cut is found, or changes nothing."""
    file = tmp_path / "x.ckpt"
    content = {"state_dict": {"a": torch.randn(40), "b": torch.arange(9)}, "epoch": 3}
    torch.save(content, file)
    whole = file.read_bytes()
    rng = random.Random(0)
    found = 0
    for _ in range(400):
        broken = bytearray(whole)
        if rng.random() < 0.2:
            del broken[rng.randrange(len(broken)) :]
        else:
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        try:
            assert not list(differences(checkpoint.load_tensors(file), content))
        except checkpoint.Unreadable:
            found += 1
    assert found > 200


LIMITED = """
import resource, sys
from colorization.train import main
resource.setrlimit(resource.{which}, ({limit}, resource.RLIM_INFINITY))
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_a_save_that_does_not_fit_stops_the_run_and_leaves_the_checkpoints(command, tmp_path) -> None:
    """The system refuses to let any file grow to the size of a checkpoint, as a quota or a full disk would."""
    assert command(*SMALL, "model=unet", "model.network.width=4", "run_id=r", "trainer.max_epochs=1") == 0
    run = run_of(tmp_path, "r")
    before = {f: f.read_bytes() for f in (run.path / "checkpoints").iterdir()}
    assert set(before) == {run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint}

    limit = run.last_checkpoint.stat().st_size // 2
    process = forks.Process(
        tmp_path, "run_id=r", "ckpt_path=last", "trainer.max_epochs=2",
        code=LIMITED.format(which="RLIMIT_FSIZE", limit=limit),
    )  # fmt: skip
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    error = output.strip().splitlines()[-1]
    assert error.startswith("error: outputs/runs/r/checkpoints/last.ckpt could not be written")
    assert "ckpt_path=last" in error
    assert "Traceback" not in output, output
    assert run.status()["state"] == "failed"
    assert run.status()["error"] in error
    assert {f: f.read_bytes() for f in (run.path / "checkpoints").iterdir()} == before
    assert command("run_id=r", "ckpt_path=last", "trainer.max_epochs=2") == 0


@pytest.mark.parametrize("links", [True, False])
def test_the_last_checkpoint_and_the_one_before_it(links: bool, tmp_path: Path, monkeypatch) -> None:
    if not links:  # as on exFAT

        def refuse(*names: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    run = Run(tmp_path)
    files, there = checkpointing.CheckpointFiles(run), []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (replace(self, to), there.append(run.last_checkpoint.exists()))
    )
    for step in range(4):
        files.save_checkpoint({"step": step}, run.last_checkpoint)
        assert torch.load(run.last_checkpoint) == {"step": step}
        if step:
            assert torch.load(run.previous_checkpoint) == {"step": step - 1}
        if step == 2 and links:  # killed after the first of two renames
            run.previous_checkpoint.unlink()
            run.previous_checkpoint.hardlink_to(run.last_checkpoint)
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert all(there) == links


def test_the_only_best_checkpoint_survives_a_failing_save_of_its_successor(command, tmp_path, monkeypatch) -> None:
    save, calls = checkpointing._save, []

    def full(content: Any, file: Any) -> None:
        calls.append(Path(file.name).name)
        if len([c for c in calls if "best" in c]) == 2:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, file)

    monkeypatch.setattr(checkpointing, "_save", full)
    best = ["callbacks.best.filename='best-{epoch}'", "callbacks.best.monitor=epoch", "callbacks.best.mode=max"]
    assert command(*SMALL, *best, "model=baseline", "model.network.width=4", "run_id=r") == 2
    folder = run_of(tmp_path, "r").path / "checkpoints"
    assert sorted(f.name for f in folder.iterdir()) == ["best-epoch=0.ckpt", "last.ckpt", "previous.ckpt"]
    assert all(checkpoint.read_checkpoint(f) for f in folder.iterdir())


# Losses that are not finite, memory that is not there


def test_a_loss_that_is_not_finite_ends_the_run_and_is_in_no_checkpoint(command, tmp_path, capsys) -> None:
    data = ["datamodule.batch_size=2", "datamodule.shuffle=false"]
    assert command(*SMALL, *STAGES["gan"], *data, "run_id=r", "trainer.max_epochs=1") == 0
    # The loss of the generator overflows in the first batch that is trained.
    again = ["run_id=r", "ckpt_path=last", "trainer.max_epochs=2", "checkpoint_steps=1"]
    assert command(*again, "loss.l1_weight=1e39") == 2
    run = run_of(tmp_path, "r")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: train/loss is inf in epoch 1, batch 0")
    photos = FolderDataModule("photos", val_fraction=0.2, seed=42)
    photos.setup()
    names = photos.photos["train"].names
    assert [n in error for n in names] == [True, True] + [False] * (len(names) - 2)
    assert error.count("Adam lr") == 2
    assert "r/checkpoints/last.ckpt" in error
    assert run.status()["state"] == "failed"
    assert run.status()["error"] in error
    for file in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        content = checkpoint.read_checkpoint(file)
        assert content["epoch"] == 0
        assert all(v.isfinite().all() for v in content["state_dict"].values())


def test_weights_that_are_not_finite_are_not_saved(command, tmp_path, monkeypatch, capsys) -> None:
    """The losses were finite, the last step was not."""

    def overflow(self, trainer: pl.Trainer, stage: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == 3:
            stage.network.head.weight.data[0] = float("inf")

    monkeypatch.setattr(callbacks.RunStatus, "on_train_batch_end", overflow)
    assert command(*SMALL, "model=baseline", "model.network.width=4", "run_id=r", "checkpoint_steps=1") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the weights of network.head.weight are not finite")
    assert "step 3" in error
    last = checkpoint.read_checkpoint(run_of(tmp_path, "r").last_checkpoint)
    assert last["global_step"] == 2
    assert all(v.isfinite().all() for v in last["state_dict"].values())


@pytest.mark.parametrize("failing", range(4))
def test_losses_on_an_accelerator_are_looked_at_when_it_is_time_to_log(failing, compose_train, tmp_path, monkeypatch):
    """The batch that is named is the one whose loss it was, not the one at which it was seen."""
    stage = instantiate(compose_train(*STAGES["baseline"]).model)
    monkeypatch.setattr(type(stage), "device", torch.device("cuda"))
    names = [f"photo {i}.jpg" for i in range(4)]
    trainer = SimpleNamespace(
        current_epoch=0, global_step=9, optimizers=[], log_every_n_steps=4,
        datamodule=SimpleNamespace(training_names=lambda index: [names[i] for i in index.tolist()]),
    )  # fmt: skip
    check = callbacks.FiniteCheck(Run(tmp_path))
    for i in range(4):
        stage.train_values = {"loss": torch.tensor(float("nan") if i == failing else 1.0), "lr": 1e-3}
        batch = {"index": torch.tensor([i])}
        if i < 3:
            check.on_train_batch_end(trainer, stage, None, batch, i)
    with pytest.raises(InputError, match=rf"train/loss is nan in epoch 0, batch {failing}, .*photo {failing}\.jpg;"):
        check.on_train_batch_end(trainer, stage, None, batch, 3)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_that_runs_out_is_a_sentence_with_what_to_try(photo_folder, tmp_path, monkeypatch) -> None:
    """The process may have 380 MB of addresses more than it takes to start, of which threads reserve few."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    code = LIMITED.format(
        which="RLIMIT_AS",
        limit="int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + 380 * 2**20",
    )
    # The first layer's output alone (403 MB) is more than that: what fails is large, and there is room to say so.
    options = [*SMALL, "model=unet", "model.network.width=256", "model.network.depth=2", "datamodule.cache=off"]
    options += ["datamodule.image_size=512", "datamodule.batch_size=6"]
    process = subprocess.run(
        [sys.executable, "-c", code, *options, "run_id=r"], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 2, process.stderr
    error = process.stderr.strip().splitlines()[-1]
    assert error.startswith("error: out of memory")
    for words in ("datamodule.batch_size=6", "datamodule.image_size=512", "datamodule.batch_size=3",
                  "trainer.accumulate_grad_batches=2"):  # fmt: skip
        assert words in error
    assert run_of(tmp_path, "r").status()["error"] in error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
        MemoryError("Unable to allocate 4.00 GiB for an array"),
    ],
)
def test_every_allocator_is_understood(error, compose_train, tmp_path) -> None:
    assert isinstance(train.explain(error, compose_train(), Run(tmp_path)), InputError)


def test_other_errors_stay_as_they_are(compose_train, tmp_path) -> None:
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), PermissionError(errno.EACCES, "denied")):
        assert train.explain(error, compose_train(), Run(tmp_path)) is error
