"""Mistakes of the person's (:class:`InputError`), and faults of a file that cost no result (:func:`warn`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger(__name__)


class InputError(ValueError):
    """A mistake in what the user gave (a value, a file, a folder), told in one sentence.

    The entry points print the sentence and exit with code 2; library callers catch it as a ``ValueError``.
    """


def told_elsewhere(text: str) -> None:
    """For :func:`about`: the file's fault is reported elsewhere."""


_name: ContextVar[object] = ContextVar("name", default="")
_tell: ContextVar[Callable[[str], None] | None] = ContextVar("tell", default=None)


@contextmanager
def about(file: object, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Within, messages of :func:`warn` are about ``file``.

    Args:
        tell: is called with each text, here and in contexts within; by default the log gets it, with the file's name.
    """
    tokens = _name.set(file), (_tell.set(tell) if tell else None)
    try:
        yield
    finally:
        _name.reset(tokens[0])
        if tokens[1]:
            _tell.reset(tokens[1])


def warn(text: str) -> None:
    """Report a fault of the current file that costs no result; the words follow the file's name."""
    if tell := _tell.get():
        tell(text)
    else:
        log.warning("%s: %s", _name.get(), text)


def shown(path: object) -> str:
    """A path or URL for a message, always on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))
