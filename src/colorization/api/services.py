"""The services that routes share: one object of each for each app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from filelock import FileLock, Timeout
from flask import current_app

from colorization.api.colorizing.colorize import Colorize
from colorization.api.colorizing.colorizers import Colorizers
from colorization.api.http.sse import Streams
from colorization.api.measuring.comparison import Comparisons
from colorization.api.measuring.evaluation import Evaluations
from colorization.api.settings import Settings
from colorization.api.storage import uploads
from colorization.api.storage.database import Database
from colorization.api.storage.jobs import Function, Jobs
from colorization.api.storage.results import Results
from colorization.api.telemetry import Telemetry
from colorization.api.training.trainings import Trainings
from colorization.core.errors import InputError

_KEY = "colorization"


@dataclass
class Services:
    """The services of an app; get them in a request with :func:`services`."""

    settings: Settings
    lock: FileLock
    database: Database
    streams: Streams
    jobs: Jobs
    results: Results
    colorizers: Colorizers
    colorize: Colorize
    trainings: Trainings
    evaluations: Evaluations
    comparisons: Comparisons
    telemetry: Telemetry

    def close(self) -> None:
        """End the threads; training processes continue, unfinished jobs resume with the next start."""
        self.streams.closing.set()
        self.jobs.close()
        self.trainings.close()
        self.database.close()
        self.lock.release()


def build(settings: Settings) -> Services:
    """All services; unfinished work of an earlier server is resumed.

    Raises:
        InputError: another server has this ``output_dir``, or the database cannot be opened.
    """
    lock = _hold(settings)
    database = Database(settings.database_url)
    streams = Streams(settings.streams)
    functions: dict[str, Function] = {}
    jobs = Jobs(database, functions)
    results = Results(settings, database)
    colorizers = Colorizers(settings)
    colorize = Colorize(settings, database, jobs, colorizers, results)
    trainings = Trainings(settings, database)
    evaluations = Evaluations(settings, database)
    comparisons = Comparisons(colorize)
    functions |= {"batch": colorize.batch, "evaluate": evaluations.run, "compare": comparisons.run}
    telemetry = Telemetry(database, streams, colorizers)

    uploads.sweep(settings, database)
    results.recover()
    jobs.recover()
    trainings.start()
    return Services(
        settings=settings,
        lock=lock,
        database=database,
        streams=streams,
        jobs=jobs,
        results=results,
        colorizers=colorizers,
        colorize=colorize,
        trainings=trainings,
        evaluations=evaluations,
        comparisons=comparisons,
        telemetry=telemetry,
    )


def _hold(settings: Settings) -> FileLock:
    """The lock of ``output_dir``, in which one server runs at a time. Raises ``InputError``."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.state_dir / "lock")
    try:
        lock.acquire(timeout=10)  # the processes of a killed server take a moment to go
    except Timeout as error:
        raise InputError(
            f"output_dir={settings.output_dir}: another server runs there; stop it, or choose another"
        ) from error
    return lock


def services() -> Services:
    """Those of the app that handles the request."""
    return cast(Services, current_app.extensions[_KEY])
