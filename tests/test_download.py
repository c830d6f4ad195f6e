"""The download of COCO against a real server on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorization.core.errors import InputError
from colorization.data import download
from colorization.data.photos import FolderPhotos


def make_zip(names: list[str]) -> bytes:
    """A zip of small JPEGs of noise (which no zip can shrink)."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, name in enumerate(names):
            jpeg = io.BytesIO()
            pixels = np.random.default_rng(i).integers(0, 256, (96, 128, 3), np.uint8)
            Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
            archive.writestr(name, jpeg.getvalue())
    return content.getvalue()


NAMES = [f"{i:012d}.jpg" for i in range(10)]
ZIP = make_zip([f"val2017/{n}" for n in NAMES])
MD5 = hashlib.md5(ZIP).hexdigest()
HALF = len(ZIP) // 2


class Server(ThreadingHTTPServer):
    """Serves ``content``, and remembers the Range header and the bytes sent of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = ZIP
        self.ranges = True
        self.status = 200
        self.cuts: list[int] = []  # the next requests are cut off after so many bytes
        self.hold: threading.Event | None = None  # after the next cut, wait for this before closing
        self.asked: list[str | None] = []
        self.sent: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/zips/val2017.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        content, start = self.server.content, 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content) or self.server.status >= 400:
            self.send_error(416 if self.server.status < 400 else self.server.status)
            self.server.sent.append(0)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
        self.wfile.write(body)
        self.server.sent.append(len(body))
        if self.server.hold is not None and len(body) < len(content) - start:
            self.server.hold.wait(60)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield running
        running.shutdown()


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def assert_whole(data_dir: Path) -> None:
    """All photos are there as they were in the zip, and nothing beside them."""
    assert entries(data_dir / "coco") == ["val2017"]
    photos = data_dir / "coco" / "val2017"
    assert entries(photos) == NAMES
    with zipfile.ZipFile(io.BytesIO(ZIP)) as archive:
        assert all((photos / n).read_bytes() == archive.read(f"val2017/{n}") for n in NAMES)
    assert not [f for f in FolderPhotos(photos, "data_dir").scan() if f.error]


def test_downloads_and_unpacks(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["--to", str(tmp_path / "data"), "--url", server.url, "--md5", MD5.upper()]) == 0
    assert_whole(tmp_path / "data")
    assert server.asked == [None] and server.sent == [len(ZIP)]
    assert "10 photographs" in capsys.readouterr().out


def test_folder_comes_from_the_environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORIZATION_DATA", str(tmp_path / "elsewhere"))
    assert download.main(["--url", server.url, "--md5", MD5]) == 0
    assert_whole(tmp_path / "elsewhere")
    monkeypatch.delenv("COLORIZATION_DATA")
    monkeypatch.chdir(tmp_path)
    assert download.main(["--url", server.url, "--md5", MD5]) == 0
    assert_whole(tmp_path / "data")


def test_nothing_is_asked_when_the_photos_are_there(server: Server, tmp_path: Path) -> None:
    photos = tmp_path / "coco" / "val2017"
    photos.mkdir(parents=True)
    assert download.download_coco(tmp_path, server.url, MD5) == photos
    assert server.asked == [] and entries(photos) == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
def test_ctrl_c_leaves_what_was_loaded_and_the_next_start_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts, server.hold = [HALF], threading.Event()
    part = tmp_path / "coco" / "val2017.zip.part"
    command = [sys.executable, "-m", "colorization.data.download", "--to", tmp_path, "--url", server.url, "--md5", MD5]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background job ignores
    )
    waited = threading.Event()
    while not (part.exists() and part.stat().st_size) and process.poll() is None:
        waited.wait(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    server.hold.set()
    assert process.returncode == 130
    assert "to resume" in errors and "Traceback" not in errors
    assert entries(tmp_path / "coco") == [part.name]
    have = part.stat().st_size
    assert 0 < have <= HALF and part.read_bytes() == ZIP[:have]

    assert download.main(["--to", str(tmp_path), "--url", server.url, "--md5", MD5]) == 0
    assert_whole(tmp_path)
    assert server.asked == [None, f"bytes={have}-"] and server.sent == [HALF, len(ZIP) - have]


def test_goes_on_from_a_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val2017.zip.part").write_bytes(ZIP[:HALF])
    download.download_coco(tmp_path, server.url, MD5)
    assert_whole(tmp_path)
    assert server.asked == [f"bytes={HALF}-"] and server.sent == [len(ZIP) - HALF]


def test_a_whole_part_is_unpacked(server: Server, tmp_path: Path) -> None:
    """A run that was killed between download and unpacking."""
    coco = tmp_path / "coco"
    (coco / "val2017.unpacking" / "val2017").mkdir(parents=True)
    (coco / "val2017.unpacking" / "val2017" / "left-over.jpg").write_bytes(b"half")
    (coco / "val2017.zip.part").write_bytes(ZIP)
    download.download_coco(tmp_path, server.url, MD5)
    assert_whole(tmp_path)
    assert sum(server.sent) == 0


def test_without_ranges_it_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val2017.zip.part").write_bytes(b"x" * HALF)
    download.download_coco(tmp_path, server.url, MD5)
    assert_whole(tmp_path)
    assert server.asked == [f"bytes={HALF}-"] and server.sent == [len(ZIP)]


def test_a_cut_connection_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 500]
    download.download_coco(tmp_path, server.url, MD5)
    assert_whole(tmp_path)
    assert server.asked == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-"]
    assert sum(server.sent) == len(ZIP)


def test_a_line_that_often_breaks_gets_there(server: Server, tmp_path: Path) -> None:
    server.cuts = [2000] * (3 * download.ATTEMPTS)
    download.download_coco(tmp_path, server.url, MD5)
    assert_whole(tmp_path)
    assert sum(server.sent) == len(ZIP)


def test_gives_up_with_one_sentence(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.cuts = [HALF] + [0] * 100
    assert download.main(["--to", str(tmp_path), "--url", server.url, "--md5", MD5]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: --url {server.url}: the download failed") and errors.count("\n") == 1
    assert len(server.asked) == 1 + download.ATTEMPTS
    assert (tmp_path / "coco" / "val2017.zip.part").read_bytes() == ZIP[:HALF]


def test_no_server(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.shutdown()
    server.server_close()
    assert download.main(["--to", str(tmp_path), "--url", server.url, "--md5", MD5]) == 2
    errors = capsys.readouterr().err
    assert "refused" in errors and errors.count("\n") == 1
    assert entries(tmp_path / "coco") == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, download.ATTEMPTS)])
def test_refusals(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, requests: int
) -> None:
    server.status = status
    assert download.main(["--to", str(tmp_path), "--url", server.url, "--md5", MD5]) == 2
    assert f"{status}" in capsys.readouterr().err
    assert len(server.asked) == requests


def test_wrong_checksum(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main(["--to", str(tmp_path), "--url", server.url, "--md5", "0" * 32]) == 2
    errors = capsys.readouterr().err
    assert "checksum" in errors and MD5 in errors and errors.count("\n") == 1
    assert entries(tmp_path / "coco") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make_zip(["val2017/1.jpg", "../evil.jpg"]), "outside"),
        (make_zip(["val2017/1.jpg", "val2017/../../evil.jpg"]), "outside"),
        (make_zip(["val2017/1.jpg", "/tmp/evil.jpg"]), "outside"),
        (make_zip(["other/1.jpg"]), "no folder val2017"),
        (b"<html>please log in</html>", "not a zip archive"),
    ],
    ids=["dotdot", "inner dotdot", "absolute", "no folder", "no zip"],
)
def test_wrong_zips_are_refused(server: Server, tmp_path: Path, content: bytes, message: str) -> None:
    server.content = content
    with pytest.raises(InputError, match=message):
        download.download_coco(tmp_path / "data", server.url, hashlib.md5(content).hexdigest())
    assert entries(tmp_path / "data" / "coco") == ["val2017.zip.part"]
    assert entries(tmp_path) == ["data"]


def test_a_kill_while_unpacking_leaves_no_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = zipfile.ZipFile.extract
    unpacked = []

    def dies(self: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
        assert not (tmp_path / "coco" / "val2017").exists()
        if len(unpacked) == 5:
            raise KeyboardInterrupt
        unpacked.append(member)
        return extract(self, member, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(zipfile.ZipFile, "extract", dies)
        download.download_coco(tmp_path, server.url, MD5)
    assert entries(tmp_path / "coco") == ["val2017.zip.part"]
    download.download_coco(tmp_path, server.url, MD5)
    assert_whole(tmp_path)


@pytest.mark.parametrize("free", [len(ZIP) // 2, int(1.5 * len(ZIP))])
def test_too_little_room(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], free: int
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    assert download.main(["--to", str(tmp_path), "--url", server.url, "--md5", MD5]) == 2
    errors = capsys.readouterr().err
    assert "GB free" in errors and "--to" in errors and errors.count("\n") == 1
    assert not (tmp_path / "coco" / "val2017").exists()


@pytest.mark.parametrize("url", ["val2017.zip", "file:///etc/hostname", "ftp://127.0.0.1/val2017.zip"])
def test_wrong_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="should begin with http"):
        download.download_coco(tmp_path, url, MD5)


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert download.main(["--to", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
