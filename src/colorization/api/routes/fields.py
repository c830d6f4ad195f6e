"""Fields that several routes share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from apiflask import Schema
from apiflask.fields import Boolean, Integer, String
from apiflask.validators import Range, Regexp
from marshmallow import ValidationError
from marshmallow.fields import Field

from colorization.api.colorizing import weights
from colorization.api.http import sse
from colorization.core.errors import InputError
from colorization.evaluation.catalog import Metric

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


S = TypeVar("S", bound=Schema)


def with_fields(fields: Mapping[str, Field[Any]]) -> Callable[[type[S]], type[S]]:
    """The schema with these fields, too, which are made from a list that others read as well."""

    def add(cls: type[S]) -> type[S]:
        made: Any = type(cls)
        own: type[S] = made(cls.__name__, (cls,), {**fields, "__doc__": cls.__doc__, "__module__": cls.__module__})
        return own

    return add


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


def described(metric: Metric) -> dict[str, str]:
    """What ``openapi.json`` says of a field with such a figure."""
    return {"description": f"{metric.title or metric.label}{metric.unit and ', ' + metric.unit}: {metric.help}"}


class Flag(Field):
    """A boolean in a form or query, which are text. No :class:`Boolean`, whose schema would say that 1 is refused."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return _TEXT.deserialize(value)


def flag(description: str) -> Flag:
    """True or false (the default), see :data:`TRUE`."""
    text = {"type": "string", "pattern": f"^({'|'.join(TRUE + FALSE)})$"}
    metadata = {"description": description, "anyOf": [{"type": "boolean"}, text]}
    return Flag(load_default=False, metadata=metadata)


class JSONArray(String):
    """A JSON array in a form, which is text.

    Args:
        one: what is made of each value; raises ``InputError`` where it cannot be.
        most: values at most.
        description, example: of the text.
    """

    LONGEST = 50_000  # characters

    def __init__(self, one: Callable[[Any], Any], most: int, description: str, example: str) -> None:
        metadata = {"description": description, "example": example, "maxLength": self.LONGEST}
        super().__init__(load_default=list, metadata=metadata)
        self._one, self._most, self._example = one, most, example

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, *args, **kwargs)
        if len(text) > self.LONGEST:
            raise ValidationError(f"has {len(text)} characters; at most {self.LONGEST} are taken")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"should be a JSON array, e.g. {self._example}") from error
        if not isinstance(values, list):
            raise ValidationError(f"should be a JSON array, e.g. {self._example}")
        if len(values) > self._most:
            raise ValidationError(f"has {len(values)} values; at most {self._most} are taken")
        made = []
        for number, one in enumerate(values):
            try:
                made.append(self._one(one))
            except InputError as error:
                raise ValidationError({number: [str(error)]}) from error
        return made
