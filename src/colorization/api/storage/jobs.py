"""Jobs: work that continues after its request was answered, with progress and cancelling; it survives a crash.

A kind of job is a function ``(Context) -> result``. It runs in a thread; finished files are in the database
(:class:`.database.JobItem`): after a crash it is called again and continues with the rest.
"""

from __future__ import annotations

import datetime
import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import delete, func, select, update

from colorization.api.http.sse import Event
from colorization.api.storage.database import Database, Job, JobEvent, JobItem
from colorization.core.errors import InputError
from colorization.core.runs import utc_now

log = logging.getLogger(__name__)

UNFINISHED = ("queued", "running")
ENDED = ("finished", "failed", "cancelled")


class Cancelled(Exception):
    """The job was cancelled or paused, or the server is closing (it then resumes with the next start)."""


class Stop(threading.Event):
    """Set when a running job is to end; ``state`` is then the one that it ends in (queued: it was resumed since)."""

    state = "cancelled"


class Context:
    """A job as its function sees it."""

    def __init__(self, database: Database, job: Job, stop: Stop, closing: threading.Event) -> None:
        self.database, self.id, self.request = database, job.id, job.request
        self._stop, self._closing = stop, closing
        self._telling = threading.Lock()  # events become visible in the order of their ids

    @property
    def cancelled(self) -> bool:
        """Whether the job itself is to end, not only the server."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if the job is to end. To be called between pieces of work."""
        if self._stop.is_set() or self._closing.is_set():
            raise Cancelled

    def items(self, state: str = "waiting") -> list[JobItem]:
        """Its files in that state, in order."""
        with self.database() as session:
            where = (JobItem.job_id == self.id, JobItem.state == state)
            return list(session.scalars(select(JobItem).where(*where).order_by(JobItem.number)))

    def finish_item(self, number: int, facts: dict[str, Any] | None = None, error: str | None = None) -> None:
        """Record the end of one file, count it, and add an event; exactly once, even after a crash."""
        state = "failed" if error else "done"
        with self._telling, self.database() as session:
            item = session.get(JobItem, (self.id, number))
            item.state, item.error, item.facts = state, error, facts
            session.execute(update(Job).where(Job.id == self.id).values(done=Job.done + 1))
            session.add(JobEvent(job_id=self.id, type="item", data=item_event(item)))

    def progress(self, done: int, total: int, **more: Any) -> None:
        """Record and tell how far it is."""
        with self._telling, self.database() as session:
            session.execute(update(Job).where(Job.id == self.id).values(done=done, total=total))
            session.add(JobEvent(job_id=self.id, type="progress", data={"done": done, "total": total, **more}))

    def set_process(self, pid: int | None, started: float | None) -> None:
        """Remember the process that does the work, which may outlive this server."""
        with self.database() as session:
            session.execute(update(Job).where(Job.id == self.id).values(pid=pid, process_started=started))


def item_event(item: JobItem) -> dict[str, Any]:
    """A file of a job, as clients see it."""
    return {**{k: getattr(item, k) for k in ("number", "name", "state", "error")}, "result": item.facts}


Function = Callable[[Context], dict[str, Any] | None]


class Jobs:
    """Runs jobs, a few at a time, and remembers all.

    Args:
        database: where.
        functions: kind -> its function; filled before the first job.
        workers: jobs of a kind at a time; no kind waits for another.
    """

    def __init__(self, database: Database, functions: dict[str, Function], workers: int = 2) -> None:
        self.database, self.functions = database, functions
        self._pools: defaultdict[str, ThreadPoolExecutor] = defaultdict(lambda: ThreadPoolExecutor(workers, "job"))
        self._running: dict[str, Stop] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Resume the unfinished jobs of an earlier server. Called once, at the start."""
        with self.database() as session:
            session.execute(update(Job).where(Job.state == "running").values(state="queued"))
            left = session.scalars(select(Job).where(Job.state == "queued").order_by(Job.created, Job.id)).all()
        for job in left:
            self._pools[job.kind].submit(self._run, job)

    def submit(
        self,
        kind: str,
        request: dict[str, Any],
        items: Sequence[tuple[str, str]] = (),
        id: str | None = None,
        refused: Mapping[int, str] | None = None,
    ) -> Job:
        """A new job.

        Args:
            kind: of :attr:`functions`.
            request: plain JSON that the function gets.
            items: (name, upload) of each file, see :class:`.database.JobItem`.
            id: its id, if files were stored under it already; see :func:`new_id`.
            refused: number -> reason, of items that have failed already; their upload is empty.
        """
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")  # tells their order
        job = Job(id=id or new_id(), kind=kind, state="queued", created=created, request=request)
        refused = refused or {}
        job.done, job.total = len(refused), len(items)
        with self.database() as session:
            session.add(job)
            session.flush()
            for number, (name, upload) in enumerate(items):
                item = JobItem(job_id=job.id, number=number, name=name, upload=upload, error=refused.get(number))
                item.state = "failed" if item.error else "waiting"
                session.add(item)
                if item.error:
                    session.add(JobEvent(job_id=job.id, type="item", data=item_event(item)))
            session.add(JobEvent(job_id=job.id, type="state", data={"state": "queued"}))
        self._pools[job.kind].submit(self._run, job)
        return job

    def _run(self, job: Job) -> None:
        if self._closing.is_set():
            return
        with self._lock:
            if not self._change(job.id, ("queued",), "running", started=job.started or utc_now()):
                return  # cancelled, paused, or in another thread's hands
            stop = self._running[job.id] = Stop()
        context = Context(self.database, job, stop, self._closing)
        try:
            result = self.functions[job.kind](context)
            self._change(job.id, ("running",), "finished", result=result, ended=utc_now())
        except Cancelled:
            with self._lock:  # a wish that comes now finds it at rest
                del self._running[job.id]
                if stop.is_set():
                    ended = utc_now() if stop.state == "cancelled" else None
                    self._change(job.id, ("running",), stop.state, ended=ended)
            if stop.is_set() and stop.state == "queued":
                self._pools[job.kind].submit(self._run, job)
        except InputError as error:
            self._change(job.id, ("running",), "failed", error=str(error), ended=utc_now())
        except Exception:
            log.exception("job %s (%s)", job.id, job.kind)
            reason = "something went wrong in the server; its log has it"
            self._change(job.id, ("running",), "failed", error=reason, ended=utc_now())
        finally:
            with self._lock:
                if self._running.get(job.id) is stop:
                    del self._running[job.id]

    def _change(self, id: str, states: Sequence[str], state: str, **values: Any) -> bool:
        """To another state, and tell the stream; False, and nothing changed, if it is in none of ``states``."""
        with self.database() as session:
            where = (Job.id == id, Job.state.in_(states))
            if not session.execute(update(Job).where(*where).values(state=state, **values)).rowcount:
                return False
            told = {k: v for k, v in values.items() if k in ("result", "error")}
            session.add(JobEvent(job_id=id, type="state", data={"state": state, **told}))
            return True

    def get(self, id: str) -> Job | None:
        """A job by its id."""
        with self.database() as session:
            return session.get(Job, id)

    def cancel(self, id: str) -> bool:
        """End a job, a running one as soon as its function looks; False if it has ended."""
        return self._stop(id, "cancelled")

    def pause(self, id: str) -> bool:
        """Like :meth:`cancel`, but it can be resumed; only if the function, called again, does the rest."""
        return self._stop(id, "paused")

    def _stop(self, id: str, state: str) -> bool:
        ended = utc_now() if state == "cancelled" else None
        with self._lock:
            if (stop := self._running.get(id)) is not None:
                if stop.is_set() and stop.state == "cancelled":
                    return state == "cancelled"
                stop.state = state
                stop.set()
                return True
            return self._change(id, ("queued", "paused"), state, ended=ended)

    def resume(self, id: str) -> bool:
        """Go on with a paused job, also one that has not yet come to rest; False if it is not paused."""
        with self._lock:
            if (stop := self._running.get(id)) is not None and stop.is_set() and stop.state == "paused":
                stop.state = "queued"
                return True
        return self._queue(id, ("paused",))

    def retry(self, id: str) -> bool:
        """Have an ended job retry its failed and unfinished files; False if there are none."""
        with self.database() as session:
            if (job := session.get(Job, id)) is None or job.state not in ENDED:
                return False
            undone = (JobItem.job_id == id, JobItem.state != "done", JobItem.upload != "")
            session.execute(update(JobItem).where(*undone).values(state="waiting", error=None))
            left = session.scalar(select(func.count()).select_from(JobItem).where(*undone))
            session.execute(update(Job).where(Job.id == id).values(done=Job.total - left))
        return bool(left) and self._queue(id, ENDED)

    def _queue(self, id: str, states: Sequence[str]) -> bool:
        changed = self._change(id, states, "queued", ended=None, error=None, result=None)
        if changed and (job := self.get(id)) is not None:
            self._pools[job.kind].submit(self._run, job)
        return changed

    def delete(self, id: str) -> None:
        """Forget an ended job with its items and events."""
        with self.database() as session:
            session.execute(delete(Job).where(Job.id == id, Job.state.in_(ENDED)))

    def page(self, page: int, per_page: int, **values: str) -> tuple[list[Job], int]:
        """The jobs that have these values (``kind``, ``state``), the newest first, a page; and how many they are."""
        with self.database() as session:
            chosen = select(Job).filter_by(**values)
            total = session.scalar(select(func.count()).select_from(chosen.subquery()))
            ordered = chosen.order_by(Job.created.desc(), Job.id).limit(per_page).offset((page - 1) * per_page)
            return list(session.scalars(ordered)), total

    def items(self, id: str, page: int, per_page: int) -> tuple[list[JobItem], int]:
        """The files of a job in order, a page; and how many they are."""
        with self.database() as session:
            chosen = select(JobItem).where(JobItem.job_id == id)
            total = session.scalar(select(func.count()).select_from(chosen.subquery()))
            ordered = chosen.order_by(JobItem.number).limit(per_page).offset((page - 1) * per_page)
            return list(session.scalars(ordered)), total

    def waiting(self) -> int:
        """How many have not ended."""
        with self.database() as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(UNFINISHED))) or 0

    def events(self, id: str, last: str | None) -> Iterator[Event]:
        """The events of a job after ``last``, for :class:`colorization.api.http.sse.Streams`."""
        after = int(last) if last and last.isdecimal() and len(last) < 19 else 0
        with self.database() as session:
            where = (JobEvent.job_id == id, JobEvent.id > after)
            found = session.scalars(select(JobEvent).where(*where).order_by(JobEvent.id)).all()
            deleted = not found and session.get(Job, id) is None
        for event in found:  # a job that was tried again has ended before
            ended = event is found[-1] and event.type == "state" and event.data["state"] in ENDED
            yield Event(str(event.id), event.type, event.data, ended)
        if deleted:
            yield Event(str(after), "state", {"state": "deleted"}, True)

    def close(self) -> None:
        """Stop; unfinished jobs resume with the next start."""
        self._closing.set()
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)


def new_id() -> str:
    """An id that nobody guesses: 128 random bits, hexadecimal."""
    return secrets.token_hex(16)
