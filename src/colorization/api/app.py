"""The app: ``create_app(settings)``.

Request -> :mod:`~colorization.api.security` (host, token, origin, rate) -> a blueprint of ``routes/`` -> a service of
:mod:`~colorization.api.services` -> JSON, or a problem (:mod:`~colorization.api.problems`).
"""

from __future__ import annotations

from typing import Any

from apiflask import APIFlask
from apiflask.schema_adapters.marshmallow import parser
from flask import Response

from colorization import __version__
from colorization.api import problems, security, services
from colorization.api.routes import colorize, history, jobs, metrics, models, system, training
from colorization.api.settings import MEGA, Settings

BLUEPRINTS = tuple(m.blueprint for m in (training, colorize, jobs, metrics, models, history, system))

parser.unknown = None  # what a schema does not know is refused in queries, too, as each schema says


def create_app(settings: Settings) -> APIFlask:
    """The app with its services running; ``app.extensions["colorization"].close()`` ends them.

    Raises:
        InputError: see :func:`colorization.api.services.build`.
    """
    app = APIFlask("colorization.api", title="colorization", version=__version__, spec_path=None, docs_path=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config.update(
        OPENAPI_VERSION="3.0.3",
        DESCRIPTION="Automatic colorization of photographs: colorize, evaluate, train, browse.",
        MAX_CONTENT_LENGTH=settings.batch_mb * MEGA,
        MAX_FORM_MEMORY_SIZE=MEGA,
        MAX_FORM_PARTS=settings.batch_files + 100,
        AUTO_404_RESPONSE=True,
        VALIDATION_ERROR_SCHEMA=problems.SCHEMA,
        HTTP_ERROR_SCHEMA=problems.SCHEMA,
        TRAP_HTTP_EXCEPTIONS=False,
    )
    app.extensions["colorization"] = services.build(settings)
    problems.register(app)
    security.register(app, settings)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint, url_prefix="/api")

    @app.spec_processor
    def errors_are_problems(spec: Any) -> Any:
        for path in spec["paths"].values():
            for operation in path.values():
                for status, response in operation.get("responses", {}).items():
                    if status >= "400" and "application/json" in response.get("content", {}):
                        response["content"][problems.CONTENT_TYPE] = response["content"].pop("application/json")
        return spec

    @app.get("/")
    @app.doc(hide=True)
    def index() -> Response:
        """Until the web app is here."""
        text = "colorization: the web app is not built yet. The API is at /api, its description at /api/docs.\n"
        return Response(text, mimetype="text/plain")

    return app
