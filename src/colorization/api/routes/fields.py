"""What the schemas of several routes share."""

from __future__ import annotations

from typing import Any

from apiflask import Schema
from apiflask.fields import Boolean, Field, Integer
from apiflask.validators import Range, Regexp

from colorization.api.colorizing import weights
from colorization.api.http import sse

WEIGHTS_ID = Regexp(weights.ID, error="should be an id of GET /api/checkpoints, or a stage")
WEIGHTS_IDS = Regexp(
    rf"^{weights.ID[1:-1]}(,{weights.ID[1:-1]}){{0,7}}$",
    error="should be ids of GET /api/checkpoints, or stages",
)
NO_NUL = Regexp(r"^[^\x00]*$", error="should have no NUL character")  # which PostgreSQL does not take
BINARY: Any = {"schema": {"type": "string", "format": "binary"}}
EVENTS: Any = {
    "description": "Server-sent events; see the description of the route.",
    "content": {"text/event-stream": {"schema": sse.SCHEMA}},
}


class PageIn(Schema):
    """Which part of a list."""

    page = Integer(load_default=1, validate=Range(1, 1_000_000))
    per_page = Integer(load_default=100, validate=Range(1, 1000))


class JSONBoolean(Boolean):
    """True or false, not 1 or 0, which are equal to them."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


# As JavaScript, Python, C and HTML forms write them.
TRUE, FALSE = ("true", "True", "TRUE", "1", "on"), ("false", "False", "FALSE", "0", "off")
_TEXT = Boolean(truthy=set(TRUE), falsy=set(FALSE))


class Flag(Field):
    """A boolean in a form or query, which are text. No :class:`Boolean`, whose schema would say that 1 is refused."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return _TEXT.deserialize(value)


def flag(description: str) -> Flag:
    """True or false (the default), see :data:`TRUE`."""
    text = {"type": "string", "pattern": f"^({'|'.join(TRUE + FALSE)})$"}
    metadata = {"description": description, "anyOf": [{"type": "boolean"}, text]}
    return Flag(load_default=False, metadata=metadata)
