"""The app: ``create_app(settings)``.

Request -> :mod:`.security` (host, token, origin, rate) -> a blueprint of ``routes/`` -> a service of
:mod:`.services` -> JSON, or a problem (:mod:`.problems`).
"""

from __future__ import annotations

import logging

from apiflask import APIFlask
from apiflask.schema_adapters.marshmallow import parser
from flask import Response, request

from colorization import __version__
from colorization.api import services
from colorization.api.http import description, problems, security
from colorization.api.routes import (
    colorize,
    docs,
    history,
    jobs,
    metrics,
    models,
    schema,
    session,
    system,
    training,
    web,
)
from colorization.api.settings import MEGA, Settings

log = logging.getLogger(__name__)

BLUEPRINTS = tuple(
    m.blueprint for m in (training, colorize, metrics, models, schema, history, jobs, system, session, docs)
)

parser.unknown = None  # unknown fields are refused, also in queries, as each schema says


def create_app(settings: Settings) -> APIFlask:
    """The app with its services running; ``app.extensions["colorization"].close()`` ends them.

    Raises:
        InputError: see :func:`colorization.api.services.build`.
    """
    app = APIFlask(
        "colorization.api",
        title="colorization",
        version=__version__,
        spec_path="/api/openapi.json",
        docs_path=None,
        static_folder=None,  # type: ignore[arg-type]
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config.update(
        OPENAPI_VERSION="3.0.3",
        DESCRIPTION="Automatic colorization of photographs: colorize, evaluate, train, browse.",
        MAX_CONTENT_LENGTH=settings.batch_mb * MEGA,
        MAX_FORM_MEMORY_SIZE=MEGA,
        MAX_FORM_PARTS=settings.batch_files + 100,
        AUTO_404_RESPONSE=True,
        AUTO_OPERATION_ID=True,
        VALIDATION_ERROR_SCHEMA=problems.SCHEMA,
        HTTP_ERROR_SCHEMA=problems.SCHEMA,
        TRAP_HTTP_EXCEPTIONS=False,
    )
    security.register(app, settings)
    problems.register(app)
    app.extensions["colorization"] = services.build(settings)
    if settings.debug:
        app.after_request(_log)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint, url_prefix="/api")
    description.register(app)
    web.register(app)
    return app


def _log(response: Response) -> Response:
    log.info("%s %s %d", request.method, request.path, response.status_code)
    return response
