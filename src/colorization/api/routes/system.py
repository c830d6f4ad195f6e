"""State of the server: health, machine, figures for Prometheus; and the folders of photographs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Dict, Float, Integer, List, Nested, String
from apiflask.validators import Length, Regexp
from flask import Response, g, request, send_file
from prometheus_client import CONTENT_TYPE_LATEST

from colorization import __version__
from colorization.api import machine
from colorization.api.http.problems import Problem
from colorization.api.services import services
from colorization.api.training import data as photographs

blueprint = APIBlueprint("system", __name__, tag="System")


class HealthOut(Schema):
    """The server answers."""

    status = String(required=True, metadata={"example": "ok"})
    version = String(required=True)


class DeviceOut(Schema):
    """What models run on."""

    kind = String(required=True, metadata={"enum": ["cpu", "cuda", "mps"]})
    name = String(required=True)
    memory_bytes = Integer(required=True)


class MemoryOut(Schema):
    """Of the machine and of the server."""

    total_bytes = Integer(required=True)
    available_bytes = Integer(required=True)
    server_bytes = Integer(required=True, metadata={"description": "resident, of this process"})


class DiskOut(Schema):
    """That holds runs and results."""

    total_bytes = Integer(required=True)
    free_bytes = Integer(required=True)


class LimitsOut(Schema):
    """What the server takes."""

    upload_mb = Integer(required=True, metadata={"description": "of one file"})
    pixels_mp = Integer(required=True, metadata={"description": "megapixels of one file"})
    batch_files = Integer(required=True, metadata={"description": "files of one request"})
    batch_mb = Integer(required=True, metadata={"description": "of all files of one request"})


class SystemOut(Schema):
    """The machine and what the server is doing on it."""

    version = String(required=True)
    versions = Dict(required=True, metadata={"description": "of Python and the main packages"})
    started = String(required=True, metadata={"format": "date-time"})
    uptime_seconds = Float(required=True)
    device = Nested(DeviceOut, required=True)
    processor = String(required=True)
    cores = Integer(required=True, metadata={"description": "that the server may use"})
    load_average = List(Float(), required=True, allow_none=True, metadata={"description": "over 1, 5 and 15 minutes"})
    memory = Nested(MemoryOut, required=True)
    disk = Nested(DiskOut, required=True)
    runs = Dict(required=True, metadata={"description": "trainings by state", "example": {"running": 1, "queued": 2}})
    jobs = Dict(required=True, metadata={"description": "jobs by state"})
    streams = Dict(required=True, metadata={"description": "event streams: `open` of `limit`"})
    photos = Dict(
        required=True,
        metadata={"description": "at the models: `busy` of `slots`, `waiting`; `loaded_bytes` of weights are kept"},
    )
    trainings = Integer(required=True, metadata={"description": "how many run at a time"})
    limits = Nested(LimitsOut, required=True)
    data_roots = List(String(), required=True, metadata={"description": "names of the folders that hold photographs"})
    tensorboard_url = String(required=True, allow_none=True)


class FolderOut(Schema):
    """A folder of photographs."""

    path = String(required=True, metadata={"description": "for `data` in other requests", "example": "photos/test"})
    photos = Integer(required=True, metadata={"description": "in it and below"})
    links = Integer(required=True, metadata={"description": "linked folders below, which are not followed"})
    complete = Boolean(required=True, metadata={"description": "false where there are more than were counted"})


class FoldersOut(Schema):
    """The folders in a folder."""

    path = String(required=True)
    folders = List(Nested(FolderOut), required=True)


class FolderQuery(Schema):
    """Where to look."""

    path = String(
        load_default="",
        validate=[Length(max=1000), Regexp(photographs.FOLDER)],
        metadata={"description": "a folder of an earlier answer; default all data roots"},
    )


_FIGURES: dict[int | str, dict[str, str | dict[str, dict[str, Any]]]] = {
    200: {"description": "Figures", "content": {"text/plain": {"schema": {"type": "string"}}}}
}

_SAMPLE: Any = {
    200: {"description": "The photo", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}


@blueprint.before_app_request
def _begin() -> None:
    g.began = time.perf_counter()


@blueprint.after_app_request
def _end(response: Response) -> Response:
    if "began" in g:
        services().telemetry.count(request, response, time.perf_counter() - g.began)
    return response


@blueprint.get("/health")
@blueprint.output(HealthOut)
def health() -> dict[str, Any]:
    """Whether the server answers."""
    return {"status": "ok", "version": __version__}


@blueprint.get("/system")
@blueprint.output(SystemOut)
def system() -> dict[str, Any]:
    """The machine, its load, and what the server is doing."""
    of = services()
    counts = of.telemetry.counts()
    return {
        "version": __version__,
        "versions": machine.versions(),
        "started": of.telemetry.started,
        "uptime_seconds": of.telemetry.uptime(),
        "device": machine.accelerator(),
        **machine.now(Path(of.settings.output_dir)),
        "runs": counts["runs"],
        "jobs": counts["jobs"],
        "streams": counts["streams"],
        "photos": {**counts["photos"], "loaded_bytes": of.colorizers.loaded_bytes},
        "trainings": of.settings.trainings,
        "limits": {k: getattr(of.settings, k) for k in ("upload_mb", "pixels_mp", "batch_files", "batch_mb")},
        "data_roots": [Path(root).resolve().name for root in of.settings.data_roots],
        "tensorboard_url": of.settings.tensorboard_url,
    }


@blueprint.get("/prometheus")
@blueprint.doc(responses=_FIGURES)
def prometheus() -> Response:
    """The server's figures in Prometheus' text format."""
    return Response(services().telemetry.text(), content_type=CONTENT_TYPE_LATEST)


@blueprint.get("/sample")
@blueprint.doc(responses=_SAMPLE)
def sample() -> Response:
    """A colour photo for a first try."""
    return send_file(photographs.sample(), "image/jpeg", download_name="sample.jpg", max_age=3600)


@blueprint.get("/data")
@blueprint.input(FolderQuery, location="query")
@blueprint.output(FoldersOut)
@blueprint.doc(responses={404: "There is no such folder below the data roots"})
def folders(query_data: dict[str, Any]) -> dict[str, Any]:
    """Folders of photographs below the data roots, for a form to choose from."""
    path = query_data["path"]
    try:
        found = photographs.folders(path, services().settings.data_roots)
    except Problem as error:
        raise Problem(404, str(error.message)) from error
    return {"path": path, "folders": found}
