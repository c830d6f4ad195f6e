"""The documents' lines of curl, all of them, in their order, against a real server; and that no link leads nowhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

TOP = Path(__file__).resolve().parents[1]
LINES = re.findall(r"^\| `(curl .+?)` \|", (TOP / "docs" / "serve.md").read_text(encoding="utf-8"), re.MULTILINE)
# What a short batch may have been too quick for, or has none of.
MAY_CONFLICT = re.compile(r"/jobs/\$JOB/(pause|resume|retry)$")


FOLDERS = ("", "benchmarks/", "docs/", "experiments/**/", "frontend/", "weights/")
DOCUMENTS = [file for folder in FOLDERS for file in TOP.glob(f"{folder}*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(TOP)))
def test_every_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, _, part in (t.partition("#") for t in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)):
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), target
        if part and file.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in [re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads], part


def test_every_route_has_a_line(make_app: Callable[..., Any]) -> None:
    told = set()
    for line in LINES:
        path = re.search(r"\$URL(/[^\s\"?]*)", line)[1]  # type: ignore[index]
        method = "POST" if "-F" in line or "--json" in line else (re.search(r"-X (\w+)", line) or ("", "GET"))[1]
        told.add((method, path))
    for path, operations in make_app().spec["paths"].items():
        pattern = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path))
        for method in operations:
            assert any(m == method.upper() and pattern.fullmatch(p) for m, p in told), (method, path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_every_line_works(server: Any, photo_bytes: Callable[..., bytes]) -> None:
    (server.folder / "data" / "photos").mkdir(parents=True)
    for name in ("photo.jpg", "other.jpg", "data/photos/a.jpg", "data/photos/b.jpg"):
        (server.folder / name).write_bytes(photo_bytes(128))
    server.start()
    values = {"URL": server.url, "COLORIZATION_TOKEN": "a-token-of-tests-only"}
    for line in LINES:
        for name in re.findall(r"\$([A-Z_]+)", line):
            assert name in values, f"{line}: nothing before it told ${name}"
        script = "curl() { command curl --silent --show-error --max-time 300 --write-out '\\n%{http_code}' \"$@\"; }\n"
        ran = subprocess.run(
            ["sh", "-c", script + line], env={"PATH": "/usr/bin:/bin", **values}, cwd=server.folder, capture_output=True
        )
        body, _, status = ran.stdout.decode().rpartition("\n")
        assert ran.returncode == 0, (line, ran.stderr)
        assert status.startswith("2") or (MAY_CONFLICT.search(line) and status == "409"), (line, status, body)
        remember(values, body)
    for name in ("colour.jpg", "result.jpg", "sample.png"):
        assert (server.folder / name).read_bytes()[:3] in (b"\xff\xd8\xff", b"\x89PN"), name
    assert (server.folder / "results.zip").read_bytes()[:2] == b"PK"


def remember(values: dict[str, str], body: str) -> None:
    """The ids that an answer tells; a job of an evaluation is waited for, and a run that was asked to stop."""
    try:
        answer = json.loads(body)
    except ValueError:
        return
    if "kind" in answer and "stream" in answer:
        values["JOB"] = answer["id"]
        if answer["kind"] != "batch":
            events = requests.get(values["URL"] + answer["stream"], timeout=300).text
            assert '"finished"' in events, events
    elif "resumable" in answer:
        values["RUN"] = answer["id"]
        if answer["stopping"]:
            requests.get(values["URL"] + answer["stream"], timeout=300)
    elif isinstance(answer.get("result"), dict):
        values["RESULT"] = answer["result"]["id"]
    elif answer.get("evaluations"):
        values["EVALUATION"] = answer["evaluations"][0]["id"]
    elif answer.get("samples"):
        values["SAMPLE"] = answer["samples"][0]["name"]
