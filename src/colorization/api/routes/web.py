"""The web app, as ``make web`` built it into ``colorization/web``: its pages, its files, its own not-found page."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from apiflask import APIBlueprint, APIFlask
from flask import Response, request, send_from_directory

from colorization.api.http import problems

# frontend/src/components/shell/pages.ts has the same; Prometheus asks /api/prometheus, for /metrics is a page.
PAGES = ("/", "/training", "/colorize", "/metrics", "/compare", "/history", "/batch")
UNBUILT = "The web app is not built (`make web`, with Node.js); the API is at /api, its description at /api/docs.\n"
YEAR = 365 * 24 * 3600

blueprint = APIBlueprint("web", __name__, enable_openapi=False)


def folder() -> Path:
    """Where the built app lies."""
    return Path(str(resources.files("colorization") / "web"))


def is_built() -> bool:
    """Whether there is an app to serve."""
    return (folder() / "index.html").is_file()


def page(status: int = 200) -> Response:
    """The app, which looks at the address itself. Asked for anew each time, for it names the files of one build."""
    if not is_built():
        return Response(UNBUILT, status, mimetype="text/plain")
    response = send_from_directory(folder(), "index.html")
    response.status_code = status
    response.headers["Cache-Control"] = "no-cache"
    return response


def index() -> Response:
    """One of the pages."""
    return page()


for _path in PAGES:
    blueprint.add_url_rule(_path, "index", index)


@blueprint.get("/assets/<file>")
def asset(file: str) -> Response:
    """A file whose name has its content's hash: it never changes."""
    response = send_from_directory(folder() / "assets", file, max_age=YEAR)
    response.cache_control.public = True
    response.cache_control.immutable = True
    return response


@blueprint.get("/<any('favicon.svg', 'theme.js'):file>")
def root_file(file: str) -> Response:
    """A file that keeps its name from build to build."""
    response = send_from_directory(folder(), file)
    response.headers["Cache-Control"] = "no-cache"
    return response


def register(app: APIFlask) -> None:
    """Serve the web app; unknown addresses beside the API get its not-found page where a browser asks."""
    app.register_blueprint(blueprint)

    @app.after_request
    def not_found_page(response: Response) -> Response:
        elsewhere = request.path.startswith(("/api", "/assets/"))
        asked = request.accept_mimetypes.best_match([problems.CONTENT_TYPE, "text/html"]) == "text/html"
        if response.status_code == 404 and asked and not elsewhere and is_built():
            return page(404)
        return response
