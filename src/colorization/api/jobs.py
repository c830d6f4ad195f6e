"""Jobs: work that goes on after its request was answered, with progress, cancelling, and a life beyond a crash.

A kind of job is a function ``(Context) -> result``. It runs in a thread; what it has done lies in the database
(:class:`~colorization.api.database.JobItem`), so that after a crash it is called again and goes on with the rest.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select, update

from colorization.api.database import Database, Job, JobEvent, JobItem
from colorization.api.sse import Event
from colorization.errors import InputError
from colorization.runs import utc_now

log = logging.getLogger(__name__)

UNFINISHED = ("queued", "running")


class Cancelled(Exception):
    """The job was cancelled, or the server is closing (it then goes on with the next start)."""


class Context:
    """A job as its function sees it."""

    def __init__(self, database: Database, job: Job, cancelled: threading.Event, closing: threading.Event) -> None:
        self.database, self.id, self.request = database, job.id, job.request
        self._cancelled, self._closing = cancelled, closing

    def check(self) -> None:
        """Raise :class:`Cancelled` if the job is to end. To be called between pieces of work."""
        if self._cancelled.is_set() or self._closing.is_set():
            raise Cancelled

    def items(self, state: str = "waiting") -> list[JobItem]:
        """Its files in that state, in order."""
        with self.database() as session:
            where = (JobItem.job_id == self.id, JobItem.state == state)
            return list(session.scalars(select(JobItem).where(*where).order_by(JobItem.number)))

    def finish_item(self, number: int, facts: dict[str, Any] | None = None, error: str | None = None) -> None:
        """Record the end of one file, count it, and tell the stream; once, whatever crashes."""
        state = "failed" if error else "done"
        with self.database() as session:
            item = session.get(JobItem, (self.id, number))
            item.state, item.error, item.facts = state, error, facts
            session.execute(update(Job).where(Job.id == self.id).values(done=Job.done + 1))
            data = {"number": number, "name": item.name, "state": state, "error": error, **(facts or {})}
            session.add(JobEvent(job_id=self.id, type="item", data=data))

    def progress(self, done: int, total: int, **more: Any) -> None:
        """Record and tell how far it is."""
        with self.database() as session:
            session.execute(update(Job).where(Job.id == self.id).values(done=done, total=total))
            session.add(JobEvent(job_id=self.id, type="progress", data={"done": done, "total": total, **more}))

    def set_process(self, pid: int | None, started: float | None) -> None:
        """Remember the process that does the work, which may outlive this server."""
        with self.database() as session:
            session.execute(update(Job).where(Job.id == self.id).values(pid=pid, process_started=started))


Function = Callable[[Context], dict[str, Any] | None]


class Jobs:
    """Runs jobs, a few at a time, and remembers all.

    Args:
        database: where.
        functions: kind -> what does it.
        workers: jobs at a time.
    """

    def __init__(self, database: Database, functions: dict[str, Function], workers: int = 2) -> None:
        self.database, self.functions = database, functions
        self._pool = ThreadPoolExecutor(workers, "job")
        self._cancelled: dict[str, threading.Event] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Go on with what an earlier server left unfinished. Called once, at the start."""
        with self.database() as session:
            left = session.scalars(select(Job).where(Job.state.in_(UNFINISHED)).order_by(Job.created, Job.id)).all()
        for job in left:
            self._start(job)

    def submit(
        self, kind: str, request: dict[str, Any], items: Sequence[tuple[str, str]] = (), id: str | None = None
    ) -> Job:
        """A new job.

        Args:
            kind: of :attr:`functions`.
            request: plain JSON that the function gets.
            items: (name, upload) of each file, see :class:`~colorization.api.database.JobItem`.
            id: its id, where files were stored under it already; see :func:`new_id`.
        """
        job = Job(id=id or new_id(), kind=kind, state="queued", created=utc_now(), request=request)
        job.done, job.total = 0, len(items)
        with self.database() as session:
            session.add(job)
            session.flush()
            for number, (name, upload) in enumerate(items):
                session.add(JobItem(job_id=job.id, number=number, name=name, upload=upload, state="waiting"))
            session.add(JobEvent(job_id=job.id, type="state", data={"state": "queued"}))
        self._start(job)
        return job

    def _start(self, job: Job) -> None:
        with self._lock:
            event = self._cancelled[job.id] = threading.Event()
        self._pool.submit(self._run, job, event)

    def _run(self, job: Job, cancelled: threading.Event) -> None:
        context = Context(self.database, job, cancelled, self._closing)
        try:
            context.check()
            self._end(job.id, "running", started=job.started or utc_now())
            result = self.functions[job.kind](context)
            self._end(job.id, "finished", result=result, ended=utc_now())
        except Cancelled:
            if cancelled.is_set():
                self._end(job.id, "cancelled", ended=utc_now())
        except InputError as error:
            self._end(job.id, "failed", error=str(error), ended=utc_now())
        except Exception:
            log.exception("job %s (%s)", job.id, job.kind)
            self._end(job.id, "failed", error="something went wrong in the server; its log has it", ended=utc_now())
        finally:
            with self._lock:
                self._cancelled.pop(job.id, None)

    def _end(self, id: str, state: str, **values: Any) -> None:
        with self.database() as session:
            session.execute(update(Job).where(Job.id == id).values(state=state, **values))
            told = {k: v for k, v in values.items() if k in ("result", "error")}
            session.add(JobEvent(job_id=id, type="state", data={"state": state, **told}))

    def get(self, id: str) -> Job | None:
        """A job by its id."""
        with self.database() as session:
            return session.get(Job, id)

    def cancel(self, id: str) -> bool:
        """Ask a job to end; False if it has ended."""
        with self._lock:
            event = self._cancelled.get(id)
        if event is None:
            return False
        event.set()
        return True

    def waiting(self) -> int:
        """How many have not ended."""
        with self.database() as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(UNFINISHED))) or 0

    def events(self, id: str, last: str | None) -> Iterator[Event]:
        """The events of a job after ``last``, for :class:`colorization.api.sse.Streams`."""
        after = int(last) if last and last.isdecimal() and len(last) < 19 else 0
        with self.database() as session:
            where = (JobEvent.job_id == id, JobEvent.id > after)
            found = session.scalars(select(JobEvent).where(*where).order_by(JobEvent.id)).all()
        for event in found:
            ended = event.type == "state" and event.data["state"] not in UNFINISHED
            yield Event(str(event.id), event.type, event.data, ended)

    def close(self) -> None:
        """Stop; what is unfinished goes on with the next start."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


def new_id() -> str:
    """An id that nobody guesses: 128 random bits, hexadecimal."""
    return secrets.token_hex(16)
