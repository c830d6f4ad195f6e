"""Hooks of MkDocs: the site is made of the repository's own documents, and of pages that its code and its data write.

A page keeps its path in the repository (``docs/train.md``, ``weights/README.md``), so that one link works on a Git host
and on the site. What else of the repository a page links to (sources, settings, notebooks, folders) gets a page that
shows it. ``<!-- name -->`` in a page is replaced by what :data:`GENERATED` makes.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from colorization.evaluation import catalog

ROOT = Path(__file__).resolve().parents[1]
# Beside docs/. tests/test_readme.py follows the links of these same documents as files.
DOCUMENTS = ("*.md", "benchmarks/*.md", "experiments/**/*.md", "frontend/*.md", "weights/*.md")
ICON = "frontend/public/favicon.svg"
AS_THEY_ARE = (".md", ".jpg", ".png", ".svg", ".gz", ".json")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".sh": "sh"}
LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>[.~]?([^<]+)</code>")  # Sphinx's, as Markdown leaves it
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every page under its path in the repository, and a page for whatever they link to."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
            files.append(_file(f"docs/{file.src_uri}", config, file.dest_uri, file.inclusion))
    for document in sorted(file for pattern in DOCUMENTS for file in ROOT.glob(pattern)):
        uri = document.relative_to(ROOT).as_posix()
        files.append(_file(uri, config, "readme.html" if uri == "README.md" else None))
    files.append(_file(ICON, config))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for page in pages:  # it grows
        for _, target in LINK.findall(page.content_string):
            path = _target(page.src_uri, target)
            if path is None or _shown_as(path) in files.src_uris:
                continue
            uri = _shown_as(path)
            if uri == path:
                files.append(_file(uri, config))
            else:
                files.append(File.generated(config, uri, content=_view(path)))
                pages.append(files.src_uris[uri])
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to where their targets are shown, and what is generated; a search finds studies, not their tables."""
    if page.file.src_uri.startswith("experiments/") and not page.file.src_uri.endswith("/README.md"):
        page.meta["search"] = {"exclude": True}

    def shown(link: re.Match[str]) -> str:
        path = _target(page.file.src_uri, link[2])
        if path is None:
            return link[0]
        return link[1] + posixpath.relpath(_shown_as(path), posixpath.dirname(page.file.src_uri) or ".")

    markdown = LINK.sub(shown, markdown).replace("<details>", "<details markdown>")
    return re.sub(r"^<!-- ([a-z]+) -->$", lambda name: "\n".join(GENERATED[name[1]]()), markdown, flags=re.MULTILINE)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Docstrings without Sphinx's roles, and tables without the backslashes that pipes in their code need."""
    html = re.sub(r"<td.*?</td>", lambda cell: cell[0].replace("\\|", "|"), html, flags=re.DOTALL)
    return ROLE.sub(r"<code>\1</code>", html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Nothing is loaded from elsewhere."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri}: would load {found[1]}")
    return output


def _file(uri: str, config: MkDocsConfig, dest_uri: str | None = None, inclusion: Any = None) -> File:
    extra = {} if inclusion is None else {"inclusion": inclusion}
    return File(uri, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=dest_uri, **extra)


def _target(page: str, link: str) -> str | None:
    """The path in the repository that a page's link leads to; ``None`` where there is nothing."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return path if (ROOT / path).exists() and not path.startswith("..") else None


def _shown_as(path: str) -> str:
    """Under which path the site has a file or folder of the repository."""
    if (ROOT / path).is_dir():
        return f"{path}/README.md" if (ROOT / path / "README.md").exists() else f"{path}/index.md"
    return path if path.endswith(AS_THEY_ARE) else f"{path}.md"


def _view(path: str) -> str:
    """A page that shows a folder, a notebook or a text."""
    file = ROOT / path
    head = f"---\ntitle: {path}\nsearch: {{exclude: true}}\nhide: [toc]\n---\n"
    if file.is_dir():
        inside = sorted(p for p in file.iterdir() if not p.name.startswith((".", "__")))
        return head + f"# {path}\n\n" + "\n".join(f"- [{p.name}]({p.name})" for p in inside)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"])
        return head + "\n\n".join(source if kind == "markdown" else _fenced(source, "python") for kind, source in cells)
    return head + f"# {path}\n\n" + _fenced(text, LANGUAGES.get(file.suffix, "text"))


def _fenced(text: str, language: str) -> str:
    return f"``````{language}\n{text.rstrip()}\n``````"


def _catalog() -> Iterator[str]:
    """The figures of an evaluation as a table: headings, names, which way is better, definitions."""
    yield "| figure | name | better | definition |\n|---|---|---|---|"
    rows = [(m.heading, m.name, m.better or "nearer to the truth's", m.form) for m in catalog.METRICS]
    rows.append(("KID x 1000 ↓", "kid", "lower", catalog.KID_FORM))
    for heading, name, better, form in rows:
        yield f"| {heading} | `{name}` | {better} | {_cell(form)} |"
    hidden = ", ".join(f"`{m.name}`" for m in catalog.METRICS if not m.shown)
    yield f"\nIn the table only where `columns=` asks for them: {hidden}."


def _routes() -> Iterator[str]:
    """The REST API by ``frontend/openapi.json``."""
    api = json.loads((ROOT / "frontend" / "openapi.json").read_text(encoding="utf-8"))
    operations = [(m, path, op) for path, methods in api["paths"].items() for m, op in methods.items()]
    # What nearly every route may answer is said once.
    answers = [(code, a["description"]) for _, _, op in operations for code, a in op["responses"].items()]
    usual = sorted({a for a in answers if answers.count(a) > len(operations) / 2 and a[1] != "Successful response"})
    for tag in api["tags"]:
        yield f"## {tag['name']}\n"
        for method, path, op in (o for o in operations if tag["name"] in o[2]["tags"]):
            yield f"### {method.upper()} `{path}`\n\n{op['summary']}\n\n{op.get('description', '')}\n"
            if op["parameters"]:
                yield "| parameter | in | type | |\n|---|---|---|---|"
                yield from (
                    f"| `{p['name']}` | {p['in']} | {_type(p['schema'])} | {_note(p)} |" for p in op["parameters"]
                )
            for kind, body in op.get("requestBody", {}).get("content", {}).items():
                yield f"\nThe body is `{kind}`: {_type(body['schema'])}.\n"
            yield "\n| status | answer | |\n|---|---|---|"
            for code, answer in op["responses"].items():
                if (code, answer["description"]) not in usual:
                    yield f"| {code} | {_content(answer)} | {answer['description']} |"
            yield ""
    yield "## Errors of every route\n\n| status | |\n|---|---|"
    yield from (f"| {code} | {description} |" for code, description in usual)
    yield "\n## Objects\n"
    for name, schema in api["components"]["schemas"].items():
        yield f"### {name}\n\n| field | type | |\n|---|---|---|"
        needed = schema.get("required", ())
        for field, inner in schema.get("properties", {}).items():
            note = _note({"required": field in needed and name.endswith("In"), "schema": inner})
            yield f"| `{field}` | {_type(inner)} | {note} |"
        yield ""


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(s) if "$ref" in s else "null" for s in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    words = [schema.get("format") or schema.get("type") or "any"]
    words += [f"≥ {json.dumps(schema['minimum'])}"] if "minimum" in schema else []
    words += [f"≤ {json.dumps(schema['maximum'])}"] if "maximum" in schema else []
    return ", ".join(words) + (" or null" if schema.get("nullable") else "")


def _note(item: dict[str, Any]) -> str:
    """What a parameter or a field is for, whether it is needed, its default."""
    schema = item["schema"]
    notes = ["required"] if item.get("required") else []
    notes += [(item.get("description") or schema.get("description") or "").rstrip(".")]
    notes += [f"default `{json.dumps(schema['default'])}`"] if schema.get("default") not in (None, "") else []
    return _cell("; ".join(note for note in notes if note))


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("*", "&#42;")


def _content(answer: dict[str, Any]) -> str:
    """What an answer holds: an object of the API, or media types."""
    contents = answer.get("content", {}).items()
    return ", ".join(_type(c["schema"]) if "$ref" in c["schema"] else f"`{kind}`" for kind, c in contents)


GENERATED: dict[str, Callable[[], Iterator[str]]] = {"catalog": _catalog, "routes": _routes}
