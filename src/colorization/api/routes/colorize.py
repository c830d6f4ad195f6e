"""Colorize photos: one, many, and their results."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import File, Float, Integer, List, Nested, String
from apiflask.validators import Length, Range
from flask import Response, request, send_file
from marshmallow import post_load

from colorization.api import forms
from colorization.api.colorizing import previews
from colorization.api.http.problems import Problem
from colorization.api.routes.fields import BINARY, WEIGHTS_ID, WEIGHTS_IDS, PageIn, described, flag, with_fields
from colorization.api.routes.jobs import JobOut, answer
from colorization.api.services import services
from colorization.api.storage import uploads
from colorization.api.storage.uploads import MEDIA_TYPES, Upload
from colorization.evaluation.catalog import METRICS
from colorization.models.weights import DEFAULT_WEIGHTS

blueprint = APIBlueprint("colorize", __name__, tag="Colorize")

SCORES = tuple(m for m in METRICS if m.trained and m.formula)  # of one photo
IMAGES = dict.fromkeys(sorted(set(MEDIA_TYPES.values())), BINARY)


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

    @post_load
    def split(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Lists with commas as lists."""
        if "weights" in data:
            data["weights"] = [id for ids in data["weights"] for id in ids.split(",")]
        return data


class ColorizeIn(OptionsIn):
    """A photo, and how it is colorized."""

    file = File(required=True, metadata={"description": "the photo"})


class BatchIn(OptionsIn):
    """Photos, and how they are colorized."""

    files = List(File(), required=True, validate=Length(1), metadata={"description": "the photos"})


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


class ColorizeOut(Schema):
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


class ListedResultOut(ResultOut):
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
    of = services().results
    found, total = of.page(**query_data)
    return {"results": [{**of.answer(r), "created": r.created, "job": r.job_id} for r in found], "total": total}


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
    of = services().results
    if (found := of.get(result_id)) is None:
        raise Problem(404, "there is no such result, or it has expired")
    if found.job_id is not None:
        raise Problem(409, "it belongs to a job; delete that")
    of.remove([found])
    return "", 204


def _preview(id: str, side: int) -> Response:
    of = services().results
    if (found := of.get(id)) is None:
        raise Problem(404, "there is no such result, or it has expired")
    response = Response(mimetype="image/jpeg")
    response.set_etag(f"{id}-{side}")
    response.headers["Cache-Control"] = "private, max-age=86400"  # a result never changes
    if request.if_none_match.contains(f"{id}-{side}"):
        response.status_code = 304
    else:
        response.data = previews.preview(Upload(found.name, of.path(found)), side)
    return response


def _file(id: str, download: bool = False) -> Response:
    results = services().results
    if (found := results.get(id)) is None:
        raise Problem(404, "there is no such result, or it has expired")
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
