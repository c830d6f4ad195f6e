"""The web app as the server gives it out; its own tests are in frontend/."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colorization.api.routes import web

FRONTEND = Path(__file__).parents[1] / "frontend"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a built app."""
    folder = tmp_path / "web"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>the app</title>")
    (folder / "theme.js").write_text("// theme")
    (folder / "favicon.svg").write_text("<svg/>")
    (folder / "assets" / "index-0123.js").write_text("// script")
    monkeypatch.setattr(web, "folder", lambda: folder)
    return folder


def test_every_page_of_the_app_is_an_address_of_the_server(make_app: Callable[..., Any], built: Path) -> None:
    pages = (FRONTEND / "src" / "components" / "shell" / "pages.ts").read_text()
    paths = re.findall(r"path: '([^']+)'", pages)
    assert sorted(paths) == sorted(web.PAGES) and len(paths) == 7
    client = make_app().test_client()
    for path in paths:
        answer = client.get(path, headers=BROWSER)
        assert answer.status_code == 200 and "the app" in answer.text and answer.mimetype == "text/html", path
        assert answer.headers["Cache-Control"] == "no-cache"


def test_files_of_a_build_are_kept_and_those_with_fixed_names_asked_for(
    make_app: Callable[..., Any], built: Path
) -> None:
    client = make_app().test_client()
    script = client.get("/assets/index-0123.js")
    assert script.status_code == 200 and script.mimetype == "text/javascript"
    assert {"immutable", "max-age=31536000", "public"} <= set(script.headers["Cache-Control"].split(", "))
    assert client.get("/theme.js").headers["Cache-Control"] == "no-cache"
    assert client.get("/favicon.svg").mimetype == "image/svg+xml"
    for path in ("/assets/../index.html", "/assets/%2e%2e/index.html", "/assets/..%2findex.html", "/manifest.json"):
        assert client.get(path).status_code == 404, path


def test_unknown_addresses_are_the_apps_not_found_page_but_problems_of_the_api(
    make_app: Callable[..., Any], built: Path
) -> None:
    client = make_app().test_client()
    answer = client.get("/nowhere/at/all", headers=BROWSER)
    assert answer.status_code == 404 and "the app" in answer.text
    for path, headers in (("/api/nope", BROWSER), ("/assets/nope.js", BROWSER), ("/nowhere", {"Accept": "*/*"})):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 404 and answer.content_type == "application/problem+json", path


def test_a_server_without_the_app_says_so(
    make_app: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "folder", lambda: tmp_path / "nothing")
    client = make_app().test_client()
    answer = client.get("/", headers=BROWSER)
    assert answer.mimetype == "text/plain" and "make web" in answer.text and answer.text.count("\n") == 1
    assert client.get("/nowhere", headers=BROWSER).content_type == "application/problem+json"


def test_the_client_knows_the_api_as_it_is(make_app: Callable[..., Any]) -> None:
    committed = json.loads((FRONTEND / "openapi.json").read_text())
    assert committed == json.loads(json.dumps(make_app().spec)), "run `make client`"


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((FRONTEND / "package-lock.json").read_text())["packages"]
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    # What is bundled lies inside a package that has its own.
    assert not [n for n, entry in packages.items() if n and not ("integrity" in entry or entry.get("inBundle"))]
