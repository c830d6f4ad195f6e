"""Past runs: lists, logs, curves, configurations, samples; and their deletion."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml
from apiflask import APIBlueprint, Schema
from apiflask.fields import Dict, Float, Integer, List, Nested, Raw, String
from apiflask.validators import Length, OneOf, Range, Regexp
from flask import Response, send_file

from colorization.api.http.problems import Problem
from colorization.api.http.redact import without_paths
from colorization.api.routes.fields import BINARY, PageIn, flag
from colorization.api.routes.training import NOT_FOUND, RUN_ID, RunsIn, RunsOut, page_of
from colorization.api.services import services
from colorization.api.training import plan, streams
from colorization.api.training.trainings import UNFINISHED
from colorization.core import runs

blueprint = APIBlueprint("history", __name__, tag="History")

ENDED = tuple(state for state in runs.STATES if state not in UNFINISHED)
PICTURE: Any = {
    "description": "The picture.",
    "content": {"image/png": BINARY},
}


class PastRunsIn(RunsIn):
    """Which runs."""

    state = String(validate=OneOf(ENDED))


class LogsIn(PageIn):
    """Which lines."""

    per_page = Integer(load_default=200, validate=Range(1, 5000))
    q = String(validate=Length(max=200), metadata={"description": "Only lines with this, in any case."})


class EpochOut(Schema):
    """An epoch of a run."""

    epoch = Integer(required=True, metadata={"description": "From 0."})
    step = Integer(required=True, metadata={"description": "The last that was logged."})
    lr = Float(required=True, allow_none=True, metadata={"description": "The last learning rate."})
    train = Dict(keys=String(), values=Float(), required=True, metadata={"description": "Means of what was logged."})
    val = Dict(keys=String(), values=Float(), required=True, metadata={"description": "The last of the epoch."})


class LineOut(Schema):
    """A line of the log."""

    number = Integer(required=True, metadata={"description": "In the whole log, from 1."})
    text = String(required=True)


class LogsOut(Schema):
    """What a run has told."""

    id = String(required=True)
    epochs = List(Nested(EpochOut), required=True)
    test = Dict(keys=String(), values=Float(), required=True, metadata={"description": "Of the best checkpoint."})
    lines = List(Nested(LineOut), required=True)
    total = Integer(required=True, metadata={"description": "Lines on all pages."})
    page = Integer(required=True)
    per_page = Integer(required=True)


class CurvesIn(Schema):
    """How much of the curves."""

    points = Integer(load_default=500, validate=Range(2, 10_000), metadata={"description": "At most, of each curve."})
    runs = Integer(load_default=20, validate=Range(1, 100), metadata={"description": "The newest so many."})
    run = String(validate=Regexp(RUN_ID), metadata={"description": "Only this run."})


class CurveOut(Schema):
    """A scalar over a run; the lists are of the same length."""

    run_id = String(required=True)
    steps = List(Integer(), required=True)
    epochs = List(Integer(allow_none=True), required=True)
    values = List(Float(), required=True)


class CurvesOut(Schema):
    """The scalars of a model's runs."""

    model = String(required=True)
    tags = Dict(
        keys=String(),
        values=List(Nested(CurveOut)),
        required=True,
        metadata={"description": "By tag, as TensorBoard has them: `train/loss`, `val/delta_e2000`, ..."},
    )


class ConfigOut(Schema):
    """How a run was configured."""

    id = String(required=True)
    config = Dict(keys=String(), values=Raw(allow_none=True), required=True)
    overrides = List(String(), required=True)


class SampleOut(Schema):
    """A grid of grey, predicted and true photographs."""

    name = String(required=True)
    epoch = Integer(required=True, allow_none=True)
    url = String(required=True)


class SamplesOut(Schema):
    """The pictures of a run."""

    id = String(required=True)
    samples = List(Nested(SampleOut), required=True)


class DeleteIn(Schema):
    """What to delete."""

    files = flag("The run folder, too, with weights and checkpoints; else it is only left out of lists.")


@blueprint.get("/history/runs")
@blueprint.input(PastRunsIn, location="query")
@blueprint.output(RunsOut)
@blueprint.doc(responses={422: "A parameter is wrong."})
def past_runs(query_data: dict[str, Any]) -> dict[str, Any]:
    """All runs that have ended."""
    return page_of(query_data, (query_data["state"],) if "state" in query_data else ENDED)


@blueprint.get("/history/logs/<run_id>")
@blueprint.input(LogsIn, location="query")
@blueprint.output(LogsOut)
@blueprint.doc(responses={404: NOT_FOUND, 422: "A parameter is wrong."})
def logs(run_id: str, query_data: dict[str, Any]) -> dict[str, Any]:
    """What a run has told: its epochs with losses, metrics and learning rates, and the lines of its log.

    A run that failed before it trained has the lines of its process instead.
    """
    trainings = services().trainings
    run = trainings.folder(trainings.get(run_id))
    rows = run.metrics()
    wanted = query_data.get("q", "").lower()
    lines = [
        {"number": number, "text": without_paths(text, trainings.output_dir)}
        for number, text in enumerate(trainings.log_lines(run), 1)
    ]
    found = [line for line in lines if wanted in str(line["text"]).lower()]
    page, per_page = query_data["page"], query_data["per_page"]
    return {
        "id": run_id,
        "epochs": epochs(rows),
        "test": {row["name"]: row["value"] for row in rows if row["split"] == "test" and row["value"] is not None},
        "lines": found[(page - 1) * per_page : page * per_page],
        "total": len(found),
        "page": page,
        "per_page": per_page,
    }


def epochs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` as :class:`EpochOut`: of training the mean of each epoch, of validation the last."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["epoch"] is None or row["value"] is None or row["split"] not in ("train", "val"):
            continue
        new = {"epoch": row["epoch"], "step": 0, "lr": None, "train": {}, "val": {}}
        one = found.setdefault(row["epoch"], new)
        one["step"] = max(one["step"], row["step"])
        if row["split"] == "val":
            one["val"][row["name"]] = row["value"]
        elif row["name"] == "lr":
            one["lr"] = row["value"]
        else:
            one["train"].setdefault(row["name"], []).append(row["value"])
    for one in found.values():
        one["train"] = {name: float(np.mean(values)) for name, values in one["train"].items()}
    return [found[epoch] for epoch in sorted(found)]


@blueprint.get("/history/tensorboard-data/<model_type>")
@blueprint.input(CurvesIn, location="query")
@blueprint.output(CurvesOut)
@blueprint.doc(responses={404: "There is no such model or run.", 422: "A parameter is wrong."})
def curves(model_type: str, query_data: dict[str, Any]) -> dict[str, Any]:
    """The scalars of a model's runs by tag, thinned to a number of points; the first and the last are always there."""
    trainings = services().trainings
    found, total = trainings.find(1, query_data["runs"], model=model_type)
    if "run" in query_data:
        found = [row for row in [trainings.get(query_data["run"])] if row.model == model_type]
    if not total and model_type not in plan.choices("model"):
        raise Problem(404, "there is no such model; GET /api/models lists them")
    tags: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        scalars: dict[str, list[dict[str, Any]]] = {}
        for point in trainings.folder(row).metrics():
            if point["value"] is not None:
                scalars.setdefault(f"{point['split']}/{point['name']}", []).append(point)
        for tag, points in scalars.items():
            kept = [points[i] for i in thinned(len(points), query_data["points"])]
            curve = {key + "s": [p[key] for p in kept] for key in ("step", "epoch", "value")}
            tags.setdefault(tag, []).append({"run_id": row.id, **curve})
    return {"model": model_type, "tags": dict(sorted(tags.items()))}


def thinned(count: int, points: int) -> list[int]:
    """At most ``points`` positions of ``count``, evenly spread, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, points)).round().astype(int).tolist()


@blueprint.get("/history/config/<run_id>")
@blueprint.output(ConfigOut)
@blueprint.doc(responses={404: "There is no such run, or it has not started yet."})
def config(run_id: str) -> dict[str, Any]:
    """How a run was configured, all defaults included; folders are named without where they lie."""
    trainings = services().trainings
    folder = trainings.folder(trainings.get(run_id)).path
    try:
        read = [yaml.safe_load((folder / f).read_text(encoding="utf-8")) for f in ("config.yaml", "overrides.yaml")]
    except FileNotFoundError as error:
        raise Problem(404, "this run has not started yet") from error
    settings = services().settings
    content, overrides = without_paths(read, settings.output_dir, *settings.data_roots)
    return {"id": run_id, "config": content, "overrides": overrides}


@blueprint.get("/history/samples/<run_id>")
@blueprint.output(SamplesOut)
@blueprint.doc(responses={404: NOT_FOUND})
def list_samples(run_id: str) -> dict[str, Any]:
    """The pictures of a run: a grid of grey, predicted and true photographs for each epoch."""
    trainings = services().trainings
    run = trainings.folder(trainings.get(run_id))
    return {"id": run_id, "samples": [streams.sample(run_id, name) for name in streams.samples(run.path)]}


@blueprint.get("/history/samples/<run_id>/<name>")
@blueprint.doc(responses={200: PICTURE, 404: "There is no such run or picture."})
def get_sample(run_id: str, name: str) -> Response:
    """One picture of a run."""
    trainings = services().trainings
    run = trainings.folder(trainings.get(run_id))
    if name not in streams.samples(run.path):
        raise Problem(404, "there is no such picture; GET /api/history/samples/{run_id} lists them")
    return send_file(run.path / "samples" / name, mimetype="image/png")


@blueprint.delete("/history/<run_id>")
@blueprint.input(DeleteIn, location="query")
@blueprint.output({}, status_code=204)
@blueprint.doc(responses={404: NOT_FOUND, 409: "It has not ended.", 422: "A parameter is wrong."})
def delete(run_id: str, query_data: dict[str, Any]) -> str:
    """Take an ended run out of the history; its files stay unless `files=true`."""
    services().trainings.delete(run_id, query_data["files"])
    return ""
