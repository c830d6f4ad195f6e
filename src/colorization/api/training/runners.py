"""Where a run's process lives: on this machine, on a Ray cluster, or under Slurm. All see the same folders.

A runner keeps in the run's row what finds its process again: the pid and the start time of one of this machine, in
``Run.job`` the name of a cluster's job, noted before it is submitted: whenever a server ends, the next one finds it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from colorization.api.settings import Settings
from colorization.api.storage.database import Run
from colorization.api.training import processes

_SECRETS = ("COLORIZATION_TOKEN", "COLORIZATION_DATABASE")  # of the server; no run needs them
TIMEOUT = 3.0  # seconds that a cluster has to answer
STOPPING = 60  # seconds after which Ray kills a job that it was asked to stop


class Unreachable(Exception):
    """A cluster does not answer, or refuses: in a sentence."""


@dataclass(frozen=True)
class Ended:
    """A process that is gone.

    Attributes:
        code: its exit code, negative for a signal; ``None`` if nobody knows.
        reason: a cluster's message.
        begun: false if the cluster has no trace of it.
    """

    code: int | None = None
    reason: str | None = None
    begun: bool = True


class Runner(ABC):
    """Starts the processes of runs, and knows their state; all raise :class:`Unreachable`."""

    def job(self, row: Run) -> str | None:
        """The name of the job that the row's process will be, for ``Run.job``; here none."""
        return None

    @abstractmethod
    def start(self, row: Run, command: Sequence[str], output: Path) -> None:
        """Start it; its output is appended to ``output``."""

    @abstractmethod
    def poll(self, row: Run) -> Ended | None:
        """How it has ended; ``None`` as long as it lives, or waits for its turn in a cluster."""

    @abstractmethod
    def terminate(self, row: Run) -> None:
        """Ask it to end."""

    @abstractmethod
    def kill(self, row: Run) -> None:
        """End it at once."""


class Local(Runner):
    """Child processes in sessions of their own: they outlive the server."""

    def __init__(self) -> None:
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, row: Run, command: Sequence[str], output: Path) -> None:
        with output.open("ab") as out:
            child = subprocess.Popen(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[row.id] = child
        row.pid, row.process_started = child.pid, processes.started(child.pid)

    def poll(self, row: Run) -> Ended | None:
        child = self._children.get(row.id)
        if child is None or child.pid != row.pid:
            return None if processes.alive(row.pid, row.process_started) else Ended()
        code = child.poll()
        return None if code is None else Ended(code)

    def terminate(self, row: Run) -> None:
        processes.terminate(row.pid, row.process_started)

    def kill(self, row: Run) -> None:
        processes.kill(row.pid, row.process_started)


class Cluster(Runner):
    """Base of the two clusters: a job's name."""

    kind: str

    def job(self, row: Run) -> str | None:
        return f"{self.kind}:{row.id}-{row.queued_ns}"  # another one each time that the run is put into the queue

    def start(self, row: Run, command: Sequence[str], output: Path) -> None:
        if not self.knows(_job(row)):  # a submission may have arrived though its answer did not
            self.submit(_job(row), command, output)

    @abstractmethod
    def submit(self, name: str, command: Sequence[str], output: Path) -> None:
        """Hand a job to the cluster."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Whether the cluster has, or remembers, a job of this name."""


class Ray(Cluster):
    """Ray Jobs, through the REST API of the cluster's dashboard: the server needs no Ray.

    Args:
        address: of the dashboard.
        resources: of each job: ``entrypoint_num_cpus``, ``entrypoint_num_gpus``, ``entrypoint_memory``,
            ``entrypoint_resources``. Without any, Ray starts jobs on the head node.
    """

    kind = "ray"

    def __init__(self, address: str, resources: dict[str, Any]) -> None:
        self.address, self.resources = address.rstrip("/"), resources

    def submit(self, name: str, command: Sequence[str], output: Path) -> None:
        content = {
            "submission_id": name,
            "entrypoint": f"cd {shlex.quote(str(Path.cwd()))} && {_appending(command, output)}",
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOPPING)}},
            **self.resources,
        }
        if self._ask("/api/jobs/", content) is None:
            raise Unreachable(f"{self.address} is no dashboard of a Ray cluster")

    def knows(self, name: str) -> bool:
        return self._ask(f"/api/jobs/{name}") is not None

    def poll(self, row: Run) -> Ended | None:
        found = self._ask(f"/api/jobs/{_job(row)}")
        if found is None:
            return Ended(reason=f"the Ray cluster at {self.address} has lost it", begun=False)
        if found["status"] in ("PENDING", "RUNNING"):
            return None
        if (code := found.get("driver_exit_code")) is None and found["status"] == "FAILED":
            return Ended(reason=f"Ray: {found['message']}")
        return Ended(code)

    def terminate(self, row: Run) -> None:
        self._ask(f"/api/jobs/{_job(row)}/stop", {})

    def kill(self, row: Run) -> None:
        """Nothing: Ray does so by itself, :data:`STOPPING` seconds after it was asked to stop it."""

    def _ask(self, path: str, content: dict[str, Any] | None = None) -> Any:
        """The cluster's answer; ``None`` if it does not know the job."""
        headers = {"Content-Type": "application/json"}
        if token := _ray_token():
            headers["Authorization"] = f"Bearer {token}"
        body = None if content is None else json.dumps(content).encode()
        try:
            with urlopen(Request(self.address + path, body, headers), timeout=TIMEOUT) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code == 404:
                return None
            said = error.read(2000).decode(errors="replace").strip().split("\n")[-1]
            raise Unreachable(f"the Ray cluster at {self.address} refuses: {error.code} {said}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise Unreachable(f"the Ray cluster at {self.address} does not answer") from error


class Slurm(Cluster):
    """Slurm's own commands.

    Args:
        options: of ``sbatch``, as ``--partition=gpu``, ``--gres=gpu:1``.
        runs_dir: the run folders.
    """

    kind = "slurm"
    _OFTEN = 2.0  # seconds between two looks at the queue, which all of a cluster's users share

    def __init__(self, options: Sequence[str], runs_dir: Path) -> None:
        self.options, self.runs_dir = list(options), runs_dir
        self._states: dict[str, str] = {}
        self._next_look = 0.0

    def submit(self, name: str, command: Sequence[str], output: Path) -> None:
        log = output.with_name(f"slurm-{name}.log")  # of Slurm itself: why a job was ended
        options = [f"--job-name={name}", f"--output={log}", "--open-mode=append", "--no-requeue", *self.options]
        self._ask("sbatch", *options, f"--wrap={_appending(command, output)}")
        self._next_look = 0

    def knows(self, name: str) -> bool:
        self._next_look = 0
        return name in self._look()

    def poll(self, row: Run) -> Ended | None:
        if _job(row) in self._look():
            return None
        log = self.runs_dir / row.id / f"slurm-{_job(row)}.log"
        if not log.is_file():
            return Ended(begun=False)
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        return Ended(reason=said.splitlines()[-1] if said else None)

    def terminate(self, row: Run) -> None:
        self._next_look = 0
        running = self._look().get(_job(row)) == "RUNNING"
        self._ask("scancel", f"--name={_job(row)}", *(["--batch", "--signal=TERM"] if running else []))

    def kill(self, row: Run) -> None:
        self._ask("scancel", f"--name={_job(row)}")

    def _look(self) -> dict[str, str]:
        """The states of this user's jobs by name; those that have ended are not there."""
        if time.monotonic() >= self._next_look:
            said = self._ask("squeue", "--me", "--noheader", "--format=%T %j")
            self._states = {name: state for state, _, name in (line.partition(" ") for line in said.splitlines())}
            self._next_look = time.monotonic() + self._OFTEN
        return self._states

    def _ask(self, *command: str) -> str:
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=_environment())
        except FileNotFoundError as error:
            raise Unreachable(f"there is no {command[0]} here, a command of Slurm") from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable("Slurm does not answer") from error
        if said.returncode != 0:
            raise Unreachable(f"Slurm: {' '.join(said.stderr.split())}")
        return said.stdout


def _ray_token() -> str | None:
    """Where Ray itself looks for the token of a cluster."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def make(settings: Settings) -> dict[str, Runner]:
    """All runners, by name: a run of before may live with another than the one that new runs are given to."""
    return {
        "local": Local(),
        "ray": Ray(settings.ray_address, settings.ray_resources),
        "slurm": Slurm(settings.slurm_options, Path(settings.output_dir).absolute() / "runs"),
    }


def of(row: Run, all_of_them: dict[str, Runner]) -> Runner:
    """The runner that has the row's process."""
    return all_of_them[row.job.partition(":")[0] if row.job else "local"]


def _job(row: Run) -> str:
    assert row.job is not None
    return row.job.partition(":")[2]


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in _SECRETS}


def _appending(command: Sequence[str], output: Path) -> str:
    """In a shell that the command replaces: it gets the signals itself."""
    return f"exec {shlex.join(command)} >> {shlex.quote(str(output))} 2>&1 < /dev/null"
