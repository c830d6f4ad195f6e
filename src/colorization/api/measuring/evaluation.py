"""Evaluations: ``python -m colorization.eval`` as a process of its own, whose ``status.json`` says how far it is.

The process outlives the server. Its command line names the evaluation's folder, and by that a later server finds it.
"""

from __future__ import annotations

import csv
import functools
import json
import logging
import re
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select
from werkzeug.datastructures import FileStorage

from colorization.api import forms
from colorization.api.colorizing import weights
from colorization.api.http.problems import Problem
from colorization.api.http.redact import without_paths
from colorization.api.settings import Settings
from colorization.api.storage import uploads
from colorization.api.storage.database import Database, Evaluation
from colorization.api.storage.jobs import Cancelled, Context
from colorization.api.training import processes
from colorization.api.training.plan import find_folder
from colorization.core.errors import InputError
from colorization.core.overrides import quoted

log = logging.getLogger(__name__)

FILES = {
    "table.md": "text/markdown",
    "metrics.json": "application/json",
    "per_image.csv": "text/csv",
    "distributions.png": "image/png",
    "comparison.png": "image/png",
    "curve.csv": "text/csv",
    "curve.png": "image/png",
    "sparsification.png": "image/png",
    "uncertainty.png": "image/png",
}
DEFAULT_DATA = "test_samples"
STRIPS = 200  # photos of which strips are kept, a quarter of a megabyte each at 256 pixels
PATIENCE = 30.0  # seconds that a process has to end after SIGTERM


class Evaluations:
    """All evaluations of an ``output_dir``, including those of the command line.

    They lie in ``<output_dir>/eval/<id>``; the table lists them.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.output_dir = Path(settings.output_dir).absolute()
        self.folder, self.jobs = self.output_dir / "eval", settings.state_dir.absolute() / "jobs"
        self.roots, self.database = settings.data_roots, database
        self._recording = threading.Lock()

    def store(self, given: Sequence[FileStorage], job_id: str) -> None:
        """Put uploads where the job finds them, under names that begin with their number.

        Raises:
            Problem: 413, 415 or 422: one cannot be used.
        """
        folder = self.jobs / job_id
        try:
            for number, file in enumerate(given):
                stored = uploads.store(file, folder, self.settings)
                plain = re.sub(r"[^A-Za-z0-9]+", "_", Path(stored.name).stem)[:60]
                stored.path.rename(folder / f"{number:04d}-{plain}{stored.path.suffix}")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def run(self, context: Context) -> dict[str, Any]:
        """The job ``evaluate``.

        The request has ``weights`` (ids), ``data`` (a name below the roots; ``None``: the job's uploads),
        and those of :data:`colorization.api.forms.EVALUATION`.

        Returns:
            ``url`` of the evaluation, and its report.

        Raises:
            InputError: it failed.
        """
        folder = self.folder / context.id
        process, adopted = processes.find([_argument(folder)]), True
        while True:
            if process is None and _state(folder) not in ("finished", "failed"):
                process, adopted = self._start(context, folder), False
            code = self._watch(context, folder, process) if process else None
            if not adopted or _state(folder) in ("finished", "failed"):
                break
            process = None  # it died with the earlier server, or is a left-over worker
        state, error = _state(folder), _status(folder).get("error")
        if state != "finished":
            raise InputError(self._public(error) if state == "failed" and error else self._reason(folder, code))
        if process is None:  # it ended while there was no server
            context.progress(*(_status(folder)[key] for key in ("done", "total")))
        asked = context.request
        name = asked["data"] if asked["data"] is not None else f"{asked['uploads']} uploaded photos"
        evaluation = self._record(folder, name, asked["weights"])
        shutil.rmtree(self.jobs / context.id, ignore_errors=True)  # the uploads, which nothing needs any more
        return {"url": f"/api/metrics/evaluations/{evaluation.id}", **evaluation.report}

    def _start(self, context: Context, folder: Path) -> psutil.Process:
        asked = context.request
        try:
            files = [weights.find(id, self.output_dir).absolute() for id in asked["weights"]]
            if asked["data"] is None:
                photos = [f"datamodule.test_dir={quoted(str(self.jobs / context.id))}", "datamodule.cache_dir=null"]
            else:
                photos = [f"datamodule.test_dir={quoted(str(find_folder(asked['data'], self.roots)))}"]
        except Problem as problem:  # it was there when the job was made
            raise InputError(str(problem.message)) from problem
        command = [
            *(sys.executable, "-m", "colorization.eval", "datamodule=folder", *photos, "datamodule.data_dir=null"),
            *forms.overrides(forms.EVALUATION, asked),
            f"weights=[{','.join(quoted(str(f)) for f in files)}]",
            f"strips={STRIPS}",
            f"paths.output_dir={quoted(str(self.output_dir))}",
            _argument(folder),
        ]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status.json").unlink(missing_ok=True)
        with (folder / "process.log").open("wb") as out:
            process = psutil.Popen(command, stdout=out, stderr=out, start_new_session=True)
        context.set_process(process.pid, process.create_time())
        return process

    def _watch(self, context: Context, folder: Path, process: psutil.Process) -> int | None:
        """Tell the progress until the process has ended; its exit code if it is this server's."""
        told = None
        while True:
            ended, code = _wait(process, 0.3)
            status = _status(folder)
            so_far = status.get("done", 0), status.get("total", 0)
            if so_far != told and so_far[1]:
                context.progress(*so_far)
                told = so_far
            if ended:
                return code
            try:
                context.check()
            except Cancelled:
                if context.cancelled:  # else the server closes, and the process goes on
                    _end(process)
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    def _reason(self, folder: Path, code: int | None) -> str:
        """Why a process ended that did not say so in its ``status.json``."""
        if code is not None and code < 0:
            return f"the evaluation was killed by {signal.Signals(-code).name}"
        lines = (folder / "process.log").read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return self._public(said[-1]) if said else f"the evaluation's process ended with exit code {code}"

    def _public(self, text: Any) -> Any:
        return without_paths(text, self.output_dir, *self.roots)

    def _record(self, folder: Path, name: str, ids: Sequence[str]) -> Evaluation:
        """Put a finished evaluation into the table."""
        report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        known = {r["weights"]: weights.id_of(r["weights"], self.output_dir) for r in report["rows"] if "weights" in r}
        for row in report["rows"]:
            for key in ("weights", "training_data"):  # of the mean colour's row: where the mean is from
                if isinstance(row.get(key), str):
                    row[key] = known.get(row[key], row[key])
        report = self._public(report)
        evaluation = Evaluation(
            id=folder.name,
            created=report["protocol"]["time"],
            data=name,
            weights=list(ids) or list(known.values()),
            folder=folder.relative_to(self.output_dir).as_posix(),
            report=report,
        )
        with self._recording, self.database() as session:  # a scan may find what a job has just finished
            return session.merge(evaluation)

    def scan(self) -> None:
        """Take up the evaluations of the command line."""
        if not self.folder.is_dir():
            return
        with self.database() as session:
            known = set(session.scalars(select(Evaluation.id)))
        for folder in sorted(p.parent for p in self.folder.glob("*/metrics.json")):
            if folder.name in known or _state(folder) not in (None, "finished"):
                continue
            try:
                content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
                self._record(folder, content["protocol"]["data"], [])
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("evaluation %s is left out: %s", folder.name, error)

    def page(self, page: int, per_page: int) -> tuple[list[Evaluation], int]:
        """A page of them, newest first, and how many there are."""
        self.scan()
        query = select(Evaluation).order_by(Evaluation.created.desc(), Evaluation.id)
        with self.database() as session:
            total = session.scalar(select(func.count()).select_from(Evaluation)) or 0
            return list(session.scalars(query.offset((page - 1) * per_page).limit(per_page))), total

    def get(self, id: str) -> Evaluation | None:
        """One of them."""
        with self.database() as session:
            return session.get(Evaluation, id)

    def remove(self, evaluation: Evaluation) -> None:
        """Forget it, with its files."""
        shutil.rmtree(self.output_dir / evaluation.folder, ignore_errors=True)
        with self.database() as session:
            session.delete(evaluation)

    def files(self, evaluation: Evaluation) -> dict[str, Path]:
        """Name -> file, of those that a client may have: :data:`FILES` and the strips."""
        folder = self.output_dir / evaluation.folder
        found = {name: folder / name for name in FILES if (folder / name).is_file()}
        return found | {f.name: f for f in sorted((folder / "strips").glob("*.png"))}

    def content(self, evaluation: Evaluation, name: str) -> bytes | None:
        """One of :meth:`files`, as a client may have it: without paths of the server."""
        if (file := self.files(evaluation).get(name)) is None:
            return None
        if name == "metrics.json":
            return (json.dumps(evaluation.report, indent=1) + "\n").encode()
        if name == "table.md":
            return self._public(file.read_text(encoding="utf-8")).encode()
        return file.read_bytes()

    def images(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """The figures of each photo and row, as in ``per_image.csv``; ``strip`` is one of :meth:`files` or ``None``."""
        file = self.output_dir / evaluation.folder / "per_image.csv"
        return _images(file, file.stat().st_mtime_ns) if file.is_file() else []


@functools.lru_cache(8)
def _images(file: Path, mtime_ns: int) -> list[dict[str, Any]]:
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    named = ("photo", "model", "strip")
    return [
        {"photo": row["photo"], "model": row["model"], "strip": row.get("strip") or None}
        | {k: float(v) for k, v in row.items() if v and k not in named}
        for row in rows
    ]


def _argument(folder: Path) -> str:
    return f"eval_dir={quoted(str(folder))}"


def _wait(process: psutil.Process, seconds: float) -> tuple[bool, int | None]:
    """Whether it ends within that time, and its exit code if it is a child of this process."""
    try:
        return True, process.wait(seconds)
    except psutil.TimeoutExpired:
        pass
    if isinstance(process, psutil.Popen):  # a killed one is a zombie before its last thread has ended and it has a code
        return False, None
    try:
        return process.status() == psutil.STATUS_ZOMBIE, None  # of an earlier server, and nobody asks for it
    except psutil.NoSuchProcess:
        return True, None


def _end(process: psutil.Process) -> None:
    """SIGTERM, then SIGKILL for it and its children if it does not end."""
    started = process.create_time()
    processes.terminate(process.pid, started)
    if not _wait(process, PATIENCE)[0]:
        processes.kill(process.pid, started)
        _wait(process, PATIENCE)


def _status(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _state(folder: Path) -> str | None:
    return _status(folder).get("state")
