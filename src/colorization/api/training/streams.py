"""The events of a run, read from its files; the id of an event is where in each of them its reader is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from flask import current_app

from colorization.api.http.problems import Problem
from colorization.api.http.redact import without_paths
from colorization.api.http.sse import Event
from colorization.api.storage.database import Run
from colorization.api.training.trainings import UNFINISHED, Trainings

_BLOCK = 1 << 18  # bytes that are read at a time


@dataclass(frozen=True)
class Place:
    """Bytes of ``metrics.jsonl`` and ``train.log``, samples, and the stamp of the status that a client has had; whether
    it has had the end."""

    metrics: int = 0
    log: int = 0
    samples: int = 0
    status: int = 0
    over: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Place:
        """Of an id; the beginning where it is none."""
        match = re.fullmatch(r"(\d{1,18})-(\d{1,18})-(\d{1,9})-(\d{1,19})-([01])", text or "", re.ASCII)
        return cls(*map(int, match.groups())) if match else cls()

    def __str__(self) -> str:
        return "-".join(map(str, astuple(self)))


class RunEvents:
    """A source for :class:`colorization.api.http.sse.Streams`.

    Args:
        trainings: where the run is.
        id: of the run.
        describe: a run as clients see it.
    """

    def __init__(self, trainings: Trainings, id: str, describe: Callable[[Run], dict[str, Any]]) -> None:
        self.trainings, self.id, self.describe = trainings, id, describe
        self._notice: str | None = None  # the last one sent
        self._app = current_app._get_current_object()  # type: ignore[attr-defined]

    def is_over(self, last: str | None) -> bool:
        """Whether a client that has had ``last`` has had all."""
        row, place = self.trainings.get(self.id), Place.parse(last)
        return bool(place.over) and place.status == row.seen and row.state not in UNFINISHED

    def __call__(self, last: str | None) -> Iterator[Event]:
        with self._app.app_context():
            yield from self._events(Place.parse(last))

    def _events(self, place: Place) -> Iterator[Event]:
        try:
            row = self.trainings.get(self.id)
        except Problem:
            yield Event(str(place), "end", {"id": self.id, "state": "deleted"}, last=True)
            return
        # A run that ended before its files are read has all of its events in them.
        ended = row.state not in UNFINISHED and not row.has_process
        notice = self.trainings.notices.get(self.id)
        run = self.trainings.folder(row)
        folder = self.trainings.output_dir
        for end, line in _lines(run.metrics_file, place.metrics):
            place = replace(place, metrics=end)
            try:
                values = json.loads(line)
            except ValueError:  # cut short by a crash
                continue
            values.pop("schema", None)
            yield Event(str(place), "metrics", without_paths(values, folder))
        names = samples(run.path)
        for count, name in enumerate(names[place.samples :], place.samples + 1):
            place = replace(place, samples=count)
            yield Event(str(place), "sample", sample(self.id, name))
        for end, line in _lines(run.path / "train.log", place.log):
            place = replace(place, log=end)
            yield Event(str(place), "log", {"text": without_paths(line, folder)})
        if ended:
            place = replace(place, status=row.seen, over=1)
            yield Event(str(place), "end", self.describe(row), last=True)
        elif row.seen != place.status or notice != self._notice:
            self._notice = notice
            place = replace(place, status=row.seen, over=0)
            yield Event(str(place), "status", self.describe(row))


def samples(folder: Path) -> list[str]:
    """The pictures in a run folder, in order."""
    return sorted(f.name for f in (folder / "samples").glob("epoch_*.png"))


def sample(id: str, name: str) -> dict[str, Any]:
    """A picture of a run as clients see it."""
    epoch = re.search(r"\d+", name)
    return {
        "name": name,
        "epoch": int(epoch[0]) if epoch else None,
        "url": f"/api/history/samples/{id}/{name}",
    }


def _lines(file: Path, offset: int) -> Iterator[tuple[int, str]]:
    """Whole lines of a file from a byte on, each with the byte after it."""
    try:
        content = file.open("rb")
    except FileNotFoundError:
        return
    with content:
        content.seek(offset)
        rest = b""
        while block := content.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                if line.strip():
                    yield offset, line.decode("utf-8", errors="replace").rstrip("\r")
