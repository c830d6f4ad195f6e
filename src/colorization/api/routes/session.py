"""The session of the web app: the token, once, for a cookie that no script can read."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, String
from apiflask.validators import Length
from flask import Response, jsonify, request

from colorization.api.http.security import COOKIE, access

blueprint = APIBlueprint("session", __name__, tag="Session")


class SessionIn(Schema):
    """The server's token."""

    token = String(required=True, validate=Length(1, 200), metadata={"example": "the-token-that-the-server-printed"})


class SessionOut(Schema):
    """What the client needs and has."""

    required = Boolean(required=True, metadata={"description": "whether this server asks for a token"})
    valid = Boolean(required=True, metadata={"description": "whether the request may use all of /api"})


@blueprint.get("/session")
@blueprint.output(SessionOut)
def session() -> dict[str, Any]:
    """Whether a token is needed, and whether a valid session is there."""
    return _state(access().session_valid())


@blueprint.post("/session")
@blueprint.input(SessionIn, location="json")
@blueprint.output(SessionOut)
@blueprint.doc(responses={401: "That is not the token."})
def start(json_data: dict[str, Any]) -> Response:
    """Show the token, get a session cookie for a week."""
    access().check_guess(json_data["token"])
    response = jsonify(_state(True))
    access().start_session(response)
    return response


@blueprint.delete("/session")
@blueprint.output({}, status_code=204)
def end() -> tuple[str, int, dict[str, str]]:
    """Forget the session cookie."""
    gone = Response()
    gone.delete_cookie(COOKIE, path="/api", httponly=True, samesite="Strict", secure=request.is_secure)
    return "", 204, {"Set-Cookie": gone.headers["Set-Cookie"]}


def _state(valid: bool) -> dict[str, Any]:
    required = access().token is not None
    return {"required": required, "valid": valid or not required}
