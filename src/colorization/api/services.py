"""What the routes share: one object of each service for each app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from filelock import FileLock, Timeout
from flask import current_app

from colorization.api import uploads
from colorization.api.colorize import Colorize
from colorization.api.colorizers import Colorizers
from colorization.api.comparison import Comparisons
from colorization.api.database import Database
from colorization.api.evaluation import Evaluations
from colorization.api.jobs import Function, Jobs
from colorization.api.results import Results
from colorization.api.settings import Settings
from colorization.api.sse import Streams
from colorization.api.telemetry import Telemetry
from colorization.api.training import Trainings
from colorization.errors import InputError

_KEY = "colorization"


@dataclass
class Services:
    """The services of an app; get them in a request with :func:`services`."""

    settings: Settings
    database: Database
    streams: Streams
    jobs: Jobs
    colorizers: Colorizers
    results: Results
    colorize: Colorize
    trainings: Trainings
    evaluations: Evaluations
    comparisons: Comparisons
    telemetry: Telemetry
    lock: FileLock

    def close(self) -> None:
        """End the threads; training processes go on, unfinished jobs with the next start."""
        self.streams.closing.set()
        self.jobs.close()
        self.trainings.close()
        self.database.close()
        self.lock.release()


def build(settings: Settings) -> Services:
    """All services, with what an earlier server left unfinished taken up.

    Raises:
        InputError: another server has this ``output_dir``, or the database cannot be opened.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.state_dir / "lock")
    try:
        lock.acquire(timeout=10)  # the processes of a killed server take a moment to go
    except Timeout as error:
        raise InputError(
            f"output_dir={settings.output_dir}: another server runs there; stop it, or choose another"
        ) from error
    database = Database(settings.database_url)
    functions: dict[str, Function] = {}
    jobs, results, colorizers = Jobs(database, functions), Results(settings, database), Colorizers(settings)
    colorize = Colorize(settings, database, jobs, colorizers, results)
    evaluations = Evaluations(settings, database)
    comparisons = Comparisons(colorize)
    functions |= {"batch": colorize.batch, "evaluate": evaluations.run, "compare": comparisons.run}
    trainings, streams = Trainings(settings, database), Streams(settings.streams)
    telemetry = Telemetry(database, streams, colorizers)
    measuring = (evaluations, comparisons, telemetry)
    services = Services(settings, database, streams, jobs, colorizers, results, colorize, trainings, *measuring, lock)
    uploads.sweep(settings, database)
    results.recover()
    services.jobs.recover()
    services.trainings.start()
    return services


def services() -> Services:
    """Those of the app that handles the request."""
    return cast(Services, current_app.extensions[_KEY])
