"""The page that shows ``openapi.json`` and tries it: Swagger UI's own files, from this server alone."""

from __future__ import annotations

from pathlib import Path

import swagger_ui_bundle
from apiflask import APIBlueprint
from flask import Response, send_from_directory

from colorization.api.http.problems import Problem

blueprint = APIBlueprint("docs", __name__, enable_openapi=False)

FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
# No script and no style stands in the page: the Content-Security-Policy lets none run there.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>colorization: REST API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""


@blueprint.get("/docs")
def page() -> Response:
    """The page."""
    return Response(PAGE, mimetype="text/html")


@blueprint.get("/docs/<name>")
def file(name: str) -> Response:
    """What the page loads."""
    if name == "start.js":
        return Response(START, mimetype="text/javascript")
    if name not in FILES:
        raise Problem(404, "there is no such file")
    return send_from_directory(Path(swagger_ui_bundle.swagger_ui_path), name, max_age=3600)
