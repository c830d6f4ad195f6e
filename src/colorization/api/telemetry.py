"""Figures for Prometheus: requests as they are answered, and the state of the server when it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select

from colorization.api.colorizing.colorizers import Colorizers
from colorization.api.http.sse import Streams
from colorization.api.storage.database import Database, Job, Run
from colorization.core.runs import utc_now

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Telemetry:
    """The figures of one app."""

    def __init__(self, database: Database, streams: Streams, colorizers: Colorizers) -> None:
        self._database, self._streams, self._colorizers = database, streams, colorizers
        self.started, self._start = utc_now(), time.monotonic()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)
        self._requests = Counter(
            "colorization_requests", "Requests answered", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "colorization_request_seconds",
            "Seconds until a request was answered (of a stream: until it began)",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def uptime(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._start, 1)

    def counts(self) -> dict[str, dict[str, Any]]:
        """Counts: ``runs`` and ``jobs`` by state, ``streams``, ``photos`` at the models."""
        runs = select(Run.state, func.count()).where(~Run.removed).group_by(Run.state)
        jobs = select(Job.state, func.count()).group_by(Job.state)
        with self._database() as session:
            found = {"runs": dict(session.execute(runs).all()), "jobs": dict(session.execute(jobs).all())}
        turns = self._colorizers.turns
        found["streams"] = {"open": self._streams.open, "limit": self._streams.limit}
        found["photos"] = {"busy": turns.busy, "slots": turns.slots, "waiting": turns.waiting}
        return found

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the registry at each scrape."""
        texts = {"runs": "Training runs", "jobs": "Jobs", "streams": "Event streams", "photos": "Photos at the models"}
        for name, values in self.counts().items():
            family = GaugeMetricFamily(f"colorization_{name}", texts[name], labels=("state",))
            for label, value in values.items():
                family.add_metric((label,), value)
            yield family
        loaded = self._colorizers.loaded_bytes
        yield GaugeMetricFamily("colorization_models_bytes", "Memory of models that are kept, about", value=loaded)

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing is known before the first scrape."""
        return []

    def count(self, request: Request, response: Response, seconds: float) -> None:
        """Count an answered request. Labels stay few, whatever clients send."""
        route = str(request.url_rule) if request.url_rule else "none"
        method = request.method if request.method in METHODS else "other"
        self._requests.labels(method, route, str(response.status_code)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
