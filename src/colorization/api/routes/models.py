"""Models for colorizing: the stages, and weights by id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Dict, Integer, List, Nested, String

from colorization.api.colorizing import weights
from colorization.api.http.problems import Problem
from colorization.api.machine import accelerator
from colorization.api.routes.fields import flag
from colorization.api.services import services
from colorization.api.training import models as stages

blueprint = APIBlueprint("models", __name__, tag="Models")


class WeightsOut(Schema):
    """One file of weights."""

    id = String(required=True, metadata={"description": "to name it with in other requests", "example": "shipped-unet"})
    model = String(required=True, metadata={"description": "its stage", "example": "unet"})
    run = String(required=True, allow_none=True, metadata={"description": "the run that it is of"})
    state = String(required=True, allow_none=True, metadata={"description": "of that run"})
    kind = String(required=True, metadata={"enum": ["weights", "best", "last", "file", "shipped"]})
    created = String(required=True, metadata={"format": "date-time"})
    bytes = Integer(required=True)
    training_data = Dict(required=True, metadata={"description": "what it says of the photos it was trained on"})
    metrics = Dict(required=True, metadata={"description": "what it says of its validation"})
    network = Dict(required=True, metadata={"description": "its network's class and arguments"})
    pretrained = Dict(required=True, metadata={"description": "pretrained parts and their source"})
    sha256 = String(allow_none=True, metadata={"description": "of the file, where it was asked for"})


class ModelOut(Schema):
    """A stage, or the ensemble."""

    name = String(required=True, metadata={"example": "unet"})
    title = String(required=True, metadata={"example": "U-Net"})
    description = String(required=True)
    idea = String(required=True, allow_none=True)
    kind = String(required=True, metadata={"enum": ["colorizer", "classifier", "ensemble"]})
    inputs = List(String(), required=True, metadata={"description": "what its network takes", "example": ["L"]})
    outputs = List(String(), required=True, metadata={"description": "what it answers", "example": ["ab"]})
    loss = Dict(required=True, allow_none=True, metadata={"example": {"name": "gan_l1", "l1_weight": 100}})
    parameters = Integer(required=True, metadata={"description": "of the network that colorizes; of all its members"})
    frozen_parameters = Integer(required=True, metadata={"description": "of these, never trained"})
    discriminator_parameters = Integer(required=True, allow_none=True)
    defaults = Dict(required=True, metadata={"description": "what a training starts with where nothing else is asked"})
    weights = List(Nested(WeightsOut), required=True, metadata={"description": "those of this stage, newest first"})


class ModelsOut(Schema):
    """All stages and the ensemble."""

    models = List(Nested(ModelOut), required=True)


class CheckpointsQuery(Schema):
    """What is told of each."""

    sha256 = flag("with the SHA-256 of each file, read in full once")


class CheckpointsOut(Schema):
    """Weights, newest first, those that ship last."""

    checkpoints = List(Nested(WeightsOut), required=True)


def _output_dir() -> Path:
    return Path(services().settings.output_dir)


def _answer(entry: weights.Weights, digest: bool = False) -> dict[str, Any]:
    said = entry.description
    facts = {k: getattr(entry, k) for k in ("id", "model", "run", "state", "kind", "created", "bytes")}
    facts |= {k: said.get(k) or {} for k in ("training_data", "metrics", "network", "pretrained")}
    if digest:
        facts["sha256"] = weights.sha256(entry)
    return facts


@blueprint.get("/models")
@blueprint.output(ModelsOut)
def models() -> dict[str, Any]:
    """The four stages and the ensemble, whether there are weights or not.

    With the number of their parameters, the defaults of a training, and the weights that there are of each.
    """
    found = weights.listing(_output_dir())
    described = stages.describe(accelerator()["kind"], services().settings.state_dir)
    return {"models": [{**m, "weights": [_answer(w) for w in found if w.model == m["name"]]} for m in described]}


@blueprint.get("/checkpoints")
@blueprint.input(CheckpointsQuery, location="query")
@blueprint.output(CheckpointsOut)
def checkpoints(query_data: dict[str, Any]) -> dict[str, Any]:
    """All weights: of runs, of ensembles, and those that ship.

    Of a run that trains: its best and its last checkpoint so far.
    """
    found = weights.listing(_output_dir())
    return {"checkpoints": [_answer(w, query_data["sha256"]) for w in found]}


@blueprint.get("/checkpoints/<model_type>")
@blueprint.input(CheckpointsQuery, location="query")
@blueprint.output(CheckpointsOut)
@blueprint.doc(responses={404: "There is no such stage"})
def checkpoints_of(model_type: str, query_data: dict[str, Any]) -> dict[str, Any]:
    """The weights of one stage (or of `ensemble`); none is an empty list."""
    found = [w for w in weights.listing(_output_dir()) if w.model == model_type]
    if not found and model_type not in (*stages.names(), stages.ENSEMBLE):
        known = ", ".join((*stages.names(), stages.ENSEMBLE))
        raise Problem(404, f"there is no model {model_type!r}; there are {known}")
    return {"checkpoints": [_answer(w, query_data["sha256"]) for w in found]}
