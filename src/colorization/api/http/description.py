"""Parts of ``openapi.json`` beyond the schemas of the routes: errors, the token."""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask

from colorization.api.http import problems, security

# Answers of the checks of :mod:`~colorization.api.http.security` to any request.
ANYWHERE = {
    "400": "The request cannot be read.",
    "403": "The request comes from the page of another site.",
    "421": "The Host header names another server.",
    "429": "Too many requests; Retry-After has the seconds.",
}


def register(app: APIFlask) -> None:
    """Complete the description of ``app``; a server without a token asks for none in its description either."""
    protected = app.extensions["colorization.access"].token is not None
    app.spec_processor(lambda spec: _complete(spec, protected))


def _complete(spec: Any, protected: bool) -> Any:
    schemas = spec["components"]["schemas"]
    schemas["Problem"] = problems.SCHEMA
    for unused in ("HTTPError", "ValidationError"):  # each error is a Problem
        schemas.pop(unused, None)
    spec["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "What the server printed, or COLORIZATION_TOKEN."},
        "session": {"type": "apiKey", "in": "cookie", "name": security.COOKIE, "description": "By POST /api/session."},
    }
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            is_open = not protected or path in security.OPEN
            operation["security"] = [] if is_open else [{"token": []}, {"session": []}]
            responses = operation["responses"]
            for status, description in ANYWHERE.items():
                if not (status == "429" and path == "/api/health"):
                    responses.setdefault(status, {"description": description})
            if not is_open:
                responses.setdefault("401", {"description": "The token is missing or wrong."})
            if body := operation.get("requestBody"):
                kinds = [kind["schema"] for kind in body["content"].values()]
                named = [schemas[k["$ref"].rpartition("/")[2]] if "$ref" in k else k for k in kinds]
                body["required"] = any(schema.get("required") for schema in named)
                responses.setdefault("413", {"description": "The request is larger than this server takes."})
            for status, response in responses.items():
                if status >= "400":
                    schema = {"$ref": "#/components/schemas/Problem"}
                    response["content"] = {problems.CONTENT_TYPE: {"schema": schema}}
            operation["responses"] = dict(sorted(responses.items()))
    return spec
