"""Jobs: work that continues after its request was answered, see :mod:`colorization.api.storage.jobs`."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Dict, Integer, List, Nested, String
from apiflask.validators import OneOf
from flask import Response, url_for

from colorization.api.http.problems import Problem
from colorization.api.http.sse import last_event_id
from colorization.api.routes.fields import BINARY, EVENTS, PageIn
from colorization.api.services import services
from colorization.api.storage.database import JOB_STATES, Job
from colorization.api.storage.jobs import ENDED, item_event

blueprint = APIBlueprint("jobs", __name__, tag="Jobs")

ITEM_STATES = ("waiting", "done", "failed")


class JobOut(Schema):
    """Work that goes on after its request was answered."""

    id = String(required=True)
    kind = String(required=True, metadata={"example": "batch"})
    state = String(required=True, validate=OneOf(JOB_STATES))
    created = String(required=True, metadata={"format": "date-time"})
    started = String(required=True, allow_none=True, metadata={"format": "date-time"})
    ended = String(required=True, allow_none=True, metadata={"format": "date-time"})
    done = Integer(required=True, metadata={"description": "of total"})
    total = Integer(required=True, metadata={"description": "0 until it is known"})
    result = Dict(required=True, allow_none=True, metadata={"description": "what came of it, once it is finished"})
    error = String(required=True, allow_none=True, metadata={"description": "why it failed"})
    url = String(required=True, metadata={"example": "/api/jobs/0123456789abcdef0123456789abcdef"})
    stream = String(required=True, metadata={"description": "its progress as server-sent events"})


class ItemOut(Schema):
    """One file of a job."""

    number = Integer(required=True, metadata={"description": "from 0, in the order of the request"})
    name = String(required=True, metadata={"description": "as the client called it"})
    state = String(required=True, validate=OneOf(ITEM_STATES))
    error = String(required=True, allow_none=True, metadata={"description": "why it failed"})
    result = Dict(required=True, allow_none=True, metadata={"description": "what came of it"})


class JobWithItemsOut(JobOut):
    """A job, and a page of its files."""

    items = List(Nested(ItemOut), required=True)
    items_total = Integer(required=True)


class JobsOut(Schema):
    """A page of jobs."""

    jobs = List(Nested(JobOut), required=True)
    total = Integer(required=True, metadata={"description": "of all pages"})


class JobsIn(PageIn):
    """Which jobs."""

    kind = String(validate=OneOf(("batch", "evaluate", "compare")))
    state = String(validate=OneOf(JOB_STATES))


def answer(job: Job) -> dict[str, Any]:
    """A job as :class:`JobOut` tells it; also the body of a 202."""
    names = ("id", "kind", "state", "created", "started", "ended", "done", "total", "result", "error")
    return {
        **{name: getattr(job, name) for name in names},
        "url": url_for("jobs.job", job_id=job.id),
        "stream": url_for("jobs.stream", job_id=job.id),
    }


def find(job_id: str) -> Job:
    """The job, or 404."""
    if (job := services().jobs.get(job_id)) is None:
        raise Problem(404, "there is no such job")
    return job


@blueprint.get("/jobs")
@blueprint.input(JobsIn, location="query")
@blueprint.output(JobsOut)
def jobs(query_data: dict[str, Any]) -> dict[str, Any]:
    """All jobs, the newest first."""
    found, total = services().jobs.page(**query_data)
    return {"jobs": [answer(job) for job in found], "total": total}


@blueprint.get("/jobs/<job_id>")
@blueprint.input(PageIn, location="query")
@blueprint.output(JobWithItemsOut)
@blueprint.doc(responses={404: "There is no such job"})
def job(job_id: str, query_data: dict[str, Any]) -> dict[str, Any]:
    """A job, and a page of its files."""
    found = find(job_id)
    items, total = services().jobs.items(job_id, **query_data)
    return {**answer(found), "items": [item_event(item) for item in items], "items_total": total}


STREAM_RESPONSES: Any = {
    "200": EVENTS,
    "204": {"description": "The job has ended, and Last-Event-ID is its last event"},
    "404": {"description": "There is no such job"},
    "503": {"description": "Too many streams are open"},
}

DELETE_RESPONSES: Any = {
    "204": {"description": "The job is deleted"},
    "404": {"description": "There is no such job"},
}
ARCHIVE_RESPONSES: Any = {
    "200": {
        "description": "The archive",
        "content": {"application/zip": BINARY},
    },
    "404": {"description": "There is no such job, or it has no results"},
    "409": {"description": "The job has not ended"},
}


@blueprint.get("/jobs/<job_id>/stream")
@blueprint.doc(responses=STREAM_RESPONSES)
def stream(job_id: str) -> Response:
    """A job's progress as server-sent events.

    Events of type `state` (`{"state", "result" or "error"}`), `progress` (`{"done", "total"}`) and `item` (as in
    `GET /api/jobs/{job_id}`). With `Last-Event-ID` (or `?last_event_id=`) those after it. Ends with the job.
    """
    found, of = find(job_id), services().jobs
    last = last_event_id()
    if last and found.state in ENDED and not list(of.events(job_id, last)):
        return Response(status=204)  # stops an EventSource from connecting again
    return services().streams.response(lambda last: of.events(job_id, last))


@blueprint.delete("/jobs/<job_id>")
@blueprint.output(JobOut, status_code=202, description="The job is being cancelled")
@blueprint.doc(responses=DELETE_RESPONSES)
def delete(job_id: str) -> Any:
    """Cancel a job; delete one that has ended, with its results."""
    found, of = find(job_id), services().jobs
    if of.cancel(job_id):
        return answer(find(job_id))
    services().colorize.delete(found.id)
    return "", 204


@blueprint.post("/jobs/<job_id>/pause")
@blueprint.output(JobOut)
@blueprint.doc(responses={404: "There is no such job", 409: "It is no batch, or has ended"})
def pause(job_id: str) -> dict[str, Any]:
    """Pause a batch; the photos in hand are finished."""
    if find(job_id).kind != "batch" or not services().jobs.pause(job_id):
        raise Problem(409, "only a batch that has not ended can be paused")
    return answer(find(job_id))


@blueprint.post("/jobs/<job_id>/resume")
@blueprint.output(JobOut)
@blueprint.doc(responses={404: "There is no such job", 409: "It is not paused"})
def resume(job_id: str) -> dict[str, Any]:
    """Go on with a paused batch."""
    find(job_id)
    if not services().jobs.resume(job_id):
        raise Problem(409, "the job is not paused")
    return answer(find(job_id))


@blueprint.post("/jobs/<job_id>/retry")
@blueprint.output(JobOut)
@blueprint.doc(responses={404: "There is no such job", 409: "It has not ended, or has no file to try again"})
def retry(job_id: str) -> dict[str, Any]:
    """Try those files of an ended batch again that failed or were not done; refused ones were not stored."""
    if find(job_id).kind != "batch" or not services().jobs.retry(job_id):
        raise Problem(409, "only an ended batch can be tried again, and only files that were stored and are not done")
    return answer(find(job_id))


@blueprint.get("/jobs/<job_id>/archive")
@blueprint.doc(responses=ARCHIVE_RESPONSES)
def archive(job_id: str) -> Response:
    """The results of an ended job as a `.zip`, streamed."""
    found, results = find(job_id), services().results
    if found.state not in ENDED:
        raise Problem(409, "the job has not ended")
    if not results.of_job(job_id):
        raise Problem(404, "the job has no results, or they have expired")
    response = Response(results.archive(job_id), mimetype="application/zip")
    response.headers.set("Content-Disposition", "attachment", filename=f"{found.kind}-{found.id[:8]}.zip")
    response.headers["Cache-Control"] = "no-store"
    return response
