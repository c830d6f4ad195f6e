"""Results: files that a client may fetch by an id, until they expire.

They go when they are older than ``results_days``; while all together are larger than ``results_mb``, the oldest go
earlier. Those of a job that has not ended, of an archive that is being fetched, and of the last minute stay.
"""

from __future__ import annotations

import datetime
import itertools
import shutil
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select

from colorization.api.settings import MEGA, Settings
from colorization.api.storage.database import Database, Job, Result
from colorization.api.storage.jobs import ENDED, new_id

NEW = datetime.timedelta(minutes=1)
SWEPT = datetime.timedelta(seconds=10)  # between two searches for expired results


class Results:
    """The results of a server.

    Args:
        settings: how long they are kept.
        database: where they are listed; the files lie in ``state_dir/results``.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.database = database
        self.folder = settings.state_dir / "results"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._jobs_folder = settings.state_dir / "jobs"
        self._age = datetime.timedelta(days=settings.results_days)
        self._limit = settings.results_mb * MEGA
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._swept = _now()

    def add(
        self,
        content: Path | bytes,
        name: str,
        media_type: str,
        job_id: str | None = None,
        kind: str = "result",
        given: dict[str, Any] | None = None,
    ) -> Result:
        """A new result.

        Args:
            content: a file, which is moved, or its bytes.
            name: for the download.
            media_type: of the content.
            job_id: whose it is.
            kind, given: see :class:`~colorization.api.storage.database.Result`.
        """
        id = new_id()
        path = self.folder / f"{id}{Path(name).suffix.lower()}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.move(content, path)
        result = Result(id=id, job_id=job_id, created=_now().isoformat(), kind=kind, name=name, given=given)
        result.file = path.name
        result.media_type, result.bytes = media_type, path.stat().st_size
        with self.database() as session:
            session.add(result)
        if _now() - self._swept > SWEPT:
            self.sweep()
        return result

    def get(self, id: str) -> Result | None:
        """A result that has not expired."""
        with self.database() as session:
            result = session.get(Result, id)
        if result is None or self.expires(result) < _now() or not self.path(result).is_file():
            return None
        return result

    def of_job(self, job_id: str) -> list[Result]:
        """A job's, in the order of their making."""
        with self.database() as session:
            return list(session.scalars(select(Result).where(Result.job_id == job_id).order_by(Result.created)))

    def page(self, page: int, per_page: int) -> tuple[list[Result], int]:
        """Colorized photos that have not expired, the newest first, a page; and how many they are."""
        with self.database() as session:
            old = (_now() - self._age).isoformat()
            chosen = select(Result).where(Result.kind == "result", Result.created >= old)
            total = session.scalar(select(func.count()).select_from(chosen.subquery())) or 0
            ordered = chosen.order_by(Result.created.desc(), Result.id).limit(per_page).offset((page - 1) * per_page)
            return list(session.scalars(ordered)), total

    def path(self, result: Result) -> Path:
        """Its file."""
        return self.folder / result.file

    @staticmethod
    def url(result: Result) -> str:
        """Where a client fetches it."""
        return f"/api/colorize/result/{result.id}"

    def expires(self, result: Result) -> datetime.datetime:
        """When it goes at the latest."""
        return datetime.datetime.fromisoformat(result.created) + self._age

    def answer(self, result: Result) -> dict[str, Any]:
        """The facts for clients."""
        return {
            "id": result.id,
            "url": self.url(result),
            "name": result.name,
            "media_type": result.media_type,
            "bytes": result.bytes,
            "expires": self.expires(result).isoformat(timespec="seconds"),
        }

    def remove(self, results: Sequence[Result]) -> None:
        """Remove these, at any age."""
        if not results:
            return
        with self.database() as session:
            session.execute(delete(Result).where(Result.id.in_([r.id for r in results])))
        for result in results:
            self._unlink(self.path(result))

    @contextmanager
    def hold(self, job_id: str) -> Iterator[None]:
        """Keep the results of a job while they are being sent."""
        with self._lock:
            self._held[job_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[job_id] -= 1

    def archive(self, job_id: str) -> Iterator[bytes]:
        """A job's results as a zip, piece by piece: stored, because pictures are compressed already."""
        pieces = _Pieces()
        names: set[str] = set()
        with self.hold(job_id), zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
            for result in self.of_job(job_id):
                path = Path(result.name)
                name = next(n for n in _numbered(path.stem, path.suffix) if n.casefold() not in names)
                names.add(name.casefold())
                made = datetime.datetime.fromisoformat(result.created)
                entry = zipfile.ZipInfo(name, made.timetuple()[:6])
                entry.file_size = result.bytes
                with self.path(result).open("rb") as source, archive.open(entry, "w") as target:
                    while piece := source.read(MEGA):
                        target.write(piece)
                        yield pieces.take()
        yield pieces.take()

    def sweep(self) -> None:
        """Remove expired results."""
        now = self._swept = _now()
        with self._lock, self.database() as session:
            held = [id for id, times in self._held.items() if times]
            working = select(Job.id).where(Job.state.not_in(ENDED))
            free = Result.job_id.is_(None) | (Result.job_id.not_in(held) & Result.job_id.not_in(working))
            old = (now - self._age).isoformat()
            gone = list(session.scalars(select(Result).where(free, Result.created < old)))
            excess = (session.scalar(select(func.sum(Result.bytes))) or 0) - sum(r.bytes for r in gone) - self._limit
            if excess > 0:
                made = (Result.created >= old) & (Result.created < (now - NEW).isoformat())
                for result in session.scalars(select(Result).where(free, made).order_by(Result.created)):
                    if excess <= 0:
                        break
                    gone.append(result)
                    excess -= result.bytes
        self.remove(gone)

    def recover(self) -> None:
        """Remove left-overs of a killed server: files without a row, rows without a file. Called once, at the start."""
        self.sweep()
        with self.database() as session:
            rows = list(session.scalars(select(Result)))
            ended = select(Job.id).where(Job.state.in_(ENDED), Job.ended < (_now() - self._age).isoformat())
            for job_id in session.scalars(ended):  # their uploads expire as results do
                shutil.rmtree(self._jobs_folder / job_id, ignore_errors=True)
        self.remove([r for r in rows if not self.path(r).is_file()])
        known = {r.file for r in rows}
        for path in self.folder.iterdir():
            if path.name not in known:
                self._unlink(path)

    @staticmethod
    def _unlink(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except PermissionError:  # on Windows, while it is being sent: the next start removes it
            return


class _Pieces:
    """The bytes written since the last read; a file that cannot seek."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _numbered(stem: str, suffix: str) -> Iterator[str]:
    yield f"{stem}{suffix}"
    for number in itertools.count(2):
        yield f"{stem}-{number}{suffix}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
