"""Answers hold no path of the server: messages of the library are shortened before they are sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# An absolute path, of POSIX or Windows; not a slash within a word (val/psnr) or alone (side / 128), nor a URL.
_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?=\S)(?:[^\s:'\",;()\[\]/\\]+[/\\])*([^\s:'\",;()\[\]/\\]*)")


def without_paths(value: Any, *folders: str | Path) -> Any:
    """``value`` (a string, or lists and dictionaries of them) with the absolute paths in it shortened.

    Args:
        value: plain data.
        folders: files in one of these are named relative to it, any other file by its name alone.
    """
    if isinstance(value, dict):
        return {k: without_paths(v, *folders) for k, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v, *folders) for v in value]
    if not isinstance(value, str):
        return value
    for folder in sorted({str(Path(f).absolute()) for f in folders}, key=len, reverse=True):
        value = re.sub(re.escape(folder) + r"[/\\]", "", value)
        value = re.sub(re.escape(folder) + r"(?![\w.-])", Path(folder).name, value)
    return _PATH.sub(lambda match: match[1], value)
