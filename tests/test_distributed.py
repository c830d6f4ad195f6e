"""Training on several processes, started as a person starts them, against the same run on one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import forks
import pytest
import torch
from conftest import PATIENCE, SMALL_STAGES, finish, free_port, wait_for
from torch import nn

from colorization import train
from colorization.core import distributed
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.data.loading import EpochSampler

TESTS = Path(__file__).parent
STAGES = {
    stage: [*o, "model.network.depth=3", "model.network.dropout=0"] if stage != "baseline" else o
    for stage, o in SMALL_STAGES.items()
}
LOSSES = ("loss", "l1", "d_loss", "g_adversarial", "d_real", "d_fake", "lr", "d_lr")
# 36 photos to train on in batches of 8, 4 are left over; 9 to validate on, which two processes cannot share evenly.
SMALL = [
    "datamodule=sample",
    "datamodule.crops=9",
    "datamodule.image_size=32",
    "datamodule.batch_size=8",
    "datamodule.num_workers=0",
    "accelerator=cpu",
    "logger.tensorboard=null",
    "trainer.log_every_n_steps=1",
    "samples=2",
]
# (On a busy machine the second may need longer to start than the first would wait.)
TWO = ["trainer=ddp", "trainer.devices=2", f"trainer.timeout={PATIENCE}"]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """For commands in ``tmp_path``, whose processes find :mod:`distributed_probe`."""
    monkeypatch.chdir(tmp_path)
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "GLOO_SOCKET_IFNAME": "lo",
        # The processes meet seconds after Lightning would have chosen one, which a connection could have by then.
        "MASTER_PORT": str(free_port()),
    }


def start(environment: dict[str, str], *overrides: str, by: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*(by or (sys.executable,)), "-m", "colorization.train", *overrides]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **said)  # type: ignore[call-overload]


def as_two(
    environment: dict[str, str], *overrides: str, code: str = forks.TRAIN, hosts: tuple[str, ...] = ()
) -> list[forks.Process]:
    """What torchrun starts, without its starts of Python: on one host, or on two of :func:`two_hosts`."""
    group = {"MASTER_ADDR": "10.77.0.1" if hosts else "127.0.0.1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    group["LOCAL_WORLD_SIZE"] = "1" if hosts else "2"
    processes = []
    for rank in (0, 1):
        own = {"RANK": str(rank), "LOCAL_RANK": "0" if hosts else str(rank), "GROUP_RANK": str(rank) if hosts else "0"}
        where = (hosts[rank],) if hosts else ()
        variables = {**environment, **group, **own}
        processes.append(forks.Process(Path.cwd(), *where, *overrides, code=code, environment=variables))
    return processes


def figures(run: Run) -> dict[tuple[str, str, int], float]:
    """Losses, rates and all figures of validation and test (in training only a process's own photos are measured)."""
    return {
        (r["split"], r["name"], r["step"]): r["value"]
        for r in run.metrics()
        if r["value"] is not None and (r["split"] != "train" or r["name"] in LOSSES)
    }


def run_of(name: str) -> Run:
    return Run(Path("outputs/runs") / name)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_what_one_does(stage: str, environment: dict[str, str], run_main: Any) -> None:
    """The same global batches, losses and figures but for rounding, and weights that are the same on both."""
    # (Batch norm over few values magnifies rounding, so the baseline's learning rate is small.)
    options = [
        *SMALL,
        *STAGES[stage],
        "trainer.max_epochs=13",
        "model.optimizer.lr=1e-5",
        "trainer.check_val_every_n_epoch=13",
    ]
    probe = "+callbacks.probe={_target_: distributed_probe.Probe, folder: .}"
    assert run_main(train.main, *options, "run_id=one") == 0
    options += [*TWO, probe, "run_id=two"]
    # Lightning's own start of the second process is one for all stages.
    processes = [start(environment, *options)] if stage == "baseline" else as_two(environment, *options)
    said = "".join([finish(p) for p in processes])
    one, two = run_of("one"), run_of("two")
    expected, found = figures(one), figures(two)
    assert found.keys() == expected.keys() and len(expected) > 50
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key

    told = [json.loads(Path(f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0]["steps"] == [13 * 4] * (2 if stage in ("gan", "fusion") else 1)

    # One process writes.
    assert said.count("finished: ") == 1 and said.count("36 photos") == 1
    rows = [(r["split"], r["name"], r["step"]) for r in map(json.loads, two.metrics_file.read_text().splitlines())]
    assert len(set(rows)) == len(rows)
    assert {p.name for p in Path("outputs/runs").iterdir()} == {"one", "two"}
    assert {p.name for p in (two.path / "samples").iterdir()} == {p.name for p in (one.path / "samples").iterdir()}
    assert two.status()["state"] == "finished" and two.weights_file.is_file()


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_another_number_of_processes(environment: dict[str, str], run_main: Any) -> None:
    """SIGTERM in the middle of an epoch; then one process goes on as if it had been one all along."""
    options = [*SMALL, *STAGES["unet"], "model.optimizer.lr=1e-5", "datamodule.crops=120", "trainer.max_epochs=2"]
    assert run_main(train.main, *options, "run_id=whole") == 0
    processes = as_two(environment, *options, *TWO, "run_id=parts")
    parts = run_of("parts")
    wait_for(lambda: parts.status().get("step", 0) >= 3, process=processes[0])
    os.kill(processes[0].pid, signal.SIGTERM)
    said = finish(processes[0], code=143) + finish(processes[1])
    assert said.count("resume with: run_id=parts ckpt_path=last") == 1
    status = parts.status()
    assert status["state"] == "stopped" and 3 <= status["step"] < 120 and parts.weights_file.is_file()
    assert len(torch.load(parts.last_checkpoint, weights_only=True)["rng"]) == 2

    assert run_main(train.main, "run_id=parts", "ckpt_path=last", "trainer=default", "trainer.devices=1") == 0
    expected, found = figures(run_of("whole")), figures(parts)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def torchrun(host: int, *options: str, conf: str = "") -> tuple[str, ...]:
    """What host 1 or 2 of :func:`two_hosts` is told; they meet at the first."""
    meeting = ("--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29400", "--rdzv-id=test")
    own = (f"--rdzv-conf=is_host={2 - host}{conf}", f"--local-addr=10.77.0.{host}")
    return (sys.executable, "-m", "torch.distributed.run", *meeting, *own, *options)


@contextmanager
def two_hosts() -> Iterator[list[tuple[str, ...]]]:
    """Two network namespaces with an address each, 10.77.0.1 and 10.77.0.2: what to put before a command there."""
    names = [f"colorization-{os.getpid()}-{i}" for i in (1, 2)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE)

    if shutil.which("ip") is None:
        pytest.skip("no ip command")
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", names[1])
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for i, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [("ip", "netns", "exec", name) for name in names]
    finally:
        for name in names:
            kill_host(name)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


# ``ip netns exec`` without a start of Python.
ON_HOST = f"""
import ctypes, sys
with open("/run/netns/" + sys.argv.pop(1)) as namespace:
    assert ctypes.CDLL(None).setns(namespace.fileno(), 0x40000000) == 0  # CLONE_NEWNET
{forks.TRAIN}
"""


def kill_host(name: str) -> None:
    """All processes there: torchrun's workers are no children of its process group."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    for pid in map(int, found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["killed", "unplugged"])
def test_a_lost_host_ends_the_other_within_a_minute(loss: str, environment: dict[str, str], compose_train: Any) -> None:
    """The minute is that of a machine with nothing else to do: here it is the time limit that counts."""
    assert compose_train().trainer.timeout < 60
    environment["GLOO_SOCKET_IFNAME"] = "eth0"
    options = [*SMALL, *STAGES["baseline"], "datamodule.crops=60", "trainer.max_epochs=1000", "run_id=r"]
    options += ["checkpoint_steps=5", "trainer=ddp"]
    with two_hosts() as hosts:
        names = tuple(host[-1] for host in hosts)
        processes = as_two(environment, *options, code=ON_HOST, hosts=names)
        wait_for(lambda: run_of("r").status().get("step", 0) >= 10, process=processes[0])
        if loss == "killed":
            kill_host(names[1])
        else:
            subprocess.run([*hosts[1], "ip", "link", "set", "eth0", "down"], check=True)
        said, _ = processes[0].communicate(timeout=PATIENCE)
    assert processes[0].returncode != 0, said
    assert "error: another process of this run has ended or cannot be reached" in said, said
    assert "run_id=r ckpt_path=last" in said
    status = run_of("r").status()
    assert status["state"] == "failed" and "another process of this run" in status["error"]
    content = torch.load(run_of("r").last_checkpoint, weights_only=True)
    assert content["global_step"] >= 5


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 45000ms for recv operation to complete", True),
        ("Application timeout caused pair closure", True),
        ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.77.0.2]:5120", True),
        ("mat1 and mat2 shapes cannot be multiplied (8x16 and 8x16)", False),
    ],
)
def test_what_torch_says_of_a_lost_process_is_told_from_other_errors(
    said: str, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of these have been seen; which of them comes depends on the moment."""
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    assert distributed.is_loss_of_others(RuntimeError(said)) is lost


@pytest.mark.slow
def test_torchrun_goes_on_with_the_hosts_that_are_left(environment: dict[str, str]) -> None:
    """Elastic: the second host is killed, the first starts again from the last checkpoint, alone, to the end."""
    environment["GLOO_SOCKET_IFNAME"] = "eth0"
    options = [*SMALL, *STAGES["baseline"], "datamodule.crops=60", "trainer.max_epochs=12", "run_id=r"]
    options += ["checkpoint_steps=5", "trainer=ddp", "test=false"]
    with two_hosts() as hosts:
        elastic = ("--nnodes=1:2", "--max-restarts=3")
        by = [(*host, *torchrun(i, *elastic, conf=",last_call_timeout=15")) for i, host in enumerate(hosts, 1)]
        processes = [start(environment, *options, by=b) for b in by]
        wait_for(lambda: run_of("r").status().get("step", 0) >= 10, process=processes[0])
        assert len(torch.load(run_of("r").last_checkpoint, weights_only=True)["rng"]) == 2
        kill_host(hosts[1][-1])
        said, _ = processes[0].communicate(timeout=PATIENCE)
    assert processes[0].returncode == 0, said
    status = run_of("r").status()
    assert status["state"] == "finished" and status["epoch"] == 12
    content = torch.load(run_of("r").last_checkpoint, weights_only=True)
    assert len(content["rng"]) == 1 and content["global_step"] == 12 * (240 // 8)


@pytest.mark.parametrize(("size", "batch", "world"), [(36, 8, 2), (37, 8, 4), (5, 8, 2), (7, 6, 3), (16, 8, 1)])
def test_processes_share_every_batch(size: int, batch: int, world: int) -> None:
    def keys(rank: int, of: int, even: bool) -> list[int]:
        sampler = EpochSampler(size, True, 1, batch, even)
        sampler.rank, sampler.world = rank, of
        assert len(list(sampler)) == len(sampler)
        return [position for _, position in sampler]

    (whole,) = [keys(0, 1, True)]
    shares = [keys(rank, world, True) for rank in range(world)]
    assert len({len(s) for s in shares}) == 1
    own = batch // world
    for i in range(size // batch):
        together = {k for s in shares for k in s[i * own : (i + 1) * own]}
        assert together == set(whole[i * batch : (i + 1) * batch])
    assert len(whole) - sum(map(len, shares)) == (size % batch) % world
    uneven = [k for rank in range(world) for k in keys(rank, world, False)]
    assert sorted(uneven) == sorted(whole)  # in validation each photo counts once


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed"])
def test_strategies_that_do_not_go_with_the_stages_are_refused(strategy: str, compose_train: Any) -> None:
    with pytest.raises(InputError, match=f"trainer.strategy={strategy}: should be auto or ddp"):
        train.check(compose_train(f"trainer.strategy={strategy}"))


@pytest.mark.slow
def test_batch_norm_over_two_processes_is_that_of_torch_over_both_batches(tmp_path: Path) -> None:
    code = "import sys, distributed_probe; distributed_probe.normalise(*sys.argv[1:])"
    places = (str(tmp_path / "meet"), f"{tmp_path}/rank")
    for process in [forks.Process(tmp_path, rank, *places, code=code) for rank in "01"]:
        finish(process)
    parts = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    torch.manual_seed(0)
    x = (torch.randn(6, 3, 4, 5) * 2 + 1).requires_grad_()
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    out = norm(x)
    weights = [torch.arange(o.numel()).view_as(o).sin() for o in (out[:4], out[4:])]
    (out * torch.cat(weights)).sum().backward()
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), out.detach())
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), x.grad)
    for part in parts:
        torch.testing.assert_close(part[2:], [norm.running_mean, norm.running_var])
