"""Checks of requests: Host header, other sites, token, rate; and the headers of every answer.

A server that only this machine reaches is still reached by every web page that is open on it: the Host header stops DNS
rebinding, ``Origin`` and ``Sec-Fetch-Site`` stop requests of other sites. A token stops everybody else.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import limits
from apiflask import APIFlask
from flask import Response, current_app, request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.sansio.utils import host_is_trusted

from colorization.api.http.problems import Problem
from colorization.api.settings import MEGA, Settings
from colorization.core.errors import InputError

COOKIE = "colorization_session"
COOKIE_SECONDS = 7 * 24 * 3600
OPEN = {"/api/health", "/api/session"}  # need no token
DEV_ORIGINS = {"http://localhost:5173", "http://127.0.0.1:5173"}  # of `npm run dev`
SAFE = ("GET", "HEAD", "OPTIONS")

COMMON_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Of the pages; nothing inline, nothing of another site.
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Access:
    """The checks and their state: the token, the key that signs sessions, the rate of each client.

    Attributes:
        token: that has to be shown; ``None``: nothing has to.

    Raises:
        InputError: a token or a rate that cannot be one, or no token where there has to be one.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.token = settings.token
        if not self.token and not settings.local:
            raise InputError(f"host={settings.host}: others can reach this server, so a token is needed")
        if self.token and not (16 <= len(self.token) <= 200 and self.token.isascii() and self.token.isprintable()):
            raise InputError("token: should have 16 to 200 printable ASCII characters")
        self._rate, self._guesses = _rate("rate", settings.rate), _rate("guesses", settings.guesses)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host, *settings.allowed_hosts}
        self._hosts = {name.lower().strip("[]") for name in self._hosts}
        # Of another token, sessions are void.
        salt = hashlib.sha256((self.token or "").encode()).hexdigest()
        self._sessions = URLSafeTimedSerializer(_key(settings.state_dir / "session.key"), salt=salt)

    def check_host(self) -> None:
        """Refuse names that are not this server's: a page that has rebound its own name sends that name."""
        host = request.headers.get("Host", "")
        if not host_is_trusted(host):
            raise Problem(400, "the Host header is missing or cannot be read")
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        if name not in self._hosts and (self.settings.local or not _is_address(name)):  # an address cannot be rebound
            raise Problem(421, "this server does not go by that name; the setting allowed_hosts adds one")

    def check_site(self) -> None:
        """Refuse requests of another site's page to the API, except links to it."""
        if not self._from_another_site():
            return
        mode, to = (request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest"))
        if not (request.method in SAFE and mode == "navigate" and to == "document"):
            raise Problem(403, "requests from pages of other sites are refused")

    def _from_another_site(self) -> bool:
        origin = request.headers.get("Origin")
        if origin is None:
            return request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
        if self.settings.dev and origin in DEV_ORIGINS:
            return False
        # The scheme is left out: a proxy may speak HTTPS for this server.
        _, separator, host = origin.partition("://")
        return not separator or host.lower() != request.headers["Host"].lower()

    def check_token(self) -> None:
        """Let only those use the API who show the token or a session. The web app's files are no secret: it asks."""
        if not self.token or request.path in OPEN or not request.path.startswith("/api"):
            return
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            self.check_guess(value.strip())
        elif not self.session_valid():
            raise _unauthorized("a token is needed: as Authorization: Bearer <token>, or by POST /api/session")
        elif request.method not in SAFE and not {"Origin", "Sec-Fetch-Site"} & set(request.headers.keys()):
            raise Problem(403, "a session is for browsers, which tell the origin; send Authorization: Bearer <token>")

    def check_guess(self, token: str) -> None:
        """Refuse a token that is not the server's; 429 for clients that have guessed too often."""
        if not self._limiter.test(self._guesses, "guess", _client()):
            raise self._too_many(self._guesses, "guess", "too many wrong tokens")
        if self.token and not hmac.compare_digest(token.encode(), self.token.encode()):
            self._limiter.hit(self._guesses, "guess", _client())
            raise _unauthorized("that is not the token of this server")

    def check_rate(self) -> None:
        """Refuse more than ``settings.rate``; requests for the health always pass."""
        if request.path != "/api/health" and not self._limiter.hit(self._rate, "rate", _client()):
            raise self._too_many(self._rate, "rate", f"more than {self.settings.rate}")

    def _too_many(self, limit: limits.RateLimitItem, name: str, detail: str) -> Problem:
        reset = self._limiter.get_window_stats(limit, name, _client()).reset_time
        return Problem(429, f"{detail}; try again later", retry_after=max(1, int(reset - time.time()) + 1))

    def session_valid(self) -> bool:
        """Whether the request has a session that has not expired."""
        try:
            self._sessions.loads(request.cookies.get(COOKIE, ""), max_age=COOKIE_SECONDS)
        except BadSignature:
            return False
        return True

    def start_session(self, response: Response) -> None:
        """Give the browser a session with this answer."""
        response.set_cookie(
            COOKIE,
            self._sessions.dumps(secrets.token_hex(8)),
            max_age=COOKIE_SECONDS,
            path="/api",
            httponly=True,
            samesite="Strict",
            secure=request.is_secure,
        )

    def add_headers(self, response: Response) -> Response:
        """The headers of every answer."""
        for name, value in COMMON_HEADERS.items():
            response.headers.setdefault(name, value)
        is_page = response.mimetype in ("text/html", "text/javascript", "text/css")
        response.headers.setdefault("Content-Security-Policy", PAGE if is_page else NOTHING)
        if request.path.startswith("/api"):
            response.headers.setdefault("Cache-Control", "no-store")
        if self.settings.dev:
            response.headers["Cross-Origin-Resource-Policy"] = "same-site"
            response.vary.add("Origin")
            if request.headers.get("Origin") in DEV_ORIGINS:
                response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
                response.headers["Access-Control-Allow-Credentials"] = "true"
        return response

    def preflight(self) -> Response | None:
        """The answer to the question of the web app of `npm run dev` whether it may ask."""
        asked = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not (self.settings.dev and asked and request.headers.get("Origin") in DEV_ORIGINS):
            return None
        headers = {
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
            "Access-Control-Max-Age": "600",
        }
        return Response(status=204, headers=headers)


def register(app: APIFlask, settings: Settings) -> None:
    """Put the checks before every request of ``app``; :func:`access` is the object that makes them."""
    it = app.extensions["colorization.access"] = Access(settings)

    def no_nul() -> None:
        if "\0" in request.path:  # no file's name has one, nor any text in PostgreSQL
            raise Problem(404, "there is no such address")

    def limit_body() -> None:
        if request.mimetype != "multipart/form-data":
            request.max_content_length = MEGA

    checks: tuple[Callable[[], Response | None], ...] = (
        limit_body,
        it.check_host,
        it.check_site,
        it.preflight,
        it.check_token,
        it.check_rate,
        no_nul,
    )
    for check in checks:
        app.before_request(check)
    app.after_request(it.add_headers)


def access() -> Access:
    """That of the app that handles the request."""
    return cast(Access, current_app.extensions["colorization.access"])


def _unauthorized(detail: str) -> Problem:
    problem = Problem(401, detail)
    problem.headers = {"WWW-Authenticate": 'Bearer realm="colorization"'}
    return problem


def _rate(key: str, text: str) -> limits.RateLimitItem:
    try:
        return limits.parse(text)
    except ValueError as error:
        raise InputError(f"{key}={text}: should read like '1200 per minute'") from error


def _client() -> str:
    return request.remote_addr or ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _key(file: Path) -> bytes:
    """The key in that file, made when there is none; for its owner's eyes only."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_name(f"{file.name}.{os.getpid()}")
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(32))
        own.replace(file)
    return file.read_bytes()
