"""The server's tables, in SQLAlchemy: SQLite with WAL by default, PostgreSQL and others by their URL.

Files are the truth of runs and results; these tables make them quick to list, and hold what no file does (queue, jobs).
Times are ISO 8601 in UTC (:func:`colorization.core.runs.utc_now`), ids made by the server.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, BigInteger, ColumnElement, Engine, ForeignKey, create_engine, event, or_
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from colorization.core.errors import InputError

JOB_STATES = ("queued", "running", "paused", "finished", "failed", "cancelled")


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


class Run(Base):
    """A training run: the index of a run folder, and its place in the queue.

    Attributes:
        id: of the run folder.
        origin: ``api`` or ``command line``.
        state: one of ``colorization.core.runs.STATES``.
        status: content of ``status.json``.
        seen: stamp of the ``status.json`` that was read last.
        resumable: whether it has a checkpoint.
        command: overrides of a run that this server starts.
        queued_ns: when it was put into the queue, which gives the order.
        pid, process_started: of the process, with its start in seconds since 1970 (pids are used again); null once
            it is gone.
        job: instead of them, if a cluster runs it: its kind (``ray``, ``slurm``), a colon, and the job's name there.
        stop_asked, stop_force: when its process was asked to end (seconds since 1970), and whether to kill it then.
        removed: deleted from the history, its files kept.
    """

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    origin: Mapped[str]
    model: Mapped[str] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(index=True)
    created: Mapped[str] = mapped_column(index=True)
    status: Mapped[dict[str, Any]]
    seen: Mapped[int] = mapped_column(BigInteger, default=0)
    resumable: Mapped[bool] = mapped_column(default=False)
    command: Mapped[list[Any] | None]
    queued_ns: Mapped[int | None] = mapped_column(BigInteger)
    pid: Mapped[int | None]
    process_started: Mapped[float | None]
    job: Mapped[str | None]
    stop_asked: Mapped[float | None]
    stop_force: Mapped[bool] = mapped_column(default=False)
    removed: Mapped[bool] = mapped_column(default=False)

    @hybrid_property
    def has_process(self) -> bool:
        """Whether it has been started, and its end has not been noticed yet."""
        return self.pid is not None or self.job is not None

    @has_process.inplace.expression
    @classmethod
    def _has_process(cls) -> ColumnElement[bool]:
        return or_(cls.pid.is_not(None), cls.job.is_not(None))


class Job(Base):
    """Work that continues after its request was answered: a batch, an evaluation, a comparison.

    Attributes:
        state: one of :data:`JOB_STATES`.
        request: as sent; ``result``: if finished; ``error``: why it failed, one sentence.
        done, total: progress.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(index=True)
    created: Mapped[str] = mapped_column(index=True)
    started: Mapped[str | None]
    ended: Mapped[str | None]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    request: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    pid: Mapped[int | None]
    process_started: Mapped[float | None]


class JobItem(Base):
    """One file of a job.

    Attributes:
        number: from 0, in the order of the request.
        name: as the client called it, for display only; ``upload``: as it lies in the job's folder.
        state: waiting, done or failed (with its ``error``).
        facts: for the client (result urls, size, seconds, ...).
    """

    __tablename__ = "job_items"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    upload: Mapped[str]
    state: Mapped[str]
    error: Mapped[str | None]
    facts: Mapped[dict[str, Any] | None]


class JobEvent(Base):
    """An event of a job's stream; the id is the event's."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class Result(Base):
    """A file that a client may fetch, by its id, until it expires.

    Attributes:
        name: for the download; ``file``: in the folder of results.
        kind: ``result``, or a picture beside one: ``uncertainty``, ``truth``.
        given: ``hints`` and ``palette`` as they were applied; null for pictures beside a result, and for results of
            earlier versions.
    """

    __tablename__ = "results"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    created: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    name: Mapped[str]
    file: Mapped[str]
    media_type: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    given: Mapped[dict[str, Any] | None]


class Evaluation(Base):
    """A finished evaluation: the content of its ``metrics.json`` and where its folder lies below ``output_dir``."""

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[str] = mapped_column(index=True)
    data: Mapped[str]
    weights: Mapped[list[Any]]
    folder: Mapped[str]
    report: Mapped[dict[str, Any]]


class Database:
    """The tables behind a URL, brought up to date; ``with database() as session:`` is one transaction.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            if (parsed := make_url(url)).get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine: Engine = create_engine(url)
            if parsed.get_backend_name() == "sqlite":
                event.listen(self.engine, "connect", _prepare_sqlite)
            migrate(self.engine)
        except (SQLAlchemyError, ImportError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"database={make_url(url).render_as_string()}: cannot be opened ({reason})") from error
        self._session = sessionmaker(self.engine, expire_on_commit=False)

    def __call__(self) -> Any:
        """A context whose value is a session; committed at its end, undone by an exception."""
        return self._session.begin()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: Engine) -> None:
    """Bring the tables up to date, see ``migrations/``; a database of a newer version is refused."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(resources.files("colorization.api.storage") / "migrations"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise InputError(f"database: made by another version of this program ({error})") from error
