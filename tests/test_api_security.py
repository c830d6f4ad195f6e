"""Who may ask what: hosts, other sites, tokens, rates, and requests that are made to hurt."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import PATIENCE, free_port
from itsdangerous import URLSafeTimedSerializer

from colorization.api.http import security
from colorization.api.serving import ENDING
from colorization.api.storage.database import Database, Job, JobEvent
from colorization.core.runs import utc_now

TOKEN = "a-token-of-tests-only"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EVIL = "http://evil.example"
FORM = "application/x-www-form-urlencoded"


def test_hosts(make_app: Callable[..., Any]) -> None:
    client = make_app(allowed_hosts=["colors.example"]).test_client()
    for host, status in (
        ("localhost", 200),
        ("localhost:5000", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:5000", 200),
        ("[::1]:5000", 200),
        ("colors.example:8443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:5000", 421),
        ("colors.example.evil.example", 421),
        ("169.254.169.254", 421),
        ("localhost@evil.example", 400),
        ("localhost/../evil.example", 400),
        ("localhost:99999", 400),
        ("localhost, evil.example", 400),
        ("", 400),
    ):
        for path in ("/api/health", "/"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == status, (host, path, answer.text)


def test_an_address_is_a_name_of_a_server_for_others_but_no_other_name_is(make_app: Callable[..., Any]) -> None:
    client = make_app(host="0.0.0.0", token=TOKEN).test_client()
    for host, status in (("192.168.0.7:5000", 200), ("[fe80::1]", 200), ("localhost", 200), ("evil.example", 421)):
        assert client.get("/api/health", headers={"Host": host}).status_code == status, host


# What pages of other sites, and others, may try: (method, path, headers, body) -> status. The server has no token.
ATTACKS: list[tuple[str, str, str, dict[str, str], bytes, int]] = [
    ("a form of another site", "POST", "/api/session", {"Origin": EVIL, "Content-Type": FORM}, b"a=b", 403),
    ("a form of a file", "POST", "/api/session", {"Origin": "null", "Content-Type": FORM}, b"a=b", 403),
    ("JSON as text", "POST", "/api/session", {"Origin": EVIL, "Content-Type": "text/plain"}, b"{}", 403),
    ("without Origin", "POST", "/api/session", {"Sec-Fetch-Site": "cross-site"}, b"", 403),
    ("another port", "POST", "/api/session", {"Origin": "http://localhost:81"}, b"", 403),
    ("another port, old", "POST", "/api/session", {"Sec-Fetch-Site": "same-site"}, b"", 403),
    ("a longer name", "POST", "/api/session", {"Origin": "http://localhost.evil.example"}, b"", 403),
    ("the app of --dev", "POST", "/api/session", {"Origin": "http://localhost:5173"}, b"", 403),
    ("a preflight", "OPTIONS", "/api/session", {"Origin": EVIL, "Access-Control-Request-Method": "POST"}, b"", 403),
    ("an image of another site", "GET", "/api/session", {"Sec-Fetch-Site": "cross-site"}, b"", 403),
    ("a frame", "GET", "/api/docs", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, b"", 403),
    ("a rebound name", "GET", "/api/session", {"Host": "rebound.example:5000"}, b"", 421),
    ("a proxy's name", "GET", "/api/session", {"Host": "evil.example", "X-Forwarded-Host": "localhost"}, b"", 421),
    ("another method in a header", "GET", "/api/health", {"X-HTTP-Method-Override": "DELETE"}, b"", 200),
    ("another method in a form", "POST", "/api/health", {"Content-Type": FORM}, b"_method=DELETE", 405),
    ("TRACE", "TRACE", "/api/session", {}, b"", 405),
    ("a method of nobody", "BREW", "/api/session", {}, b"", 405),
    ("huge JSON", "POST", "/api/session", {"Content-Type": "application/json"}, b'"%s"' % (b"a" * 2_000_000), 413),
    ("deep JSON", "POST", "/api/session", {"Content-Type": "application/json"}, b"[" * 400_000, 400),
    ("a long number", "POST", "/api/session", {"Content-Type": "application/json"}, b"1" * 9_999, 400),
    ("half a character", "POST", "/api/session", {"Content-Type": "application/json"}, b'{"token": "\\ud800"}', 400),
    ("no JSON", "POST", "/api/session", {"Content-Type": "application/json"}, b"\xff\xfe{", 400),
    ("a list for an object", "POST", "/api/session", {"Content-Type": "application/json"}, b"[1]", 422),
    ("an unknown field", "POST", "/api/session", {"Content-Type": "application/json"}, b'{"token":"a","b":1}', 422),
    ("a huge form", "POST", "/api/session", {"Content-Type": FORM}, b"a=" + b"a" * 2_000_000, 422),
    ("a file of the package", "GET", "/api/docs/..%2f__init__.py", {}, b"", 404),
    ("a file of the machine", "GET", "/api/docs/%2fetc%2fpasswd", {}, b"", 404),
    ("a NUL", "GET", "/api/docs/swagger-ui.css%00", {}, b"", 404),
    ("a NUL in a header", "GET", "/api/session", {"Cookie": "colorization_session=\x01"}, b"", 200),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack[0])
def test_attacks(make_app: Callable[..., Any], attack: tuple[str, str, str, dict[str, str], bytes, int]) -> None:
    _, method, path, headers, body, status = attack
    client = make_app().test_client()
    answer = client.open(path, method=method, headers={"Host": "localhost:5000", **headers}, data=body)
    assert answer.status_code == status, answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers
    if status >= 400:
        assert answer.content_type == "application/problem+json" and answer.json["status"] == status
        assert "Traceback" not in answer.text and str(Path.cwd()) not in answer.text


def test_ids_are_no_paths(make_app: Callable[..., Any], tmp_path: Path) -> None:
    """Each route with a parameter, each kind of path in it."""
    app = make_app()
    (tmp_path / "outputs" / "secret").write_text("secret-content")
    client = app.test_client()
    tried = 0
    for rule in app.url_map.iter_rules():
        if not rule.arguments or not rule.rule.startswith("/api"):
            continue
        for id in (
            "..%2f..%2fsecret",
            "%2e%2e%2fsecret",
            "..%5csecret",
            "%2fetc%2fpasswd",
            "a%00b",
            "~",
            "%ff",
            "a" * 5000,
        ):
            path = rule.rule
            for argument in rule.arguments:
                path = path.replace(f"<{argument}>", id).replace(f"<string:{argument}>", id)
            for method in sorted((rule.methods or set()) & {"GET", "POST", "DELETE"}):
                answer = client.open(path, method=method, follow_redirects=True)  # slashes in a row are merged
                assert 400 <= answer.status_code < 500, (method, path, answer.status_code)
                assert "secret-content" not in answer.text and "root:" not in answer.text
                assert str(tmp_path) not in answer.text
                tried += 1
    assert tried


def test_own_pages_and_links_pass(make_app: Callable[..., Any]) -> None:
    client = make_app().test_client()
    own = {"Host": "localhost:5000", "Origin": "http://localhost:5000", "Sec-Fetch-Site": "same-origin"}
    assert client.delete("/api/session", headers=own).status_code == 204
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/api/docs", headers=link).status_code == 200
    assert client.delete("/api/session").status_code == 204  # curl says neither


def test_headers_of_every_answer(make_app: Callable[..., Any]) -> None:
    client = make_app().test_client()
    for path in ("/api/health", "/api/nope", "/", "/api/docs", "/api/docs/start.js", "/api/openapi.json"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert client.get("/api/health").headers["Cache-Control"] == "no-store"


def test_dev_lets_the_web_app_of_another_port_in(make_app: Callable[..., Any]) -> None:
    client = make_app(dev=True, token=TOKEN).test_client()
    origin = {"Origin": "http://localhost:5173"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for answer in (
        client.options("/api/models", headers=asked),
        client.post("/api/session", headers=origin, json={"token": TOKEN}),
    ):
        assert answer.status_code in (200, 204)
        assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert answer.headers["Access-Control-Allow-Credentials"] == "true" and "Origin" in answer.headers["Vary"]
    answer = client.post("/api/session", headers={"Origin": EVIL}, json={"token": TOKEN})
    assert answer.status_code == 403 and "Access-Control-Allow-Origin" not in answer.headers


def test_a_token_protects_all_but_health_and_session(make_app: Callable[..., Any]) -> None:
    app = make_app(host="0.0.0.0", token=TOKEN)
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("web."):  # the app, which asks for the token
            assert not rule.rule.startswith("/api")
            continue
        if rule.rule in security.OPEN:
            continue
        path = rule.rule.replace("<", "").replace(">", "")
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            answer = client.open(path, method=method)
            assert answer.status_code == 401 and "Bearer" in answer.headers["WWW-Authenticate"], (method, path)
    for path in ("/api", "/api/", "/api/nope", "/api/../api/system"):
        assert client.get(path).status_code == 401, path
    assert client.get("/history").status_code == 200
    assert client.get("/api/health").status_code == 200
    assert client.get("/api/session").json == {"required": True, "valid": False}
    assert client.get("/api/openapi.json", headers=BEARER).status_code == 200
    for wrong in (TOKEN + "x", TOKEN[:-1], "", "é", "Bearer"):
        answer = client.get("/api/openapi.json", headers={"Authorization": f"Bearer {wrong}".encode().decode("latin1")})
        assert answer.status_code == 401, wrong
    assert client.get(f"/api/openapi.json?token={TOKEN}").status_code == 401


def test_sessions(make_app: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_app(host="0.0.0.0", token=TOKEN).test_client()
    own = {"Origin": "http://localhost"}
    assert client.post("/api/session", json={"token": "wrong"}, headers=own).status_code == 401
    answer = client.post("/api/session", json={"token": TOKEN}, headers=own)
    assert answer.json == {"required": True, "valid": True}
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Max-Age=604800" in cookie and TOKEN not in cookie
    assert client.get("/api/openapi.json").status_code == 200
    assert client.post("/api/nope").status_code == 403  # the cookie alone, without an origin
    assert client.post("/api/nope", headers=own).status_code == 404

    key = tmp_path / "outputs" / "server" / "session.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    value = client.get_cookie(security.COOKIE, path="/api").value
    forged = URLSafeTimedSerializer(b"guessed", salt="").dumps("x")
    # (Of the last character two bits mean nothing.)
    signed, _, signature = value.rpartition(".")
    other = f"{signed}.{'a' if signature[0] != 'a' else 'b'}{signature[1:]}"
    for tampered in (other, "x" + value, forged, value.split(".")[0], ""):
        client.set_cookie(security.COOKIE, tampered, path="/api")
        assert client.get("/api/openapi.json").status_code == 401, tampered
    client.set_cookie(security.COOKIE, value, path="/api")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + security.COOKIE_SECONDS + 2)
    assert client.get("/api/openapi.json").status_code == 401
    monkeypatch.undo()
    assert client.get("/api/session").json["valid"]
    client.delete("/api/session", headers=own)
    assert not client.get("/api/session").json["valid"]


def test_sessions_outlive_the_server_but_not_the_token(make_app: Callable[..., Any], tmp_path: Path) -> None:
    app = make_app(token=TOKEN)
    client = app.test_client()
    client.post("/api/session", json={"token": TOKEN})
    value = client.get_cookie(security.COOKIE, path="/api").value
    app.extensions["colorization"].close()
    for token, status in ((TOKEN, 200), ("another-token-of-tests", 401)):
        app = make_app(token=token)
        client = app.test_client()
        client.set_cookie(security.COOKIE, value, path="/api")
        assert client.get("/api/openapi.json").status_code == status
        app.extensions["colorization"].close()


def test_guessing_ends_soon(make_app: Callable[..., Any]) -> None:
    client = make_app(token=TOKEN).test_client()
    client.post("/api/session", json={"token": TOKEN})
    guess = {"Authorization": "Bearer guess-of-a-token"}
    statuses = [client.get("/api/openapi.json", headers=guess).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    answer = client.post("/api/session", json={"token": TOKEN})  # the right one is not told from others now
    assert answer.status_code == 429 and 1 <= int(answer.headers["Retry-After"]) <= 61
    assert client.get("/api/openapi.json").status_code == 200  # who has a session is not bothered
    assert client.get("/api/openapi.json", headers=BEARER, environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 200


def test_rate(make_app: Callable[..., Any]) -> None:
    client = make_app(rate="5 per hour").test_client()
    assert [client.get("/api/session").status_code for _ in range(6)] == [200] * 5 + [429]
    answer = client.get("/api/session")
    assert answer.content_type == "application/problem+json" and 1 <= int(answer.headers["Retry-After"]) <= 3601
    assert client.get("/api/health").status_code == 200
    assert client.get("/api/session", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 200


def serve(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, which is expected to end by itself."""
    command = [sys.executable, "-m", "colorization.api.server", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["token=short"], "token: should have"),
        (["rate=often"], "rate=often"),
        (["server=apache"], "server=apache"),
        (["database=sqlite:////proc/none/d.db"], "database="),
        (["prot=1"], "prot"),
        (["--port", "0"], "port=0"),
        (["--host", "no.such.name.invalid"], "no.such.name.invalid"),
    ],
)
def test_a_start_that_cannot_be_says_so_in_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    ended = serve(tmp_path, *(["--port", str(free_port())] if "--port" not in arguments else []), *arguments)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1 and words in ended.stderr, ended.stderr


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_a_server_for_others_prints_a_token_and_ends_soon_with_streams_open(server: Any, kind: str) -> None:
    server.start("--host", "0.0.0.0", f"server={kind}", COLORIZATION_TOKEN="")
    line = next(s for s in (server.folder / "server.log").read_text().splitlines() if s.startswith("token"))
    token = line.split()[1]
    assert len(token) >= 40
    assert requests.get(f"{server.url}/api/openapi.json", timeout=PATIENCE).status_code == 401
    allowed = {"Authorization": f"Bearer {token}"}
    answer = requests.get(f"{server.url}/api/openapi.json", headers=allowed, timeout=PATIENCE)
    assert answer.status_code == 200 and not any(c.isdigit() for c in answer.headers.get("Server", ""))
    if kind == "waitress":  # told by the lock, whatever listens
        second = serve(server.folder, "--port", str(free_port()))
        assert second.returncode == 2 and "another server runs there" in second.stderr
        assert second.stderr.count("\n") == 1
    database = Database(f"sqlite:///{server.folder}/outputs/server/colorization.db")
    with database() as session:  # a job that nobody works on
        session.add(Job(id="a" * 32, kind="batch", state="running", created=utc_now(), request={}))
        session.flush()
        for _ in range(100):  # more than the system takes for clients that read nothing
            session.add(JobEvent(job_id="a" * 32, type="item", data={"name": "x" * 200_000}))
    streams = [
        requests.get(f"{server.url}/api/jobs/{'a' * 32}/stream", headers=allowed, stream=True, timeout=PATIENCE)
        for _ in range(3)
    ]
    lines = [stream.iter_lines() for stream in streams]
    assert all(next(line).startswith(b"retry") for line in lines)
    began = time.monotonic()
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0
    assert time.monotonic() - began < ENDING
    database.close()
    assert "Traceback" not in (server.folder / "server.log").read_text()


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_half_requests_hold_no_one_up(server: Any, kind: str) -> None:
    server.start(f"server={kind}", "threads=8")
    port = int(server.url.rpartition(":")[2])
    body = socket.create_connection(("127.0.0.1", port))
    body.sendall(b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n")
    body.sendall(b"Content-Type: application/json\r\n\r\n")
    with ThreadPoolExecutor(1) as pool:
        dripped = pool.submit(drip, body, PATIENCE)
        hold_halves(server, port, kind)
        if kind == "gunicorn":
            assert dripped.result().startswith(b"HTTP/1.1 400")
        body.close()


def drip(connection: socket.socket, seconds: float) -> bytes:
    """Send byte by byte until there is an answer; the answer."""
    connection.settimeout(0.2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection.sendall(b" ")
            return connection.recv(100)
        except TimeoutError:
            continue
        except OSError:
            break
    return b""


def hold_halves(server: Any, port: int, kind: str) -> None:
    halves = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for half in halves:
            half.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for _ in range(10):
            assert requests.get(f"{server.url}/api/health", timeout=PATIENCE).ok
            halves[0].sendall(b"a")
        # and who sends the rest in time is answered
        halves[1].sendall(b"b\r\n\r\n")
        halves[1].settimeout(PATIENCE)
        assert halves[1].recv(100).startswith(b"HTTP/1.1 200")
        if kind == "gunicorn":  # the others are let go, as who sends a body byte by byte
            halves[2].settimeout(PATIENCE)
            assert halves[2].recv(100) == b""
    finally:
        for half in halves:
            half.close()


def test_huge_headers_and_two_hosts(server: Any) -> None:
    server.start()
    for headers in ({"X-Huge": "a" * 100_000}, {f"X-{i}": "a" for i in range(500)}):
        answer = requests.get(f"{server.url}/api/health", headers=headers, timeout=PATIENCE)
        assert 400 <= answer.status_code < 500 and "Traceback" not in answer.text
    port = int(server.url.rpartition(":")[2])
    for request in (
        b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(request)
            assert raw.recv(100).split(b"\r\n")[0].split()[1] == b"400", request
