"""The documentation: commands that work, examples that are true, a site that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import forks
import pytest
import yaml
from conftest import finish

import colorization
from colorization.core.runs import Run

TOP = Path(__file__).resolve().parents[1]
DOCS = TOP / "docs"


def fences(name: str) -> list[tuple[str, str]]:
    """The language and the text of each fenced block of a document."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def write_files(name: str, folder: Path) -> None:
    """The files that a document shows, each with its name in a comment."""
    for _, text in fences(name):
        if named := re.search(r"^# (\S+\.(?:yaml|py))$", text, re.MULTILINE):
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(text, encoding="utf-8")


def run_all(name: str, folder: Path) -> str:
    """What the commands of a document print, one after the other in one shell that ends with the first that fails."""
    script = "".join(text for language, text in fences(name) if language == "sh")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def run_forked(name: str, folder: Path) -> str:
    """As :func:`run_all`, one command a line; those that import torch are forked from a process that has done so."""
    exports, said = "", ""
    for line in "".join(text for language, text in fences(name) if language == "sh").splitlines():
        if line.startswith("export "):
            exports += f"{line}\n"
            continue
        script = f"{exports}printf '%s\\0' {line}"
        told = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout
        command, *arguments = told.split("\0")[:-1]
        if command == "python":
            flag, module, *arguments = arguments
            assert flag == "-m"
            code = f"import runpy, sys; sys.path.insert(0, ''); runpy.run_module('{module}', run_name='__main__')"
            said += finish(forks.Process(folder, *arguments, code=code))
        else:
            command = str(Path(sys.executable).parent / command)
            said += subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout
    return said


@pytest.mark.slow
def test_the_first_photo(tmp_path: Path, photo_bytes: Callable[..., bytes]) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo_bytes(128))
    run_all("first-photo.md", tmp_path)
    (python,) = (text for language, text in fences("first-photo.md") if language == "python")
    subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True)
    made = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()} - {"photo.jpg"}
    closer = {"look/closer.jpg", "look/closer-strip.jpg", "look/closer-uncertainty.png"}
    assert made == {"colour.jpg", "python.png", "look/safe.jpg", "look/bold.jpg", *closer}


@pytest.mark.slow
def test_the_archive_guide(tmp_path: Path, photo_bytes: Callable[..., bytes]) -> None:
    for name in ("1950/a.jpg", "1950/b.jpg", "c.jpg"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(photo_bytes(128))
    run_all("archive.md", tmp_path)
    assert (tmp_path / "colour" / "1950" / "b.jpg").is_file()
    assert (tmp_path / "report.txt").read_text(encoding="utf-8")

    (tmp_path / "scans" / "damaged.jpg").write_bytes(photo_bytes(128)[:200])
    command = [Path(sys.executable).parent / "colorize", "scans", "-o", "colour", "--recursive"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 1
    (failed,) = (text for _, text in fences("archive.md") if "failed" in text)
    told = subprocess.run(["bash", "-c", failed.replace("python ", f"{sys.executable} ")], cwd=tmp_path, stdout=-1)
    assert told.stdout.decode().startswith("scans/damaged.jpg ")


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path, photo_bytes: Callable[..., bytes]) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(24):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(photo_bytes(96 + i))
    for name in ("tutorial.md", "extending.md"):
        write_files(name, tmp_path)
    for folder in ("tintlab", "tintlab/configs"):
        (tmp_path / folder / "__init__.py").touch()
    told = run_forked("tutorial.md", tmp_path)
    assert "Automatic colorization of photographs" in told  # the model card
    assert len(list((tmp_path / "colour").glob("*.jpg"))) == 3

    # The examples of the run folder have the fields of a real one.
    run = Run(tmp_path / "outputs" / "runs" / "first")
    split = run.split()
    assert split is not None
    examples = [json.loads(text) for language, text in fences("run-folder.md") if language == "json"]
    for example, true in zip(examples, (run.status(), run.metrics()[0], split["photos"][0]), strict=True):
        assert list(example) == list(true)
    (python,) = (text for language, text in fences("run-folder.md") if language == "python")
    listed = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "first finished" in listed.stdout


def test_the_citation_is_that_of_the_cff() -> None:
    cff = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))
    ((_, bibtex),) = (fence for fence in fences("cite.md") if fence[0] == "bibtex")
    fields = dict(re.findall(r"(\w+) += \{+(.*?)\}+,?$", bibtex, re.MULTILINE))
    (author,) = cff["authors"]
    assert fields == {"title": cff["title"], "author": author["name"], "version": cff["version"]}
    assert cff["version"] == colorization.__version__
    assert f": {cff['version']}\n" in (TOP / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_loads_nothing_from_elsewhere(hooks: ModuleType) -> None:
    for tag in ('<script async src="https://a.example/b.js">', "<img alt=x src=//a.example/b.png>"):
        assert hooks.LOADED.search(f"<p>{tag}</p>"), tag
    assert not hooks.LOADED.search('<a href="https://a.example"> <img src="../b.png">')


@pytest.mark.parametrize(
    ("text", "passes"), [("# A\n\n[to](#a)", True), ("# A\n\n[to](#b)", False), ("# A\n\n[to](b.md)", False)]
)
def test_a_broken_link_breaks_the_build(tmp_path: Path, text: str, passes: bool) -> None:
    for name in ("docs/hooks.py", "docs/assets/site.css", "frontend/public/favicon.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, tmp_path / name)
    (tmp_path / "src").mkdir()
    config = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    without_nav = re.sub(r"^nav:.*?(?=^not_in_nav)", "", config, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "mkdocs.yml").write_text(without_nav, encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text(text, encoding="utf-8")
    ran = subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode == 0) is passes, ran.stderr
    assert passes or "index.md" in ran.stderr
