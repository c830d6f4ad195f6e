"""Training runs: a queue of processes that outlive the server (:mod:`.runners`), and the index of all run folders.

A run's files are the truth (:mod:`.runs`). One thread starts waiting runs, notices ended ones, and reads
each ``status.json`` that has changed, runs of the command line included, into the table of which lists are made.

The next server repairs the state after a crash: a run is in the table before its folder is made, and
its process is found by its command line if the server died before it had noted the pid. ``status.json`` is written
only while holding the run's lock, which its process holds as long as it lives, so that no living run is called dead.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout
from sqlalchemy import delete, func, or_, select

from colorization.api.http.problems import Problem
from colorization.api.settings import Settings
from colorization.api.storage.database import Database, Run
from colorization.api.training import processes, runners
from colorization.api.training.plan import Plan, checkpointed
from colorization.core import runs
from colorization.core.overrides import quoted

log = logging.getLogger(__name__)

UNFINISHED = ("queued", "running")
OUTPUT = "process.log"  # of the process, in the run folder: its output before and beside train.log
QUEUE = 1000  # runs that wait
GRACE = 10.0  # seconds that a process has to end before it is killed
TICK = 0.5
_SHARE = 20  # looking at the folders takes a twentieth of the time at most
_PAUSE = 20.0  # seconds for which a cluster that does not answer is left alone


class Trainings:
    """Starts, stops, watches and lists runs; :meth:`start` it once."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.output_dir = Path(settings.output_dir).absolute()
        self.runs_dir = self.output_dir / "runs"
        self.runners = runners.make(settings)
        self.notices: dict[str, str] = {}  # why nothing is known of a run at the moment
        self._silent: dict[runners.Runner, tuple[float, str]] = {}  # until when it is left alone, and the reason
        self._seen: dict[str, int] = {}
        self._next_look = 0.0
        self._lock = threading.RLock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="trainings", daemon=True)

    def start(self) -> None:
        """Resume the work of an earlier server, then supervise."""
        for half_deleted in self.runs_dir.glob(".deleted-*"):
            shutil.rmtree(half_deleted, ignore_errors=True)
        with self.database() as session:
            self._seen = {id: seen for id, seen in session.execute(select(Run.id, Run.seen)) if seen}
        self._look()
        with self._lock, self.database() as session:
            for row in session.scalars(select(Run).where(Run.state == "queued", ~Run.has_process)):
                if (process := processes.find(["colorization.train", *self._names(row.id)])) is not None:
                    row.pid, row.process_started = process.pid, process.create_time()
                elif row.command is None:  # the table that had it in its queue is gone
                    self._write(row, {"state": "stopped", "error": "it was waiting in a queue that is lost"})
        self._thread.start()

    def close(self) -> None:
        """End the thread; the runs continue."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    # Requests

    def submit(self, plan: Plan) -> str:
        """Put a new run into the queue; its id."""
        with self._lock:
            self._check_room()
            now = datetime.datetime.now(datetime.timezone.utc)
            id = f"{plan.model}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
            status = {"state": "queued", "model": plan.model, "created": runs.utc_now(), "max_epochs": plan.max_epochs}
            row = Run(id=id, origin="api", model=plan.model, state="queued", created=status["created"], status=status)
            row.command, row.queued_ns = plan.command, time.time_ns()
            with self.database() as session:  # first: a folder without its row would be nobody's
                session.add(row)
            self._write(row, status)
        self._wake.set()
        return id

    def resume(self, id: str, plan: Plan) -> None:
        """Put an ended run into the queue again.

        Raises:
            Problem: 409, it has not ended.
        """
        with self._lock:
            self._check_ended(self.get(id))
            self._check_room()
            try:
                with self._holding(id) as run:
                    with self.database() as session:  # first: a command of before would train it from the beginning
                        row = session.get(Run, id)
                        row.state, row.command, row.queued_ns = "queued", plan.command, time.time_ns()
                        row.pid = row.process_started = row.job = row.stop_asked = None
                        row.stop_force = False
                    self.notices.pop(id, None)
                    before = {key: run.status().get(key) for key in ("state", "max_epochs")}
                    told = {"error": None, "eta_seconds": None, "max_epochs": plan.max_epochs, "before": before}
                    run.update_status(state="queued", **told)
            except Timeout as error:
                raise Problem(409, f"{id}: another process is using this run") from error
        self._wake.set()

    def stop(self, id: str, force: bool) -> None:
        """Ask a run to end: it leaves the queue, or its process gets SIGTERM, finishes its batch and saves.

        Args:
            id: of the run.
            force: kill the process if it is still there after :data:`GRACE`; of a run of another machine, note that
                its process is gone, if nobody holds its lock.

        Raises:
            Problem: 404; 409, it has ended or trains on another machine; 503, its cluster does not answer.
        """
        with self._lock:
            self.get(id)
            with self.database() as session:
                row = session.get(Run, id)
                if row.state not in UNFINISHED:
                    raise Problem(409, f"{id} has ended already ({row.state})")
                host = row.status.get("host")
                if row.job is None and not _is_here(row.status):
                    gone = f"its process on {host} is gone"
                    if not (
                        force
                        and self._write(row, {"state": "failed", "error": gone, "eta_seconds": None}, anywhere=True)
                    ):
                        raise Problem(409, f"{id} trains on another machine, {host}; stop it there")
                    return
                if row.state == "queued" and not row.has_process:
                    self._take_back(row)
                    return
                if row.stop_asked is None:  # a second SIGTERM would not wait for the batch
                    try:
                        self._runner(row).terminate(row)
                    except runners.Unreachable as error:
                        if not force or row.state != "queued":
                            raise Problem(503, str(error), retry_after=10) from error
                        self._take_back(row)  # should its cluster come back, it finds that the run is stopped
                        return
                    row.stop_asked = time.time()
                row.stop_force = row.stop_force or force
        self._wake.set()

    def _take_back(self, row: Run) -> None:
        """Stop a run that has not begun."""
        if not self._write(row, {"state": "stopped", "error": None, **_before(row)}):
            raise Problem(409, f"{row.id}: another process is using this run")
        row.job = None
        self.notices.pop(row.id, None)

    def delete(self, id: str, files: bool) -> None:
        """Take an ended run out of the history, with its files or without.

        Raises:
            Problem: 404; 409, it has not ended.
        """
        doomed = self.runs_dir / f".deleted-{secrets.token_hex(8)}"
        with self._lock:
            self._check_ended(self.get(id))
            with self.database() as session:
                row = session.get(Run, id)
                if not files:
                    row.removed = True
                    return
                try:
                    with self._holding(id) as run:
                        run.path.rename(doomed)  # at once: a crash leaves no half of it
                except Timeout as error:
                    raise Problem(409, f"{id}: another process is using this run") from error
                session.delete(row)
                self._seen.pop(id, None)
        if doomed.is_symlink():
            doomed.unlink()
        else:
            shutil.rmtree(doomed)

    # Answers

    def get(self, id: str) -> Run:
        """A run as it is now.

        Raises:
            Problem: 404.
        """
        with self._lock:
            if id in self._seen and (stamp := _stamp(self.runs_dir / id / "status.json")):
                self._read({id: stamp})
        with self.database() as session:
            row = session.get(Run, id)
        if row is None or row.removed:
            raise Problem(404, "there is no such run; GET /api/training/runs lists them")
        return row

    def known(self, id: str) -> bool:
        """Whether there is such a run."""
        with self.database() as session:
            row = session.get(Run, id)
            return row is not None and not row.removed

    def folder(self, row: Run) -> runs.Run:
        """Its files."""
        return runs.Run(self.runs_dir / row.id)

    def find(
        self,
        page: int,
        per_page: int,
        sort: str = "-created",
        states: tuple[str, ...] = (),
        model: str = "",
        q: str = "",
    ) -> tuple[list[Run], int]:
        """One page of runs, and how many there are on all.

        Args:
            page: from 1.
            per_page: runs on it.
            sort: ``created``, ``id``, ``model`` or ``state``, with ``-`` for the largest first.
            states, model: only these; all where empty.
            q: part of the id or model, in any case.
        """
        where: list[Any] = [Run.removed.is_(False)]
        if states:
            where.append(Run.state.in_(states))
        if model:
            where.append(Run.model == model)
        if q:
            where.append(or_(Run.id.icontains(q, autoescape=True), Run.model.icontains(q, autoescape=True)))
        column = getattr(Run, sort.removeprefix("-"))
        order = [c.desc() if sort.startswith("-") else c.asc() for c in (column, Run.id)]
        with self.database() as session:
            total = session.scalar(select(func.count()).select_from(Run).where(*where)) or 0
            chosen = select(Run).where(*where).order_by(*order).limit(per_page).offset((page - 1) * per_page)
            return list(session.scalars(chosen)), total

    def log_lines(self, run: runs.Run) -> list[str]:
        """The lines of its log; of its process where it has not come to write one."""
        for name in ("train.log", OUTPUT):
            if (file := run.path / name).is_file() and (text := file.read_text(encoding="utf-8", errors="replace")):
                return text.removesuffix("\n").split("\n")
        return []

    def queue(self) -> list[str]:
        """Ids of the runs that wait for their turn, the next one first."""
        with self.database() as session:
            waiting = select(Run.id).where(Run.state == "queued", ~Run.has_process).order_by(Run.queued_ns)
            return list(session.scalars(waiting))

    # The thread

    def _supervise(self) -> None:
        while not self._closing.is_set():
            try:
                with self._lock:
                    if time.monotonic() >= self._next_look:
                        self._look()
                    self._check_processes()
                    self._start_waiting()
            except Exception:  # the next round may find the disk or the database back
                log.exception("trainings")
            self._wake.wait(TICK)
            self._wake.clear()

    def _look(self) -> None:
        """Read changes in the run folders into the table."""
        began = time.monotonic()
        with self._lock:
            stamps = {}
            try:
                with os.scandir(self.runs_dir) as entries:
                    for entry in entries:
                        if not entry.name.startswith(".") and entry.name.isprintable():
                            stamps[entry.name] = _stamp(f"{entry.path}/status.json")
            except FileNotFoundError:
                pass
            there = {id: stamp for id, stamp in stamps.items() if stamp}
            self._read(there)
            if gone := self._seen.keys() - there.keys():
                with self.database() as session:
                    for some in _parts(sorted(gone)):
                        session.execute(delete(Run).where(Run.id.in_(some), ~Run.has_process))
                        for id in set(some) - set(session.scalars(select(Run.id).where(Run.id.in_(some)))):
                            del self._seen[id]
        ended = time.monotonic()
        self._next_look = ended + max(TICK, _SHARE * (ended - began))

    def _read(self, stamps: Mapping[str, int]) -> None:
        changed = [id for id, stamp in stamps.items() if self._seen.get(id) != stamp]
        for some in _parts(changed):
            with self.database() as session:
                rows = {row.id: row for row in session.scalars(select(Run).where(Run.id.in_(some)))}
                for id in some:
                    try:
                        status = runs.Run(self.runs_dir / id).status()
                    except (OSError, ValueError) as error:
                        log.warning("%s: status.json cannot be read (%s)", id, error)
                        status = {}
                    self._seen[id] = stamps[id]
                    if not isinstance(status, dict) or status.get("state") not in runs.STATES:
                        continue
                    if (row := rows.get(id)) is None:
                        row = Run(id=id, origin="command line", status={}, stop_force=False, removed=False)
                        session.add(row)
                    self._take(row, status)

    def _take(self, row: Run, status: dict[str, Any]) -> None:
        """Update a row from its ``status.json``."""
        row.status, row.state, row.seen = status, status["state"], self._seen.get(row.id, 0)
        row.model = str(status.get("model") or row.model or "")
        row.created = row.created or str(status.get("created") or status.get("started") or status.get("time") or "")
        row.resumable = checkpointed(runs.Run(self.runs_dir / row.id))
        if row.state == "running":
            row.removed = False
            if row.job is None:
                row.pid, row.process_started = status.get("pid"), status.get("process_started")

    def _check_processes(self) -> None:
        with self.database() as session:
            ids = list(session.scalars(select(Run.id).where(or_(Run.state == "running", Run.has_process))))
        for id in ids:
            with self.database() as session:
                row = session.get(Run, id)
                if row is None or (row.job is None and not _is_here(row.status)):
                    continue
                try:
                    self._check_process(row, self._runner(row))
                except OSError as error:
                    log.warning("%s: %s", id, error)

    def _check_process(self, row: Run, runner: runners.Runner) -> None:
        if (silent := self._silence(runner)) is None:
            try:
                ended = runner.poll(row)
                if ended is None and row.stop_force and time.time() - (row.stop_asked or 0) > GRACE:
                    runner.kill(row)
            except runners.Unreachable as error:
                silent = self._leave_alone(runner, error)
        if silent is not None:
            self.notices[row.id] = silent
            if row.state != "queued":  # what runs holds the lock, and this would write nothing
                self._settle(row, runners.Ended(reason=f"{silent}, and its process is gone"))
            return
        self.notices.pop(row.id, None)
        if ended is not None and not ended.begun and row.state == "queued" and row.stop_asked is None:
            row.job = None  # the server ended before it had submitted it, or the cluster before it began: once more
        elif ended is not None:
            self._settle(row, ended)

    def _runner(self, row: Run) -> runners.Runner:
        return runners.of(row, self.runners)

    def _silence(self, runner: runners.Runner) -> str | None:
        """The reason why it did not answer, as long as it is left alone."""
        until, said = self._silent.get(runner, (0.0, ""))
        return said if time.monotonic() < until else None

    def _leave_alone(self, runner: runners.Runner, error: runners.Unreachable) -> str:
        self._silent[runner] = time.monotonic() + _PAUSE, str(error)
        return str(error)

    def _settle(self, row: Run, ended: runners.Ended) -> None:
        """Set the state of a run whose process is gone, unless the run has done so itself."""
        if row.status.get("state") in UNFINISHED or row.state in UNFINISHED:
            state = "failed" if row.stop_asked is None else "stopped"
            changes = {"state": state, "error": self._reason(row, ended), "eta_seconds": None, **_before(row)}
            if not self._write(row, changes, only=UNFINISHED, anywhere=row.job is not None):
                return  # its loaders hold the lock a moment longer, or another process has resumed it
        row.pid = row.process_started = row.job = row.stop_asked = None
        row.stop_force = False
        self.notices.pop(row.id, None)

    def _reason(self, row: Run, ended: runners.Ended) -> str | None:
        code = ended.code
        if row.stop_asked is not None:
            return "it did not end when it was asked to, and was killed" if code == -9 else None
        if ended.reason is not None:
            return ended.reason
        if code is None and row.job is None:
            return "its process ended without saying why"
        if code is not None and code < 0:
            return f"killed by signal {-code}"
        try:
            with (self.runs_dir / row.id / OUTPUT).open("rb") as output:
                output.seek(max(0, os.fstat(output.fileno()).st_size - 8192))
                lines = output.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            lines = []
        said = [line.strip() for line in lines if line.strip()]
        if said and said[-1].startswith("error: "):
            return said[-1].removeprefix("error: ")
        if code is None:
            return "its process ended without saying why"
        return f"its process ended with exit code {code}" + (f": {said[-1]}" if said else "")

    def _start_waiting(self) -> None:
        with self.database() as session:
            busy = session.scalar(
                select(func.count()).select_from(Run).where(Run.command.is_not(None), Run.has_process)
            )
            free = self.settings.trainings - (busy or 0)
            waiting = select(Run).where(Run.state == "queued", ~Run.has_process, Run.command.is_not(None))
            ids = [row.id for row in session.scalars(waiting.order_by(Run.queued_ns).limit(max(0, free)))]
        runner = self.runners[self.settings.runner]
        for id in ids:
            with self.database() as session:  # noted first: a job that is not noted would be nobody's
                row = session.get(Run, id)
                row.job = runner.job(row)
            with self.database() as session:
                self._start_process(session.get(Run, id), runner)

    def _start_process(self, row: Run, runner: runners.Runner) -> None:
        run = self.folder(row)
        if not run.status():  # the server before this one ended in between
            self._write(row, row.status)
        command = [sys.executable, "-m", "colorization.train", *self._names(row.id), *(row.command or [])]
        if (silent := self._silence(runner)) is None:
            try:
                runner.start(row, command, run.path / OUTPUT)
            except runners.Unreachable as error:
                silent = self._leave_alone(runner, error)
        if silent is not None:
            row.job, self.notices[row.id] = None, silent
            return
        self.notices.pop(row.id, None)
        log.info("%s: started (%s)", row.id, row.job or f"pid {row.pid}")

    # Parts

    def _names(self, id: str) -> list[str]:
        """The overrides by which a process is known."""
        return [f"run_id={quoted(id)}", f"paths.output_dir={quoted(str(self.output_dir))}"]

    def _check_ended(self, row: Run) -> None:
        if row.state in UNFINISHED:
            raise Problem(409, f"{row.id} is {row.state}; stop it first")
        try:
            living = row.has_process and self._runner(row).poll(row) is None
        except runners.Unreachable as error:
            raise Problem(503, str(error), retry_after=10) from error
        if living:
            raise Problem(409, f"the process of {row.id} has not ended yet; try again in a moment")

    def _check_room(self) -> None:
        if len(self.queue()) >= QUEUE:
            raise Problem(503, f"{QUEUE} runs are waiting already; try again later", retry_after=60)

    @contextmanager
    def _holding(self, id: str) -> Iterator[runs.Run]:
        """A run whose lock is held: no process trains it. Raises ``Timeout`` at once if one does."""
        run = runs.Run(self.runs_dir / id)
        run.path.mkdir(parents=True, exist_ok=True)
        with run.lock(timeout=0):
            yield run

    def _write(
        self, row: Run, changes: Mapping[str, Any], only: tuple[str, ...] = runs.STATES, anywhere: bool = False
    ) -> bool:
        """Change ``status.json`` and the row, holding the run's lock; False if another process holds it.

        Args:
            row: of the run.
            changes: of the status.
            only: nothing is changed where the file says another state by now.
            anywhere: nor where the run trains on another machine, unless this is set.
        """
        try:
            with self._holding(row.id) as run:
                before = run.status()
                if before.get("state", "queued") in only and (anywhere or _is_here(before)):
                    run.update_status(**changes)
                self._seen[row.id] = _stamp(run.status_file)
                status = run.status()
        except Timeout:
            return False
        if status.get("state") in runs.STATES:
            self._take(row, status)
        return True


def _before(row: Run) -> dict[str, Any]:
    """The status to restore if a run was to be resumed and did not start; empty for a new run."""
    before = row.status.get("before") if row.status.get("state") == "queued" else None
    return {**before, "before": None} if before else {}


def _is_here(status: Mapping[str, Any]) -> bool:
    """Whether the process of a run is, or was, on this machine."""
    return status.get("state") != "running" or status.get("host", processes.HOST) == processes.HOST


def _stamp(file: str | Path) -> int:
    """Changes with a file that is replaced, even twice within a tick of the clock; 0 if it is not there."""
    try:
        stat = os.stat(file)  # noqa: PTH116 - ten thousand of them in each round
    except OSError:
        return 0
    return (stat.st_mtime_ns + stat.st_ino) & 0x7FFF_FFFF_FFFF_FFFF


def _parts(ids: list[str], size: int = 500) -> Iterator[list[str]]:
    """``ids`` in lists that a database takes in one statement."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def metrics_of(file: Path, most: int = 1 << 16) -> dict[str, float | None]:
    """The latest value of each ``<split>/<name>`` in the end of a ``metrics.jsonl``."""
    if not file.is_file():
        return {}
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - most))
        lines = content.read().split(b"\n")
    found: dict[str, float | None] = {}
    for line in lines:
        try:
            row = json.loads(line)
            found[f"{row['split']}/{row['name']}"] = row["value"]
        except (ValueError, TypeError, KeyError):  # cut at the start, or by a crash
            continue
    return found
