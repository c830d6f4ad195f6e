"""How the server is: health, machine, figures for Prometheus."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import String

from colorization import __version__

blueprint = APIBlueprint("system", __name__, tag="System")


class HealthOut(Schema):
    """The server answers."""

    status = String(required=True, metadata={"example": "ok"})
    version = String(required=True)


@blueprint.get("/health")
@blueprint.output(HealthOut)
def health() -> dict[str, Any]:
    """Whether the server answers."""
    return {"status": "ok", "version": __version__}
