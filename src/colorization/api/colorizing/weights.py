"""Weights by id, which clients may name. An id is never a path.

An id is a run's (its weights, while it trains its best so far), ``<run>.best`` or ``<run>.last`` for its checkpoints,
``file-<name>`` of a ``<name>.safetensors`` in the output folder (where ensembles are written), or ``shipped-<name>`` of
those that come with the package. A stage's name (``unet``, ``ensemble``) means the newest finished run or file of it,
else what ships of it.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colorization.api.http.problems import invalid
from colorization.core import atomic, runs
from colorization.core.errors import InputError
from colorization.models import descriptions
from colorization.models.weights import shipped_weights

log = logging.getLogger(__name__)

FILE = "file-"
CHECKPOINTS = {"best": "best.ckpt", "last": "last.ckpt"}
ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        id: see the module.
        model: its stage.
        run: id of the run that it is of, if any; ``state``: of that run.
        kind: ``weights``, ``best`` or ``last`` of a run, ``file`` or ``shipped``.
        created: ISO 8601; of a run's the time of its file.
        description: its own; ``{}`` for a checkpoint, which would have to be read completely.
        since: the sort key: when its run began, else ``created``.
    """

    id: str
    model: str
    run: str | None
    state: str | None
    kind: str
    path: Path
    created: str
    bytes: int
    description: dict[str, Any]
    since: str


def find(id: str, output_dir: Path, field: str = "weights") -> Path:
    """The file of an id.

    Raises:
        Problem: 422, there is none.
    """
    if (shipped := shipped_weights().get(id)) is not None:
        return shipped
    if id.startswith(FILE) and (file := _child(Path(output_dir), f"{id.removeprefix(FILE)}.safetensors")).is_file():
        return file
    if (path := _file_of_run(id, Path(output_dir) / "runs")) is not None:
        return path
    if (newest := newest_of_stages(output_dir).get(id)) is not None:
        return newest.path
    raise invalid(field, f"there are no weights {id!r}; GET /api/checkpoints lists them")


def _child(folder: Path, name: str) -> Path:
    """The file of that name in a folder, which it cannot leave; the folder itself for any other name."""
    plain = name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name) and len(os.fsencode(name)) <= 255
    return folder / name if plain else folder


def _file_of_run(id: str, folder: Path) -> Path | None:
    run = runs.Run(_child(folder, id))
    if run.path != folder and run.path.is_dir():
        return next((f for f in (run.weights_file, run.best_checkpoint, run.last_checkpoint) if f.is_file()), None)
    name, _, kind = id.rpartition(".")
    run = runs.Run(_child(folder, name))
    if kind in CHECKPOINTS and run.path != folder:
        file = run.path / "checkpoints" / CHECKPOINTS[kind]
        return file if file.is_file() else None
    return None


def listing(output_dir: Path) -> list[Weights]:
    """All weights, newest first, the shipped ones last. Files without a description are left out."""
    output_dir = Path(output_dir)
    found = [w for f in sorted(output_dir.glob("*.safetensors")) for w in _whole(FILE + f.stem, "file", f)]
    for entry in _folders(output_dir / "runs"):
        found += _of_run(Path(entry.path))
    found.sort(key=lambda w: (w.since, w.id), reverse=True)
    return found + [w for id, f in shipped_weights().items() for w in _whole(id, "shipped", f)]


def _folders(folder: Path) -> Iterator[os.DirEntry[str]]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (e for e in entries if e.is_dir())


def newest_of_stages(output_dir: Path) -> dict[str, Weights]:
    """Stage -> its newest weights: of a finished run or a file, else the shipped ones."""
    newest: dict[str, Weights] = {}
    for weights in listing(output_dir):
        if weights.kind in ("file", "shipped") or (weights.kind == "weights" and weights.state == "finished"):
            newest.setdefault(weights.model, weights)
    return newest


def defaults(output_dir: Path) -> list[str]:
    """Ids of the weights that are evaluated where none are named, as by
    :func:`colorization.evaluation.rows.find_weights`: the newest finished run of each model, and those that ship."""
    newest: dict[str, str] = {}
    shipped = []
    for weights in listing(output_dir):
        if weights.kind == "weights" and weights.state == "finished":
            newest.setdefault(weights.model, weights.id)
        elif weights.kind == "shipped":
            shipped.append(weights.id)
    return [*newest.values(), *shipped]


def id_of(path: str | Path, output_dir: Path) -> str:
    """The id of a file (``find`` the other way); the bare name of one that has none."""
    path = Path(path)
    for id, file in shipped_weights().items():
        if path.exists() and path.samefile(file):
            return id
    if path.suffix == ".ckpt":
        return f"{path.parent.parent.name}.{path.stem}"
    if path.parent.resolve() == Path(output_dir).resolve():
        return FILE + path.stem
    return path.parent.name if path.name == "weights.safetensors" else path.name


def _whole(id: str, kind: str, path: Path) -> list[Weights]:
    """The entry of a file that stands by itself; none where it is not ours."""
    try:
        stat = path.stat()
        description = _description(path, stat.st_mtime_ns, stat.st_size)
    except (InputError, OSError) as error:
        log.warning("%s is left out: %s", path.name, error)
        return []
    created = str(description.get("created", _iso(stat.st_mtime)))
    return [Weights(id, description["stage"], None, None, kind, path, created, stat.st_size, description, created)]


def _of_run(folder: Path) -> list[Weights]:
    run = runs.Run(folder)
    files = {"weights": run.weights_file, **{k: folder / "checkpoints" / name for k, name in CHECKPOINTS.items()}}
    try:
        status = _status(run.status_file, run.status_file.stat().st_mtime_ns)
    except (OSError, ValueError):
        return []  # not a run's folder
    found = []
    for kind, path in files.items():
        try:
            stat = path.stat()
            description = _description(path, stat.st_mtime_ns, stat.st_size) if kind == "weights" else {}
        except FileNotFoundError:
            continue
        except (InputError, OSError) as error:
            log.warning("%s of %s is left out: %s", path.name, run.id, error)
            continue
        id = run.id if kind == "weights" else f"{run.id}.{kind}"
        created = _iso(stat.st_mtime)
        since = str(status.get("started", created))
        facts = (kind, path, created, stat.st_size, description, since)
        found.append(Weights(id, str(status.get("model")), run.id, status.get("state"), *facts))
    return found


@functools.lru_cache(20_000)
def _status(path: Path, mtime_ns: int) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@functools.lru_cache(20_000)
def _description(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    return descriptions.read(path)


@functools.lru_cache(1000)
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    return atomic.sha256(path)


def sha256(weights: Weights) -> str:
    """Of the file's content, hexadecimal; computed once."""
    stat = weights.path.stat()
    return _digest(weights.path, stat.st_mtime_ns, stat.st_size)


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")
