"""Batches and jobs over HTTP: told as they come, stopped, taken up again; nothing is lost when the server is killed."""

from __future__ import annotations

import io
import json
import socket
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import PATIENCE, wait_for
from flask.testing import FlaskClient
from PIL import Image

from colorization.api.colorizing.colorize import Colorize
from colorization.api.http.sse import Streams


def submit(client: FlaskClient, files: dict[str, bytes] | list[tuple[str, bytes]], **fields: Any) -> dict[str, Any]:
    pairs = files.items() if isinstance(files, dict) else files
    data = {"files": [(io.BytesIO(content), name) for name, content in pairs], **fields}
    answer = client.post("/api/colorize/batch", data=data)
    assert answer.status_code == 202, answer.json
    return answer.json


def events(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """(id, type, data) of a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in lines:
            found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """A photo of a batch is begun only when this is released."""
    permits, real = threading.Semaphore(0), Colorize.file

    def file(self: Colorize, upload: Any, options: Any, job_id: str | None = None) -> Any:
        if job_id is not None:
            assert permits.acquire(timeout=PATIENCE)
        return real(self, upload, options, job_id)

    monkeypatch.setattr(Colorize, "file", file)
    return permits


def test_a_batch_tells_each_file_as_it_comes_and_one_bad_file_fails_alone(make_app: Any, photo_bytes: Any) -> None:
    client = make_app().test_client()
    photo = photo_bytes(48)
    bad = {"cut.jpg": photo[:600], "text.jpg": b"text"}
    job = submit(client, [("a.jpg", photo), *bad.items(), ("sub/a.jpg", photo), ("ü.png", photo_bytes(40, "PNG"))])
    assert job["kind"] == "batch" and job["total"] == 5 and job["url"] == f"/api/jobs/{job['id']}"
    told = events(client.get(job["stream"]).text)
    assert [i for i, _, _ in told] == sorted({i for i, _, _ in told})
    items = {data["number"]: data for _, type, data in told if type == "item"}
    assert sorted(items) == [0, 1, 2, 3, 4] and len([t for t in told if t[1] == "item"]) == 5
    assert told[-1][1:] == ("state", {"state": "finished", "result": told[-1][2]["result"]})
    for item in items.values():
        assert item["state"] == ("failed" if item["name"] in bad else "done")
        assert (item["error"] is None) == (item["result"] is not None) == (item["name"] not in bad)
    found = client.get(job["url"]).json
    assert (found["state"], found["done"], found["total"], found["items_total"]) == ("finished", 5, 5, 5)
    assert found["items"] == [items[i] for i in range(5)]
    page = client.get(job["url"] + "?page=2&per_page=2").json
    assert [item["number"] for item in page["items"]] == [2, 3]

    archive = client.get(found["result"]["archive"])
    assert archive.content_type == "application/zip" and archive.headers["Content-Disposition"].startswith("attachment")
    with zipfile.ZipFile(io.BytesIO(archive.data)) as file:
        assert file.testzip() is None
        assert sorted(file.namelist()) == ["a-colorized-2.jpg", "a-colorized.jpg", "ü-colorized.png"]
        assert {i.compress_type for i in file.infolist()} == {zipfile.ZIP_STORED}
        for name in file.namelist():
            Image.open(io.BytesIO(file.read(name))).load()
        result = items[0]["result"]["result"]
        assert client.get(result["url"]).data in [file.read(n) for n in ("a-colorized.jpg", "a-colorized-2.jpg")]


def test_a_stream_taken_up_again_misses_and_repeats_nothing(make_app: Any, photo_bytes: Any) -> None:
    client = make_app().test_client()
    job = submit(client, {f"{i}.jpg": photo_bytes(40) for i in range(3)})
    whole = events(client.get(job["stream"]).text)
    for k, (id, _, _) in enumerate(whole[:-1]):
        assert events(client.get(job["stream"], headers={"Last-Event-ID": str(id)}).text) == whole[k + 1 :]
        assert events(client.get(f"{job['stream']}?last_event_id={id}").text) == whole[k + 1 :]
    assert client.get(job["stream"], headers={"Last-Event-ID": str(whole[-1][0])}).status_code == 204


def test_a_stream_ends_with_its_client(make_app: Any) -> None:
    """Although nothing is told: tabs that take turns open and close many."""
    streams = Streams(limit=1)
    ours, theirs = socket.socketpair()
    with make_app().test_request_context(environ_base={"gunicorn.socket": ours}), ours:
        response = streams.response(lambda last: [])
        lines = response.iter_encoded()
        assert next(lines).startswith(b"retry") and streams.open == 1
        theirs.close()
        assert list(lines) == []
        response.close()
    assert streams.open == 0


def test_the_archive_is_streamed(make_app: Any, photo_bytes: Any) -> None:
    app = make_app()
    client, services = app.test_client(), app.extensions["colorization"]
    job = submit(client, {"a.jpg": photo_bytes(40)})
    assert client.get(job["stream"]).text
    services.results.remove(services.results.of_job(job["id"]))
    content = [bytes([i]) * 3_000_000 for i in range(3)]
    for one in content:
        services.results.add(one, "big.png", "image/png", job["id"])
    pieces = list(services.results.archive(job["id"]))
    assert max(map(len, pieces)) < 1_500_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as file:
        assert [file.read(n) for n in ("big.png", "big-2.png", "big-3.png")] == content


def test_jobs_are_listed_the_newest_first_by_kind_and_state(make_app: Any, photo_bytes: Any) -> None:
    client = make_app().test_client()
    ids = []
    for _ in range(3):
        job = submit(client, {"a.jpg": photo_bytes(40)})
        assert client.get(job["stream"]).text
        ids.append(job["id"])
    found = client.get("/api/jobs").json
    assert found["total"] == 3 and [j["id"] for j in found["jobs"]] == ids[::-1]
    assert [j["id"] for j in client.get("/api/jobs?per_page=2&page=2").json["jobs"]] == ids[:1]
    assert client.get("/api/jobs?kind=batch&state=finished").json["total"] == 3
    assert client.get("/api/jobs?state=running").json == {"jobs": [], "total": 0}
    for query in ("state=nope", "kind=nope", "page=0", "per_page=many"):
        assert client.get(f"/api/jobs?{query}").status_code == 422
    for method, path in (("get", ""), ("get", "/stream"), ("get", "/archive"), ("delete", ""), ("post", "/retry")):
        assert getattr(client, method)(f"/api/jobs/{'0' * 32}{path}").status_code == 404


def test_pause_resume_cancel_delete(make_app: Any, photo_bytes: Any, held: threading.Semaphore, tmp_path: Path) -> None:
    app = make_app()
    client = app.test_client()
    total = 3 * app.extensions["colorization"].colorizers.turns.slots + 3  # so that some wait, whatever is in hand
    job = submit(client, {f"{i}.jpg": photo_bytes(40) for i in range(total)})
    url = job["url"]

    def found() -> dict[str, Any]:
        return client.get(url).json

    def finish_those_in_hand(state: str) -> None:
        wait_for(lambda: found()["state"] == state or held.release())
        while held.acquire(blocking=False):
            pass  # none is begun with what was too much

    held.release()
    wait_for(lambda: found()["done"] >= 1)
    assert client.get(url + "/archive").status_code == 409  # it has not ended
    assert client.post(url + "/resume").status_code == 409 and client.post(url + "/retry").status_code == 409
    assert client.post(url + "/pause").status_code == 200
    finish_those_in_hand("paused")
    done = found()["done"]
    assert 1 <= done < total
    assert client.post(url + "/resume").status_code == 200
    held.release()
    wait_for(lambda: found()["done"] == done + 1)
    assert client.delete(url).status_code == 202
    finish_those_in_hand("cancelled")
    done = found()["done"]
    states = [item["state"] for item in found()["items"]]
    assert done < total and states.count("done") == done and states.count("waiting") == total - done
    assert client.post(url + "/pause").status_code == 409
    assert client.post(url + "/retry").status_code == 200
    finish_those_in_hand("finished")
    assert [item["state"] for item in found()["items"]] == ["done"] * total
    urls = [item["result"]["result"]["url"] for item in found()["items"]]
    assert len(set(urls)) == total and all(client.get(u).status_code == 200 for u in urls)
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404 and all(client.get(u).status_code == 404 for u in urls)
    state = tmp_path / "outputs" / "server"
    assert not list((state / "results").iterdir()) and not (state / "jobs" / job["id"]).exists()


def test_what_is_asked_of_a_job_before_it_rests_holds(
    make_app: Any, photo_bytes: Any, held: threading.Semaphore
) -> None:
    """A client that pauses and resumes at once would else wait for ever for a job that pauses after all."""
    app = make_app()
    client = app.test_client()
    total = 3 * app.extensions["colorization"].colorizers.turns.slots + 3
    job = submit(client, {f"{i}.jpg": photo_bytes(40) for i in range(total)})

    def ask(*wishes: str) -> list[int]:
        return [client.post(f"{job['url']}/{wish}").status_code for wish in wishes]

    def state_after_all_in_hand() -> str:
        wait_for(lambda: client.get(job["url"]).json["state"] not in ("queued", "running") or held.release())
        while held.acquire(blocking=False):
            pass
        return client.get(job["url"]).json["state"]

    held.release()
    wait_for(lambda: client.get(job["url"]).json["done"] >= 1)
    assert ask("pause", "resume", "resume", "pause") == [200, 200, 409, 200]
    assert state_after_all_in_hand() == "paused"
    assert ask("resume") == [200]
    held.release()
    wait_for(lambda: client.get(job["url"]).json["state"] == "running")
    assert ask("pause", "resume") == [200, 200]
    assert state_after_all_in_hand() == "finished"
    assert [item["state"] for item in client.get(job["url"]).json["items"]] == ["done"] * total

    other = submit(client, {f"{i}.jpg": photo_bytes(40) for i in range(total)})
    wait_for(lambda: client.get(other["url"]).json["state"] == "running")
    assert client.delete(other["url"]).status_code == 202
    job = other
    assert ask("pause", "resume") == [409, 409]
    assert state_after_all_in_hand() == "cancelled"


def test_a_queued_job_is_cancelled_at_once(make_app: Any, photo_bytes: Any, held: threading.Semaphore) -> None:
    client = make_app().test_client()
    jobs = [submit(client, {"a.jpg": photo_bytes(40)}) for _ in range(6)]
    queued = [j for j in jobs if client.get(j["url"]).json["state"] == "queued"]
    assert queued
    assert client.delete(queued[-1]["url"]).json["state"] == "cancelled"
    for _ in jobs:
        held.release()
    wait_for(lambda: client.get("/api/jobs?state=finished").json["total"] == len(jobs) - 1)


def test_retry_does_the_failed_ones_again(make_app: Any, photo_bytes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_app().test_client()
    real = Colorize.file

    def broken(self: Colorize, upload: Any, options: Any, job_id: str | None = None) -> Any:
        if upload.name == "b.jpg":
            raise RuntimeError("a bug, with the path /secret")
        return real(self, upload, options, job_id)

    monkeypatch.setattr(Colorize, "file", broken)
    job = submit(client, {"a.jpg": photo_bytes(40), "b.jpg": photo_bytes(40), "c.jpg": b"text"})
    assert "/secret" not in client.get(job["stream"]).text
    first = client.get(job["url"]).json
    assert [i["state"] for i in first["items"]] == ["done", "failed", "failed"]
    monkeypatch.setattr(Colorize, "file", real)
    assert client.post(job["url"] + "/retry").json["done"] == 2
    assert events(client.get(job["stream"]).text)[-1][2]["result"]["failed"] == 1
    second = client.get(job["url"]).json
    assert [i["state"] for i in second["items"]] == ["done", "done", "failed"]  # the text was never stored
    assert second["items"][0] == first["items"][0] and second["done"] == 3
    assert client.post(job["url"] + "/retry").status_code == 409


def test_a_single_photo_does_not_wait_behind_a_batch(make_app: Any, photo_bytes: Any) -> None:
    client = make_app().test_client()
    client.post("/api/colorize", data={"file": (io.BytesIO(photo_bytes(40)), "a.jpg")})
    job = submit(client, {f"{i}.jpg": photo_bytes(200) for i in range(60)})
    wait_for(lambda: client.get(job["url"]).json["done"] >= 1)
    assert client.post("/api/colorize", data={"file": (io.BytesIO(photo_bytes(40)), "a.jpg")}).status_code == 200
    assert client.get(job["url"]).json["done"] < 40
    client.delete(job["url"])


def test_limits_of_a_batch(make_app: Any, photo_bytes: Any) -> None:
    client = make_app(batch_files=3, batch_mb=1).test_client()
    photo = photo_bytes(40)
    many = {"files": [(io.BytesIO(photo), f"{i}.jpg") for i in range(4)]}
    assert client.post("/api/colorize/batch", data=many).status_code == 413
    heavy = {"files": [(io.BytesIO(bytes(600_000)), f"{i}.jpg") for i in range(2)]}
    assert client.post("/api/colorize/batch", data=heavy).status_code == 413
    none = client.post("/api/colorize/batch", data={"size": "64"}, content_type="multipart/form-data")
    assert none.status_code == 422
    wrong = {"files": [(io.BytesIO(photo), "a.jpg")], "weights": "nope"}
    assert client.post("/api/colorize/batch", data=wrong).status_code == 422
    assert client.get("/api/jobs").json["total"] == 0


def test_a_killed_server_goes_on_with_what_was_not_done(server: Any, photo_bytes: Any) -> None:
    """SIGKILL in the middle of a batch, twice: every file is done once in the record, none is lost."""
    server.start()
    count = 40
    files = [("files", (f"{i}.png", photo_bytes(128, "PNG"))) for i in range(count)]
    files.insert(5, ("files", ("text.jpg", b"text")))
    job = requests.post(f"{server.url}/api/colorize/batch", files=files, timeout=PATIENCE).json()

    def found() -> dict[str, Any]:
        return requests.get(f"{server.url}{job['url']}?per_page=1000", timeout=PATIENCE).json()

    results: dict[int, Any] = {}
    for kill in (4, 12):
        wait_for(lambda kill=kill: found()["done"] >= kill)
        before = found()
        assert before["state"] == "running" and before["done"] < count
        server.kill()
        for item in before["items"]:
            if item["state"] == "done":
                assert results.setdefault(item["number"], item) == item
        server.start()
    stream = requests.get(server.url + job["stream"], timeout=PATIENCE)
    told = [data["number"] for _, type, data in events(stream.text) if type == "item"]
    assert sorted(told) == list(range(count + 1))
    after = found()
    assert after["state"] == "finished" and after["done"] == after["total"] == count + 1
    assert [i["state"] for i in after["items"]] == [
        "failed" if i["name"] == "text.jpg" else "done" for i in after["items"]
    ]
    for number, item in results.items():
        assert after["items"][number] == item  # done before the kill, not done again
    archive = requests.get(server.url + after["result"]["archive"], timeout=PATIENCE).content
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        assert sorted(file.namelist()) == sorted(f"{i}-colorized.png" for i in range(count))
    state = server.folder / "outputs" / "server"
    assert len(list((state / "results").iterdir())) == count  # what was made but not told is gone
    assert list((state / "jobs" / job["id"]).iterdir()) == []
