"""Training: start, watch, stop, list."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Dict, Float, Integer, List, Nested, String
from apiflask.validators import Length, OneOf, Regexp
from flask import Response
from marshmallow import ValidationError

from colorization.api import forms
from colorization.api.http.problems import invalid
from colorization.api.http.redact import without_paths
from colorization.api.http.sse import last_event_id
from colorization.api.routes.fields import EVENTS, NO_NUL, JSONBoolean, PageIn
from colorization.api.services import services
from colorization.api.storage.database import Run
from colorization.api.training import plan, streams
from colorization.api.training.trainings import UNFINISHED, metrics_of
from colorization.core import runs

blueprint = APIBlueprint("training", __name__, tag="Training")

RUN_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.=-]{0,199}$"
SORTS = [f"{sign}{key}" for key in ("created", "id", "model", "state") for sign in ("-", "")]
NOT_FOUND = "There is no such run."


def check_model(name: str) -> None:
    """Refuse a model that there is not. (The description does not list them: more may be added.)"""
    if name not in plan.choices("model"):
        raise ValidationError(f"Must be one of: {', '.join(plan.choices('model'))}.")


@forms.with_settings((forms.DATAMODULE, *forms.TRAINING), filled=False)
class StartIn(Schema):
    """What to train. All fields may be left out; the config tree has the defaults."""

    model = String(validate=check_model, metadata={"description": "A name of `GET /api/models`.", "example": "unet"})
    data = String(
        validate=Length(1, 1000),
        metadata={
            "description": "For `folder` and `coco`: a folder of photographs below a data root of the server, relative "
            "to it. Default: the first root.",
            "example": "coco/val2017",
        },
    )
    resume = String(
        validate=Regexp(RUN_ID),
        metadata={"description": "Id of an ended run to resume, as it was configured; only `epochs` may be given."},
    )
    overrides = List(
        String(validate=[Length(max=200), Regexp(plan.PATTERN)]),
        validate=Length(max=50),
        metadata={
            "description": "Further settings of the config tree, as on the command line. No files, no interpolations.",
            "example": ["experiment=quickstart/unet", "trainer.max_epochs=8"],
        },
    )


class BestOut(Schema):
    """The best value so far of the metric by which the best checkpoint is chosen."""

    name = String()
    value = Float(allow_nan=False)


class RunOut(Schema):
    """A training run."""

    id = String(required=True)
    model = String(required=True)
    state = String(required=True, validate=OneOf(runs.STATES))
    origin = String(required=True, validate=OneOf(["api", "command line"]))
    created = String(required=True, metadata={"description": "ISO 8601, UTC."})
    updated = String(required=True, allow_none=True)
    epoch = Integer(required=True, allow_none=True, metadata={"description": "Epochs done."})
    max_epochs = Integer(required=True, allow_none=True)
    step = Integer(required=True, allow_none=True, metadata={"description": "Optimizer steps done."})
    progress = Float(required=True, allow_none=True, metadata={"description": "Share of the epochs done, 0 to 1."})
    eta_seconds = Float(required=True, allow_none=True)
    best = Nested(BestOut, required=True, allow_none=True)
    error = String(required=True, allow_none=True, metadata={"description": "Why it failed."})
    resumable = Boolean(required=True, metadata={"description": "Has ended, with a checkpoint to resume from."})
    stopping = Boolean(required=True, metadata={"description": "Was asked to stop and has not ended yet."})
    notice = String(
        required=True,
        allow_none=True,
        metadata={"description": "Why the server cannot start or follow it: a cluster that does not answer."},
    )
    host = String(required=True, allow_none=True, metadata={"description": "Machine that trains it, or did."})
    parent = String(required=True, allow_none=True, metadata={"description": "Checkpoint that it started from."})
    stream = String(required=True, metadata={"description": "Its events, see `/api/training/stream/{run_id}`."})


class StatusOut(RunOut):
    """A training run with its place in the queue and its latest metrics."""

    position = Integer(required=True, allow_none=True, metadata={"description": "In the queue, from 1."})
    metrics = Dict(
        keys=String(),
        values=Float(allow_none=True),
        required=True,
        metadata={"description": "Latest values by `split/name`; null where one could not be computed."},
    )


class RunsIn(PageIn):
    """Which runs."""

    state = String(validate=OneOf(runs.STATES))
    model = String(validate=[Length(1, 100), NO_NUL])
    q = String(validate=[Length(max=200), NO_NUL], metadata={"description": "Part of the id or model, in any case."})
    sort = String(load_default="-created", validate=OneOf(SORTS), metadata={"description": "`-`: largest first."})


class RunsOut(Schema):
    """A page of runs."""

    runs = List(Nested(RunOut), required=True)
    total = Integer(required=True, metadata={"description": "Of all pages."})
    page = Integer(required=True)
    per_page = Integer(required=True)


class StopIn(Schema):
    """How to stop."""

    force = JSONBoolean(
        load_default=False,
        metadata={"description": "Kill the process if it has not ended within 10 seconds."},
    )


def describe(row: Run) -> dict[str, Any]:
    """A run as :class:`RunOut`."""
    status = row.status
    epoch, most = status.get("epoch"), status.get("max_epochs")
    settings = services().settings
    return {
        "id": row.id,
        "model": row.model,
        "state": row.state,
        "origin": row.origin,
        "created": row.created,
        "updated": status.get("time"),
        **{key: status.get(key) for key in ("epoch", "max_epochs", "step", "eta_seconds", "best", "host")},
        **{key: without_paths(status.get(key), settings.output_dir) for key in ("error", "parent")},
        "progress": min(1.0, epoch / most) if epoch is not None and most and most > 0 else None,
        "resumable": row.resumable and row.state not in UNFINISHED and not row.has_process,
        "stopping": row.stop_asked is not None,
        "notice": services().trainings.notices.get(row.id),
        "stream": f"/api/training/stream/{row.id}",
    }


def status_of(row: Run) -> dict[str, Any]:
    """A run as :class:`StatusOut`."""
    trainings = services().trainings
    queue = trainings.queue()
    return {
        **describe(row),
        "position": queue.index(row.id) + 1 if row.id in queue else None,
        "metrics": metrics_of(trainings.folder(row).metrics_file),
    }


def page_of(query: dict[str, Any], states: tuple[str, ...]) -> dict[str, Any]:
    """A page of runs as :class:`RunsOut`."""
    page, per_page = query["page"], query["per_page"]
    more = {key: query[key] for key in ("model", "q") if key in query}
    found, total = services().trainings.find(page, per_page, query["sort"], states, **more)
    return {"runs": [describe(row) for row in found], "total": total, "page": page, "per_page": per_page}


@blueprint.post("/training/start")
@blueprint.input(StartIn, location="json")
@blueprint.output(StatusOut, status_code=201)
@blueprint.doc(
    responses={
        400: "The body is not JSON.",
        409: "The run to resume has not ended.",
        422: "A field cannot work; the answer names it with the reason. Nothing was started.",
        503: "The queue is full.",
    }
)
def start(json_data: dict[str, Any]) -> dict[str, Any]:
    """Start a training run, or resume one.

    What is asked is checked first: composed with the config tree, the photographs found, the network built. The run
    waits in a queue until its turn comes, trains in a process of its own, and outlives the server.
    """
    trainings = services().trainings
    if "resume" not in json_data:
        return status_of(trainings.get(trainings.submit(plan.plan(json_data, services().settings))))
    id = json_data["resume"]
    if refused := sorted(json_data.keys() - {"resume", "epochs"}):
        raise invalid(refused[0], "a run resumes as it was configured; only epochs may be given with resume")
    if not trainings.known(id):
        raise invalid("resume", "there is no such run; GET /api/training/runs lists them")
    row = trainings.get(id)
    trainings.resume(id, plan.plan_resume(trainings.folder(row), json_data.get("epochs"), services().settings))
    return status_of(trainings.get(id))


@blueprint.get("/training/status/<run_id>")
@blueprint.output(StatusOut)
@blueprint.doc(responses={404: NOT_FOUND})
def status(run_id: str) -> dict[str, Any]:
    """How a run is: state, progress, latest metrics."""
    return status_of(services().trainings.get(run_id))


@blueprint.get("/training/runs")
@blueprint.input(RunsIn, location="query")
@blueprint.output(RunsOut)
@blueprint.doc(responses={422: "A parameter is wrong."})
def list_runs(query_data: dict[str, Any]) -> dict[str, Any]:
    """All runs, whatever their state, those of the command line included."""
    return page_of(query_data, (query_data["state"],) if "state" in query_data else ())


@blueprint.post("/training/stop/<run_id>")
@blueprint.input(StopIn, location="json")
@blueprint.output(StatusOut, status_code=202)
@blueprint.doc(
    responses={
        400: "The body is not JSON.",
        404: NOT_FOUND,
        409: "It has ended, or trains on another machine.",
        422: "A field is wrong.",
        503: "Its cluster does not answer.",
    }
)
def stop(run_id: str, json_data: dict[str, Any]) -> dict[str, Any]:
    """Stop a run: it leaves the queue, or finishes its batch, saves a checkpoint and ends.

    It can be resumed: `resume` of `/api/training/start`.
    """
    services().trainings.stop(run_id, json_data["force"])
    return status_of(services().trainings.get(run_id))


@blueprint.get("/training/stream/<run_id>")
@blueprint.doc(
    responses={
        200: EVENTS,
        204: "The client has had all events of a run that has ended.",
        404: NOT_FOUND,
        503: "Too many streams are open.",
    }
)
def stream(run_id: str) -> Response:
    """A run as it goes on, as server-sent events.

    `metrics` (a row of metrics: step, epoch, split, name, value), `sample` (a picture: name, epoch, url), `log` (a
    line: text), `status` (the run, as in `/api/training/runs`) and at last, when its process is gone, `end` (the same).
    A client that comes back with the id of the last event that it has had, in the header `Last-Event-ID` or the
    parameter `last_event_id`, misses nothing and gets nothing twice; with an id that is none it gets all from the
    beginning.
    """
    trainings = services().trainings
    source = streams.RunEvents(trainings, trainings.get(run_id).id, describe)
    if source.is_over(last_event_id()):
        return Response(status=204)
    return services().streams.response(source)
