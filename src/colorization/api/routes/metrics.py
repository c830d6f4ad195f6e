"""How good weights are: evaluations on folders and uploads, comparisons on one photo."""

from __future__ import annotations

import io
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Dict, File, Float, Integer, List, Nested, String
from apiflask.validators import Length, OneOf, Regexp
from flask import Response, request, send_file, url_for
from marshmallow import post_load

from colorization.api import forms
from colorization.api.colorizing import weights
from colorization.api.http.problems import Problem, invalid
from colorization.api.measuring import evaluation as evaluations
from colorization.api.routes.colorize import ERRORS
from colorization.api.routes.fields import BINARY, WEIGHTS_ID, WEIGHTS_IDS, PageIn, described, flag, with_fields
from colorization.api.routes.jobs import JobOut, answer
from colorization.api.services import services
from colorization.api.storage import uploads
from colorization.api.storage.database import Evaluation
from colorization.api.storage.jobs import new_id
from colorization.api.training import data as photographs
from colorization.api.training.plan import find_folder
from colorization.core.color import MERGES
from colorization.evaluation.catalog import MAIN, METRICS

blueprint = APIBlueprint("metrics", __name__, tag="Metrics")

# Of each photo.
FIGURES = tuple(m for m in METRICS if m.name != "delta_colorfulness")
COLUMNS = (*(m.name for m in FIGURES), "true_colorfulness")

DEFAULT = "default the newest finished run of each stage, and what ships"


@forms.with_settings(forms.EVALUATION)
class EvaluationIn(Schema):
    """What to evaluate, on what, how."""

    weights = List(
        String(validate=WEIGHTS_ID, metadata={"example": "shipped-unet"}),
        load_default=None,
        allow_none=True,
        validate=Length(1, 32),
        metadata={"description": f"ids of `GET /api/checkpoints`, or stages; {DEFAULT}"},
    )
    data = String(
        load_default=evaluations.DEFAULT_DATA,
        validate=[Length(max=1000), Regexp(photographs.FOLDER)],
        metadata={"description": "a folder of `GET /api/data`, searched with all below it"},
    )


class FormIn(Schema):
    """What forms share."""

    weights = List(
        String(validate=WEIGHTS_IDS),
        validate=Length(max=32),
        metadata={"description": f"ids or stages, repeated or with commas; {DEFAULT}"},
    )

    @post_load
    def split(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Lists with commas as lists."""
        return {**data, "weights": [id for ids in data.get("weights", ()) for id in ids.split(",")]}


@forms.with_settings(forms.EVALUATION, multipart=True)
class UploadsIn(FormIn):
    """What to evaluate, on uploaded photos."""

    files = List(File(), required=True, validate=Length(1), metadata={"description": "photos in colour, the truth"})


@forms.with_settings(forms.COMPARISON, multipart=True)
class CompareIn(FormIn):
    """A photo in colour, and what is compared on it."""

    file = File(required=True, metadata={"description": "a photo in colour, the truth"})


class FileOut(Schema):
    """A file of an evaluation."""

    name = String(required=True, metadata={"example": "table.md"})
    url = String(required=True)


class ListedEvaluationOut(Schema):
    """An evaluation in the list."""

    id = String(required=True)
    created = String(required=True, metadata={"format": "date-time"})
    data = String(required=True, metadata={"description": "what it was made on"})
    weights = List(String(), required=True, metadata={"description": "ids"})
    url = String(required=True)
    photos = Integer(required=True)
    image_size = Integer(required=True)
    rows = List(Dict(), required=True, metadata={"description": "name and mean figures of each row"})


class EvaluationOut(ListedEvaluationOut):
    """An evaluation in full."""

    rows = List(
        Dict(),
        required=True,
        metadata={
            "description": "of each row `name`, each figure as `{mean, ci95}` (`reason` where it is missing), the same "
            "again in `without_near_grey`, `beats_grey`, and what is known of the weights"
        },
    )
    protocol = Dict(required=True, metadata={"description": "what makes the figures comparable"})
    comparisons = List(Dict(), required=True, metadata={"description": "paired differences a - b with their intervals"})
    uncertainty = List(Dict(), required=True)
    files = List(Nested(FileOut), required=True, metadata={"description": "table, figures, strips"})
    images = String(required=True, metadata={"description": "url of the figures of each photo"})


class EvaluationsOut(Schema):
    """A page of evaluations, newest first."""

    evaluations = List(Nested(ListedEvaluationOut), required=True)
    total = Integer(required=True, metadata={"description": "of all pages"})


class ImagesIn(PageIn):
    """Which photos, in which order."""

    model = String(validate=Length(1, 300), metadata={"description": "only this row"})
    sort = String(load_default="photo", validate=OneOf(("photo", "model", *COLUMNS)))
    descending = flag("largest first")


@with_fields({m.name: Float(required=m.name == MAIN, metadata=described(m)) for m in FIGURES})
class ImageOut(Schema):
    """A photo under one row; figures that were not measured are absent."""

    photo = String(required=True)
    model = String(required=True, metadata={"description": "name of the row"})
    true_colorfulness = Float(required=True)
    strip = String(
        required=True,
        allow_none=True,
        metadata={"description": "url of `[grey | prediction | truth]`, where the evaluation has kept it"},
    )


class ImagesOut(Schema):
    """A page of photos."""

    images = List(Nested(ImageOut), required=True)
    total = Integer(required=True, metadata={"description": "of all pages"})


def _chosen(asked: dict[str, Any]) -> list[str]:
    """The ids that are asked for, or the default ones; all there are, and enough for an ensemble."""
    output_dir = services().evaluations.output_dir
    ids = asked["weights"] or weights.defaults(output_dir)
    for id in ids:
        weights.find(id, output_dir)
    if asked["ensemble"] in MERGES and len(set(ids)) < 2:
        raise invalid("ensemble", f"needs two weights or more, not {', '.join(ids) or 'none'}")
    return list(dict.fromkeys(ids))


@blueprint.post("/metrics/evaluate")
@blueprint.input(EvaluationIn)
@blueprint.output(JobOut, status_code=202)
def evaluate(json_data: dict[str, Any]) -> dict[str, Any]:
    """Evaluate weights on a folder of photographs.

    Answers with a job, whose result is the report; the same code and figures as `python -m colorization.eval`.
    """
    ids = _chosen(json_data)
    find_folder(json_data["data"], services().settings.data_roots)
    return answer(services().jobs.submit("evaluate", {**json_data, "weights": ids}))


_FORM_ERRORS: Any = {k: ERRORS[k] for k in (413, 415, 422)}


@blueprint.before_request
def limit() -> None:
    """What a form may be, before it is read."""
    if request.endpoint in ("metrics.evaluate_uploads", "metrics.compare"):
        uploads.check_form(services().settings, single=request.endpoint == "metrics.compare")


@blueprint.post("/metrics/evaluate/uploads")
@blueprint.input(UploadsIn, location="form_and_files")
@blueprint.output(JobOut, status_code=202)
@blueprint.doc(responses=_FORM_ERRORS)
def evaluate_uploads(form_and_files_data: dict[str, Any]) -> dict[str, Any]:
    """Evaluate weights on uploaded photos, otherwise as `POST /api/metrics/evaluate`."""
    files, of = form_and_files_data.pop("files"), services()
    if len(files) > of.settings.batch_files:
        raise Problem(413, f"files: {len(files)} are more than the {of.settings.batch_files} that this server takes")
    asked, job_id = form_and_files_data, new_id()
    ids = _chosen(asked)
    of.evaluations.store(files, job_id)
    ensemble = None if asked["ensemble"] == forms.NONE else asked["ensemble"]
    asked |= {"weights": ids, "ensemble": ensemble, "data": None, "uploads": len(files)}
    return answer(of.jobs.submit("evaluate", asked, id=job_id))


@blueprint.post("/metrics/compare")
@blueprint.input(CompareIn, location="form_and_files")
@blueprint.output(JobOut, status_code=202)
@blueprint.doc(responses=_FORM_ERRORS)
def compare(form_and_files_data: dict[str, Any]) -> dict[str, Any]:
    """Colorize one photo with several weights and all of them merged, and compare each with the photo's own colours.

    The job has an item for each; its result `columns` (as `POST /api/colorize` answers, with `name`), `photo` and
    `best`, the name of the best column by metric.
    """
    file, asked = form_and_files_data.pop("file"), form_and_files_data
    ids = asked.pop("weights") or weights.defaults(services().evaluations.output_dir)
    return answer(services().comparisons.submit(file, list(dict.fromkeys(ids)), asked))


def _listed(evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    rows = [
        {"name": r["name"], **{k: v["mean"] for k, v in r.items() if isinstance(v, dict) and "mean" in v}}
        for r in report["rows"]
    ]
    return {
        **{k: getattr(evaluation, k) for k in ("id", "created", "data", "weights")},
        "url": url_for("metrics.evaluation", evaluation_id=evaluation.id),
        "photos": report["protocol"]["n"],
        "image_size": report["protocol"]["size"],
        "rows": rows,
    }


def _find(evaluation_id: str) -> Evaluation:
    if (found := services().evaluations.get(evaluation_id)) is None:
        raise Problem(404, "there is no such evaluation")
    return found


@blueprint.get("/metrics/evaluations")
@blueprint.input(PageIn, location="query")
@blueprint.output(EvaluationsOut)
def list_evaluations(query_data: dict[str, Any]) -> dict[str, Any]:
    """All finished evaluations, those of the command line included."""
    found, total = services().evaluations.page(**query_data)
    return {"evaluations": [_listed(e) for e in found], "total": total}


@blueprint.get("/metrics/evaluations/<evaluation_id>")
@blueprint.output(EvaluationOut)
@blueprint.doc(responses={404: "There is no such evaluation"})
def evaluation(evaluation_id: str) -> dict[str, Any]:
    """An evaluation: its report and its files."""
    found = _find(evaluation_id)
    names = services().evaluations.files(found)
    return {
        **_listed(found),
        **{k: found.report[k] for k in ("rows", "protocol", "comparisons", "uncertainty")},
        "files": [{"name": n, "url": url_for("metrics.file", evaluation_id=found.id, name=n)} for n in names],
        "images": url_for("metrics.images", evaluation_id=found.id),
    }


@blueprint.delete("/metrics/evaluations/<evaluation_id>")
@blueprint.output({}, status_code=204)
@blueprint.doc(responses={404: "There is no such evaluation"})
def delete_evaluation(evaluation_id: str) -> str:
    """Forget an evaluation and remove its files."""
    services().evaluations.remove(_find(evaluation_id))
    return ""


@blueprint.get("/metrics/evaluations/<evaluation_id>/images")
@blueprint.input(ImagesIn, location="query")
@blueprint.output(ImagesOut)
@blueprint.doc(responses={404: "There is no such evaluation"})
def images(evaluation_id: str, query_data: dict[str, Any]) -> dict[str, Any]:
    """The figures of each photo under each row."""
    found = _find(evaluation_id)
    rows = services().evaluations.images(found)
    if (model := query_data.get("model")) is not None:
        rows = [r for r in rows if r["model"] == model]
    key = query_data["sort"]
    # Photos without a figure go last, whichever way.
    there, missing = [r for r in rows if key in r], [r for r in rows if key not in r]
    rows = sorted(there, key=lambda r: r[key], reverse=query_data["descending"]) + missing
    start = (query_data["page"] - 1) * query_data["per_page"]
    page = rows[start : start + query_data["per_page"]]

    def url(strip: str | None) -> str | None:
        return strip and url_for("metrics.file", evaluation_id=found.id, name=strip)

    return {"images": [{**row, "strip": url(row["strip"])} for row in page], "total": len(rows)}


_FILES: Any = {
    "200": {"description": "The file", "content": dict.fromkeys(evaluations.FILES.values(), BINARY)},
    "404": {"description": "There is no such evaluation, or no such file of it"},
}


@blueprint.get("/metrics/evaluations/<evaluation_id>/files/<name>")
@blueprint.doc(responses=_FILES)
def file(evaluation_id: str, name: str) -> Response:
    """A file of an evaluation, by its name in the evaluation's list: table, figures, strips."""
    content = services().evaluations.content(_find(evaluation_id), name)
    if content is None:
        raise Problem(404, "there is no such file")
    return send_file(io.BytesIO(content), evaluations.FILES.get(name, "image/png"), download_name=name)
