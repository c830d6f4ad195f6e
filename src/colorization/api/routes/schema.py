"""All figures and settings, with everything that tables and forms need."""

from __future__ import annotations

import dataclasses
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Dict, Float, Integer, List, Nested, Raw, String

from colorization.api import forms
from colorization.api.machine import accelerator
from colorization.api.services import services
from colorization.api.training import models
from colorization.evaluation.catalog import LOGGED, MAIN, METRICS
from colorization.models.weights import DEFAULT_WEIGHTS

blueprint = APIBlueprint("schema", __name__, tag="Schema")


class MetricOut(Schema):
    """A figure of evaluations."""

    name = String(required=True, metadata={"description": "In other answers.", "example": "delta_e2000"})
    label = String(required=True, metadata={"description": "Short.", "example": "ΔE2000"})
    title = String(required=True, metadata={"description": "The same where there is room."})
    unit = String(required=True, metadata={"description": "Empty: none.", "example": "dB"})
    digits = Integer(required=True, metadata={"description": "Behind the point."})
    better = String(
        required=True, allow_none=True, metadata={"enum": ["higher", "lower", None], "description": "null: neither is."}
    )
    help = String(required=True, metadata={"description": "What it says."})
    form = String(required=True, metadata={"description": "How it is defined, with its source."})
    axis = List(
        Float(),
        required=True,
        allow_none=True,
        metadata={"description": "What is bad and what is good, on an axis; null: it has none."},
    )
    shown = Boolean(required=True, metadata={"description": "Has a column in tables."})
    paired = Boolean(required=True, metadata={"description": "Rows are compared by it, photo by photo."})
    trained = Boolean(required=True, metadata={"description": "Training measures it, too."})
    of_photos = Boolean(required=True, metadata={"description": "Each photo has a figure of its own."})


class LoggedOut(Schema):
    """What a training logs besides the figures."""

    name = String(required=True, metadata={"description": "After the split in a tag.", "example": "loss"})
    title = String(required=True)
    unit = String(required=True, metadata={"description": "Empty: none."})
    digits = Integer(required=True)
    better = String(required=True, allow_none=True, metadata={"enum": ["higher", "lower", None]})
    first = Boolean(required=True, metadata={"description": "Its curve is shown at once."})


class ChoiceOut(Schema):
    """One of the values of a setting."""

    value = String(required=True)
    label = String(required=True)
    help = String(required=True)
    takes = List(String(), required=True, metadata={"description": "Further fields of the form that go with it."})


class SettingOut(Schema):
    """A setting of a form, by which requests are checked."""

    key = String(required=True, metadata={"description": "The field of the request.", "example": "epochs"})
    label = String(required=True)
    help = String(required=True)
    kind = String(
        required=True,
        metadata={
            "enum": ["integer", "number", "share", "choice", "flag"],
            "description": "A share is a number that people see in percent.",
        },
    )
    default = Raw(
        required=True,
        allow_none=True,
        metadata={"description": "Where nothing is asked; null: that of the weights, see `defaults` or `of_network`."},
    )
    per = String(
        required=True,
        allow_none=True,
        metadata={"enum": ["model", "datamodule", None], "description": "What `defaults` go by."},
    )
    defaults = Dict(
        keys=String(),
        values=Raw(),
        required=True,
        metadata={
            "description": "By the name of a model or of a kind of data; one that is not there has no such setting."
        },
    )
    of_network = String(
        required=True,
        metadata={
            "description": "Argument of the weights' network that has the default; other weights have no such setting."
        },
    )
    low = Float(required=True, allow_none=True, metadata={"description": "Smallest value."})
    above = Float(required=True, allow_none=True, metadata={"description": "What the value has to be above."})
    high = Float(required=True, allow_none=True, metadata={"description": "Largest value."})
    step = Float(required=True, allow_none=True, metadata={"description": "Of buttons and sliders."})
    usual = Float(required=True, allow_none=True, metadata={"description": "Largest value that a slider offers."})
    offered = List(Integer(), required=True, metadata={"description": "Values that a form offers; empty: all."})
    choices = List(Nested(ChoiceOut), required=True)
    none = String(
        required=True, metadata={"description": "What leaving it out is called; empty: it always has a value."}
    )
    config = String(required=True, metadata={"description": "Key of the config tree.", "example": "trainer.max_epochs"})
    further = Boolean(required=True, metadata={"description": "For those who ask for more settings."})


class FormsOut(Schema):
    """The settings of each form, in order. Files, folders, weights and the model are besides."""

    training = List(Nested(SettingOut), required=True, metadata={"description": "Of `POST /api/training/start`."})
    evaluation = List(Nested(SettingOut), required=True, metadata={"description": "Of `POST /api/metrics/evaluate`."})
    comparison = List(Nested(SettingOut), required=True, metadata={"description": "Of `POST /api/metrics/compare`."})
    colorize = List(Nested(SettingOut), required=True, metadata={"description": "Of `POST /api/colorize`."})


class SchemaOut(Schema):
    """Figures and settings."""

    main = String(required=True, metadata={"description": "The metric by which rows are put into order."})
    metrics = List(Nested(MetricOut), required=True)
    logged = List(Nested(LoggedOut), required=True)
    weights = String(required=True, metadata={"description": "Those that colorize where none are asked for."})
    forms = Nested(FormsOut, required=True)


@blueprint.get("/schema")
@blueprint.output(SchemaOut)
def schema() -> dict[str, Any]:
    """What is measured, and what can be set: labels, units, digits, ranges, defaults, help."""
    starts = models.defaults(accelerator()["kind"], services().settings.state_dir)

    def setting(it: forms.Setting) -> dict[str, Any]:
        return {**dataclasses.asdict(it), "defaults": starts[it.per][it.key] if it.per else {}}

    return {
        "main": MAIN,
        "metrics": [
            {**dataclasses.asdict(m), "title": m.title or m.label, "of_photos": m.name != "delta_colorfulness"}
            for m in METRICS
        ],
        "logged": [dataclasses.asdict(it) for it in LOGGED],
        "weights": DEFAULT_WEIGHTS,
        "forms": {name: [setting(it) for it in settings] for name, settings in forms.FORMS.items()},
    }
