"""Clusters of this one machine, for tests: Ray's and Slurm's own daemons, on the loopback alone."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from conftest import PATIENCE, free_port, wait_for

SLURM = """\
ClusterName=test
SlurmctldHost=localhost
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName=localhost CPUs=2 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """One node of two cores; the variables with which its commands find it. Skips where Slurm is not installed."""
    if not (shutil.which("slurmctld") and shutil.which("slurmd")):
        pytest.skip("no Slurm here")
    for name in ("controller", "node"):
        (folder / name).mkdir(parents=True)
    file = folder / "slurm.conf"
    file.write_text(SLURM.format(user=getpass.getuser(), ports=(free_port(), free_port()), folder=folder))
    environment = {"SLURM_CONF": str(file)}
    daemons = []
    with (folder / "log").open("w") as log:
        for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "localhost"]):
            daemons.append(subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log))

        def idle() -> bool:
            said = subprocess.run(["sinfo", "-h", "-o", "%T"], env=os.environ | environment, capture_output=True)
            return said.stdout.strip() == b"idle"

        try:
            wait_for(idle)
            yield environment
        finally:
            for daemon in daemons:
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(30)


class Ray:
    """A Ray cluster of two workers, whose processes form a group of their own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it, whose paths end at 107 letters
        self.port, self.dashboard_port = free_port(), free_port()
        self.environment = {"RAY_ADDRESS": f"127.0.0.1:{self.port}", "RAY_AUTH_MODE": "disabled"}
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"

    def start(self) -> None:
        options = {
            "node-ip-address": "127.0.0.1",
            "port": self.port,
            "num-cpus": 2,
            "object-store-memory": 100 * 2**20,
            "temp-dir": self.folder,
            "ray-client-server-port": free_port(),
            "dashboard-port": self.dashboard_port,
            "dashboard-agent-listen-port": free_port(),
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._ready)

    def _ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return requests.get(f"{self.dashboard}/api/jobs/", timeout=PATIENCE).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """All of it at once, as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def ray() -> Iterator[Ray]:
    cluster = Ray()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(cluster.folder, ignore_errors=True)
