"""The house of CONTRIBUTING.md: rooms stand on those below them, and on no others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import colorization

SOURCES = Path(colorization.__file__).parent
# Each room imports from those after it alone. The commands lie between the first, which starts them, and the rest.
ROOMS = ("api", "training", "evaluation", "colorize", "data", "models", "networks", "files", "core")
COMMANDS = {path.stem for path in SOURCES.glob("[!_]*.py")}


def imports(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("colorization."))
        elif isinstance(node, ast.ImportFrom) and node.module == "colorization":
            yield from (f"colorization.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("colorization."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_package_is_a_room() -> None:
    packages = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    assert packages == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_stands_on_those_below_it(room: str) -> None:
    below = {*ROOMS[ROOMS.index(room) :], "__version__", "Colorizer", *(COMMANDS if room == "api" else ())}
    found = {(file.name, name) for file in (SOURCES / room).rglob("*.py") for name in imports(file)}
    assert found
    assert {pair for pair in found if pair[1].split(".")[1] not in below} == set()
