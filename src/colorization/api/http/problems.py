"""Errors as RFC 9457 problem details: one JSON object with a sentence, never a stack trace or a path of the server."""

from __future__ import annotations

import logging
from typing import Any

from apiflask import APIFlask, HTTPError
from flask import Response, json, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.http import HTTP_STATUS_CODES

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
# Of an error; ``errors`` names each field that was wrong with its reasons.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "example": "about:blank"},
        "title": {"type": "string", "example": "Unprocessable Content"},
        "status": {"type": "integer", "example": 422},
        "detail": {"type": "string", "example": "size: should be 32 pixels or more"},
        "errors": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
    },
}


class Problem(HTTPError):
    """End the request with this status and sentence.

    Args:
        status: of HTTP.
        detail: one sentence for the person.
        errors: field -> reasons.
        retry_after: seconds after which it is worth trying again.
    """

    def __init__(
        self, status: int, detail: str, errors: dict[str, list[str]] | None = None, retry_after: int | None = None
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, detail, detail={"fields": errors} if errors else {}, headers=headers)


def invalid(field: str, reason: str) -> Problem:
    """422 for one field."""
    return Problem(422, f"{field}: {reason}", {field: [reason]})


def _response(status: int, detail: str, errors: dict[str, list[str]] | None = None, headers: Any = None) -> Response:
    title = HTTP_STATUS_CODES.get(status, "Error")
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = errors
    response = Response(json.dumps(body) + "\n", status, content_type=CONTENT_TYPE)
    response.headers.extend(headers or {})
    return response


def _flattened(messages: Any, prefix: str = "") -> dict[str, list[str]]:
    """Marshmallow's nested messages as field -> reasons; the place of the field (json, form, ...) is left out."""
    if not isinstance(messages, dict):
        return {prefix: [str(m) for m in (messages if isinstance(messages, list) else [messages])]}
    found: dict[str, list[str]] = {}
    for key, value in messages.items():
        for name, reasons in _flattened(value, f"{prefix}.{key}" if prefix else str(key)).items():
            found.setdefault(name, []).extend(reasons)
    return found


def _handle(error: HTTPError) -> Response:
    fields = None
    detail = error.message or HTTP_STATUS_CODES.get(error.status_code, "")
    if isinstance(error.detail, dict) and "fields" in error.detail:
        fields = error.detail["fields"]
    elif error.detail and isinstance(error.detail, dict):  # marshmallow's, by the place of the field
        fields = {}
        for place in error.detail.values():
            for name, reasons in _flattened(place).items():
                fields.setdefault(name.removeprefix("_schema."), []).extend(reasons)
        detail = "; ".join(f"{name}: {' '.join(reasons)}" for name, reasons in fields.items())
    return _response(error.status_code, detail, fields, error.headers)


def register(app: APIFlask) -> None:
    """Answer every error of ``app`` this way."""
    app.error_callback = _handle

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        if error.response is not None:
            return error.response  # type: ignore[return-value]
        status = error.code or 500
        detail = str(error.description or "")
        if isinstance(error, RequestEntityTooLarge):
            detail = "the request is larger than this server takes"
        kept = {k: v for k, v in error.get_headers(request.environ) if k in ("Allow", "Retry-After")}
        return _response(status, detail, headers=kept)

    @app.before_request
    def json_can_be_read() -> None:
        """Errors beyond the parser of the schemas: endless nesting, numbers of 5,000 digits, half characters."""
        if not request.is_json or not (body := request.get_data()):
            return
        try:
            json.dumps(json.loads(body), ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise Problem(400, "the JSON of the request cannot be read") from error

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        log.exception("%s %s", request.method, request.path, exc_info=error)
        return _response(500, "something went wrong in the server; its log has the details")
