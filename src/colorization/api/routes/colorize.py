"""Colorize photos: one, many, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import File, Float, Integer, List, Nested, String
from apiflask.validators import Length, Range
from flask import Response, request, send_file
from marshmallow import ValidationError, post_load, pre_load

from colorization.api import forms
from colorization.api.colorizing import previews
from colorization.api.http.problems import Problem
from colorization.api.routes.fields import (
    BINARY,
    WEIGHTS_ID,
    WEIGHTS_IDS,
    JSONArray,
    PageIn,
    described,
    flag,
    with_fields,
)
from colorization.api.routes.jobs import JobOut, answer
from colorization.api.services import services
from colorization.api.storage import uploads
from colorization.api.storage.database import Result
from colorization.api.storage.uploads import MEDIA_TYPES, Upload
from colorization.colorize.hints import Hint, parsed_colour
from colorization.core.errors import InputError
from colorization.evaluation.catalog import METRICS
from colorization.models.weights import DEFAULT_WEIGHTS

blueprint = APIBlueprint("colorize", __name__, tag="Colorize")

SCORES = tuple(m for m in METRICS if m.trained and m.formula)  # of one photo
IMAGES = dict.fromkeys(sorted(set(MEDIA_TYPES.values())), BINARY)
HINTS, PALETTE = 256, 16  # of a photo at most
HINTS_EXAMPLE = '[{"x": 0.4, "y": 0.85, "colour": "navy", "radius": 0.02}]'


def _hint(given: Any) -> dict[str, Any]:
    try:
        return asdict(Hint(**given))
    except TypeError as error:  # no object, or another key
        raise InputError(f"should be an object like {HINTS_EXAMPLE[1:-1]}") from error
    except InputError as error:
        raise InputError(str(error).removeprefix("hint: ")) from error


@forms.with_settings(forms.COLORIZE, multipart=True)
class OptionsIn(Schema):
    """How a photo is colorized."""

    weights = List(
        String(validate=WEIGHTS_IDS),
        validate=Length(1, 8),
        metadata={
            "description": f"ids or stages, repeated or with commas; several are merged; default {DEFAULT_WEIGHTS}"
        },
    )
    model = String(validate=WEIGHTS_ID, metadata={"description": "one more of them"})
    palette = JSONArray(
        parsed_colour,
        PALETTE,
        f"Colours that shall be in the picture, wherever they fit: a JSON array of at most {PALETTE}, as CSS writes "
        "them. Only for weights that take a palette (`model=hinted`).",
        '["navy", "#d2b48c"]',
    )

    @post_load
    def split(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Lists with commas as lists."""
        if "weights" in data:
            data["weights"] = [id for ids in data["weights"] for id in ids.split(",")]
        return data


class ColorizeIn(OptionsIn):
    """A photo, and how it is colorized."""

    file = File(required=True, metadata={"description": "the photo"})
    hints = JSONArray(
        _hint,
        HINTS,
        f"Colours that are known at places of the photo: a JSON array of at most {HINTS}. `x` and `y` are shares of "
        "the upright photo's width and height, `colour` is as CSS writes it, `radius` (default 0.02) is a share of the "
        "short side. The place gets this colour in the photo's lightness, and it spreads over the object. For any "
        "weights.",
        HINTS_EXAMPLE,
    )


class BatchIn(OptionsIn):
    """Photos, and how they are colorized."""

    files = List(File(), required=True, validate=Length(1), metadata={"description": "the photos"})

    @pre_load
    def no_hints(self, data: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        """Places are those of one photo."""
        if "hints" in data:
            raise ValidationError("are for a single photo, not for a batch", "hints")
        return data


class ResultOut(Schema):
    """A file to fetch."""

    id = String(required=True)
    url = String(required=True, metadata={"example": "/api/colorize/result/0123456789abcdef0123456789abcdef"})
    name = String(required=True, metadata={"example": "photo-colorized.jpg"})
    media_type = String(required=True, metadata={"example": "image/jpeg"})
    bytes = Integer(required=True)
    expires = String(
        required=True,
        metadata={"format": "date-time", "description": "earlier only while results take more than results_mb"},
    )


class HintOut(Schema):
    """The colour that a person gave at a place."""

    x = Float(required=True, metadata={"description": "share of the upright photo's width", "example": 0.4})
    y = Float(required=True, metadata={"description": "share of its height", "example": 0.85})
    colour = String(required=True, metadata={"example": "#000080"})
    radius = Float(required=True, metadata={"description": "share of its short side", "example": 0.02})


class GivenOut(Schema):
    """The colours that a person gave for a photo, as they were applied."""

    hints = List(Nested(HintOut), required=True)
    palette = List(String(), required=True, metadata={"example": ["#000080", "#d2b48c"]})


class UsedWeightsOut(Schema):
    """Weights that a photo was colorized with."""

    id = String(required=True, metadata={"description": "as it was asked for"})
    stage = String(required=True, metadata={"example": "unet"})
    sha256 = String(required=True)


@with_fields({m.name: Float(required=True, allow_none=True, metadata=described(m)) for m in SCORES})
class ScoresOut(Schema):
    """How the true colours were met, as `python -m colorization.eval` measures it on this photo."""

    size = Integer(required=True, metadata={"description": "side of the centre crop that was measured"})
    true_colorfulness = Float(required=True)
    lpips_missing = String(required=True, allow_none=True, metadata={"description": "why lpips is null"})


class ColorizeOut(GivenOut):
    """A colorized photo."""

    result = Nested(ResultOut, required=True)
    uncertainty = Nested(ResultOut, required=True, allow_none=True, metadata={"description": "the heat map"})
    truth = Nested(ResultOut, required=True, allow_none=True, metadata={"description": "the photo as it was sent"})
    width = Integer(required=True)
    height = Integer(required=True)
    pages = Integer(required=True)
    seconds = Float(required=True)
    warning = String(
        required=True,
        allow_none=True,
        metadata={"description": "what of the photo is damaged or was left out", "example": "first of 42 frames"},
    )
    weights = List(Nested(UsedWeightsOut), required=True)
    metrics = Nested(ScoresOut, required=True, allow_none=True)


SIDE = "instead a JPEG of its first page, which every browser shows, its longer side so many pixels at most"
ERRORS: Any = {
    413: "A file has too many bytes or pixels, or the request too many bytes",
    415: "The request is no multipart form, or the file no picture of a known type",
    422: "A field is wrong, or the file is damaged",
    503: "Too many photos wait already, or the disk is full; Retry-After has the seconds",
}


@blueprint.before_request
def limit() -> None:
    """What a form may be, before it is read."""
    if request.method == "POST":
        uploads.check_form(services().settings, single=request.endpoint != "colorize.batch")


@blueprint.post("/colorize")
@blueprint.input(ColorizeIn, location="form_and_files")
@blueprint.output(ColorizeOut)
@blueprint.doc(responses=ERRORS)
def colorize(form_and_files_data: dict[str, Any]) -> Any:
    """Colorize a photo.

    Answers JSON, or the picture itself where `Accept` prefers an image type to `application/json`.
    """
    file = form_and_files_data.pop("file")
    done = services().colorize.upload(file, form_and_files_data)
    accepted = request.accept_mimetypes
    if max(accepted.quality(type) for type in IMAGES) > accepted.quality("application/json"):
        response = _file(done["result"]["id"])
        response.headers["Content-Location"] = done["result"]["url"]
        return response
    return done


@blueprint.post("/colorize/batch")
@blueprint.input(BatchIn, location="form_and_files")
@blueprint.output(JobOut, status_code=202)
@blueprint.doc(responses={k: v for k, v in ERRORS.items() if k in (413, 415, 422)})
def batch(form_and_files_data: dict[str, Any]) -> dict[str, Any]:
    """Colorize many photos, as a job.

    A file that cannot be colorized fails alone. The job's stream has an `item` for each file as it is done, and
    `GET /api/jobs/{job_id}/archive` has all results at the end.
    """
    files = form_and_files_data.pop("files")
    most = services().settings.batch_files
    if len(files) > most:
        raise Problem(413, f"files: {len(files)} are more than the {most} that this server takes at once")
    return answer(services().colorize.submit(files, form_and_files_data))


class PreviewIn(Schema):
    """A photo, and how large it is shown."""

    file = File(required=True, metadata={"description": "the photo"})
    side = Integer(
        load_default=None,
        validate=Range(16, previews.LARGEST),
        metadata={"description": "of its longer side, pixels at most; default all of them"},
    )


@blueprint.post("/colorize/preview")
@blueprint.input(PreviewIn, location="form_and_files")
@blueprint.doc(
    responses={
        "200": {"description": "The preview", "content": {"image/jpeg": IMAGES["image/jpeg"]}},
        **{k: v for k, v in ERRORS.items() if k != 422},
    }
)
def preview(form_and_files_data: dict[str, Any]) -> Response:
    """A photo as every browser can show it, a TIFF or HEIF too: its first page as a JPEG. Nothing is kept."""
    content = services().colorize.preview(form_and_files_data["file"], form_and_files_data["side"])
    return Response(content, mimetype="image/jpeg")


class ListedResultOut(ResultOut, GivenOut):
    """A colorized photo as a list has it."""

    created = String(required=True, metadata={"format": "date-time"})
    job = String(required=True, allow_none=True, metadata={"description": "the job that made it"})


class ResultsOut(Schema):
    """A page of colorized photos."""

    results = List(Nested(ListedResultOut), required=True)
    total = Integer(required=True, metadata={"description": "of all pages"})


@blueprint.get("/colorize/results")
@blueprint.input(PageIn, location="query")
@blueprint.output(ResultsOut)
def results(query_data: dict[str, Any]) -> dict[str, Any]:
    """Colorized photos that can still be fetched, the newest first."""
    found, total = services().results.page(**query_data)
    return {"results": [_listed(r) for r in found], "total": total}


@blueprint.get("/colorize/results/<result_id>")
@blueprint.output(ListedResultOut)
@blueprint.doc(responses={404: "There is no such result, or it has expired"})
def listed(result_id: str) -> dict[str, Any]:
    """A result as the list has it, with the colours that a person gave."""
    return _listed(_found(result_id))


def _listed(result: Result) -> dict[str, Any]:
    return {
        **services().results.answer(result),
        **(result.given or {"hints": [], "palette": []}),
        "created": result.created,
        "job": result.job_id,
    }


def _found(id: str) -> Result:
    if (found := services().results.get(id)) is None:
        raise Problem(404, "there is no such result, or it has expired")
    return found


class ResultIn(Schema):
    """How a result is sent."""

    side = Integer(load_default=None, validate=Range(16, previews.LARGEST), metadata={"description": SIDE})
    download = flag("as an attachment, which browsers save")


RESULT_RESPONSES: Any = {
    "200": {"description": "The file", "content": {**IMAGES, "application/octet-stream": BINARY}},
    "206": {"description": "The bytes that Range asks for", "content": IMAGES},
    "304": {"description": "It is what If-None-Match or If-Modified-Since say"},
    "404": {"description": "There is no such result, or it has expired"},
    "416": {"description": "It does not have the bytes that Range asks for"},
}


@blueprint.get("/colorize/result/<result_id>")
@blueprint.input(ResultIn, location="query")
@blueprint.doc(responses=RESULT_RESPONSES)
def result(result_id: str, query_data: dict[str, Any]) -> Response:
    """A result, whole or by ranges."""
    side = query_data["side"]
    return _file(result_id, query_data["download"]) if side is None else _preview(result_id, side)


@blueprint.delete("/colorize/result/<result_id>")
@blueprint.output({}, status_code=204, description="The result is deleted")
@blueprint.doc(responses={404: "There is no such result, or it has expired", 409: "It belongs to a job"})
def delete(result_id: str) -> Any:
    """Delete a result that nobody needs any more."""
    of, found = services().results, _found(result_id)
    if found.job_id is not None:
        raise Problem(409, "it belongs to a job; delete that")
    of.remove([found])
    return "", 204


def _preview(id: str, side: int) -> Response:
    of, found = services().results, _found(id)
    response = Response(mimetype="image/jpeg")
    response.set_etag(f"{id}-{side}")
    response.headers["Cache-Control"] = "private, max-age=86400"  # a result never changes
    if request.if_none_match.contains(f"{id}-{side}"):
        response.status_code = 304
    else:
        response.data = previews.preview(Upload(found.name, of.path(found)), side)
    return response


def _file(id: str, download: bool = False) -> Response:
    results, found = services().results, _found(id)
    try:
        response = send_file(
            results.path(found).absolute(),
            found.media_type,
            as_attachment=download,
            download_name=found.name,
            conditional=True,
            etag=found.id,
        )
    except FileNotFoundError as error:  # it expired just now
        raise Problem(404, "there is no such result, or it has expired") from error
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
