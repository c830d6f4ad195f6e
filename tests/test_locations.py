"""Folders elsewhere: on an SFTP server, and where folders are but parts of names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sftp
from conftest import free_port, wait_for
from test_folder import canonical, lines, results
from test_folder import run as run
from test_folder import scans as scans
from test_folder import weights as weights

from colorization.colorize import folder
from colorization.files import locations

Run = Callable[..., int]


@pytest.fixture
def url(tmp_path: Path, scans: Path) -> Iterator[str]:
    """Of ``tmp_path``, by SFTP."""
    (scans / "box 1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    with sftp.serve(tmp_path) as url:
        yield url


def same_but_for_places(out: Path, other: Path) -> bool:
    """Whether two manifests say the same of all photos, which they may have read from different places."""
    one, two = ([json.loads(line) | {"source": ""} for line in canonical(path)] for path in (out, other))
    return one == two


def test_the_same_files_and_the_same_manifest(run: Run, url: str, tmp_path: Path, capsys: Any) -> None:
    assert run("scans", "-o", "local", "--strip") == 1
    capsys.readouterr()
    for photos, out in (("scans", f"{url}/there"), (f"{url}/scans/", "back"), (f"{url}/scans", f"{url}/both")):
        assert run(photos, "-o", out, "--strip", "--workers", 4) == 1
        said = capsys.readouterr()
        assert said.out.startswith("done 12, skipped 0, failed 1; "), said.err
        assert "secret" not in said.out + said.err
        name = out.rpartition("/")[2]
        assert results(tmp_path / name) == results(tmp_path / "local")
        assert same_but_for_places(tmp_path / name, tmp_path / "local")
        assert not list((tmp_path / name / folder.WORK).glob("*/*")), "something is left in hand"
        # It goes on: nothing is finished twice.
        assert run(photos, "-o", out, "--strip") == 1
        assert "done 0 (12 more were finished before), skipped 0, failed 1" in capsys.readouterr().out
        assert run(photos, "-o", out, "--strip", "--dry-run") == 0
        assert capsys.readouterr().out.endswith("1 to do, 12 finished\n")
    assert "secret" not in (tmp_path / "both" / folder.MANIFEST).read_text()


def test_what_changes_is_seen(run: Run, url: str, scans: Path, tmp_path: Path, capsys: Any) -> None:
    both = f"{url}/scans", "-o", f"{url}/out", "--filter", "?.*"
    assert run(*both) == 0
    made = results(tmp_path / "out")
    (scans / "a.jpg").write_bytes((scans / "box 2" / "a.jpg").read_bytes())
    (tmp_path / "out" / "b.png").write_bytes(b"painted by hand")
    (tmp_path / "out" / "c.webp").unlink()
    capsys.readouterr()
    assert run(*both) == 1
    said = capsys.readouterr()
    assert "done 2 (8 more were finished before), skipped 0, failed 1" in said.out
    assert "b.png already exists, and not as this program left it; --overwrite replaces it" in said.err
    now = results(tmp_path / "out")
    assert now.pop("b.png") == b"painted by hand" and now["c.webp"] == made["c.webp"]
    assert {name for name in now if now[name] != made[name]} == {"a.jpg"}
    # Same bytes, another time: told by the hash.
    os.utime(tmp_path / "out" / "d.tif", (1, 1))
    os.utime(scans / "d.tif", (1, 1))
    assert run(*both, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("1 to do, 10 finished\n")


def test_a_killed_run_goes_on(
    run: Run,
    url: str,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    assert run("scans", "-o", "local") == 1
    command = [
        sys.executable,
        "-m",
        "colorization.colorize.cli",
        f"{url}/scans",
        "-o",
        f"{url}/out",
        "-r",
        "--workers",
        "2",
    ]
    environment = os.environ | {"COLORIZATION_WEIGHTS": str(weights)}
    parts = tmp_path / "out" / folder.WORK / "manifest"
    with subprocess.Popen(command, env=environment) as process:
        wait_for(lambda: len(list(parts.glob("*"))) >= 4)
        process.send_signal(signal.SIGSTOP)  # meanwhile nobody else gets in
        capsys.readouterr()
        assert run(f"{url}/scans", "-o", f"{url}/out") == 2
        assert "another process is colorizing into this folder; wait (one that was killed counts for 90 s)" in (
            capsys.readouterr().err
        )
        process.send_signal(signal.SIGKILL)
    monkeypatch.setattr(locations.Lease, "OVER", 0)
    assert run(f"{url}/scans", "-o", f"{url}/out") == 1
    assert results(tmp_path / "out") == results(tmp_path / "local")
    assert same_but_for_places(tmp_path / "out", tmp_path / "local")
    targets = [row["target"] for row in lines(tmp_path / "out") if row["state"] == "done"]
    assert len(targets) <= len(set(targets)) + 2, "more than what was in hand was done again"


def test_a_lease_is_renewed(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations.Lease, "EVERY", 0.2)
    monkeypatch.setattr(locations.Lease, "OVER", 2)
    file = locations.location(f"{url}/lease")
    with locations.lock(file):
        began = (tmp_path / "lease").read_text()
        wait_for(lambda: (tmp_path / "lease").read_text() != began)
        with pytest.raises(locations.Timeout), locations.lock(file):
            pass
    assert not (tmp_path / "lease").exists()


def test_a_lease_outlives_a_network_that_fails_for_a_time(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations.Lease, "EVERY", 0.2)
    write, failures = locations.Lease._write, iter([False, True, True, False])

    def fails(self: locations.Lease, path: Any) -> None:
        if next(failures, False):
            raise OSError("unreachable")
        write(self, path)

    monkeypatch.setattr(locations.Lease, "_write", fails)
    with locations.lock(locations.location(f"{url}/lease")):
        began = (tmp_path / "lease").read_text()
        wait_for(lambda: (tmp_path / "lease").read_text() != began)
        assert next(failures, None) is None  # it has failed twice before
        with pytest.raises(locations.Timeout), locations.lock(locations.location(f"{url}/lease")):
            pass


def test_who_was_held_up_until_another_came_stops(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations.Lease, "EVERY", 0.2)
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    try:
        with locations.lock(locations.location(f"{url}/lease")):
            (tmp_path / "lease").write_text(f"other 1 abc {time.time():.0f}")
            wait_for(lambda: signals)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "lease").read_text().startswith("other")  # and leaves it to the other one


def test_a_lease_that_is_being_written_is_held(tmp_path: Path, url: str) -> None:
    (tmp_path / "lease").write_text("")
    with pytest.raises(locations.Timeout), locations.lock(locations.location(f"{url}/lease")):
        pass


def test_lines_of_many_threads_come_in_few_parts(url: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    (tmp_path / "log").mkdir()
    place = locations.location(f"{url}/log")
    log = locations.log(place / "all.jsonl", place / "parts")
    log.begin()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: log.append(b"%d\n" % i), range(160)))
    # A crash now: all are there, and one that was cut short is not.
    parts = sorted((tmp_path / "log" / "parts").iterdir())
    assert len(parts) < 60
    with parts[-1].open("ab") as file:
        file.write(b"cut sho")
    assert sorted(map(int, locations.log(place / "all.jsonl", place / "parts").read().split())) == list(range(160))
    log.close()
    assert not list((tmp_path / "log" / "parts").iterdir())
    assert sorted(map(int, (tmp_path / "log" / "all.jsonl").read_bytes().split())) == list(range(160))


def test_where_folders_are_but_parts_of_names(run: Run, scans: Path, tmp_path: Path, capsys: Any) -> None:
    """fsspec's own memory, which knows no time of a change either."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{scans}/", "/archive/scans/", recursive=True)
    assert run("scans", "-o", "local") == 0
    try:
        for summary in ("done 12, skipped", "done 0 (12 more were finished before), skipped"):
            capsys.readouterr()
            assert run("memory://archive/scans", "-o", "memory://archive/out") == 0
            assert capsys.readouterr().out.startswith(summary)
        memory.get("/archive/out/", f"{tmp_path}/out/", recursive=True)
        assert results(tmp_path / "out") == results(tmp_path / "local")
        assert same_but_for_places(tmp_path / "out", tmp_path / "local")
    finally:
        memory.rm("/archive", recursive=True)


def test_a_server_that_goes_away_ends_the_run_in_a_sentence(
    tmp_path: Path,
    scans: Path,
    weights: Path,
) -> None:
    with sftp.serve(tmp_path) as url:
        command = [
            sys.executable,
            "-m",
            "colorization.colorize.cli",
            f"{url}/scans",
            "-o",
            f"{url}/out",
            "-r",
            "--workers",
            "1",
        ]
        environment = os.environ | {"COLORIZATION_WEIGHTS": str(weights)}
        process = subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)
        wait_for(lambda: len(list((tmp_path / "out" / folder.WORK / "manifest").glob("*"))) >= 3)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 1 and "stopped: " in said and "run the same command to resume" in said
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("sftp://u@127.0.0.1:{port}/scans", "cannot be reached"),
        ("sftp://u:secret@127.0.0.1:{port}/scans", "a password in a URL would be kept"),
        ("gopher://host/scans", "Unsupported filesystem: 'gopher'"),
        ("s3://bucket/scans", "Install s3fs to access S3"),
    ],
)
def test_a_place_that_cannot_be_reached_is_said_in_a_sentence(
    run: Run,
    scans: Path,
    place: str,
    words: str,
    capsys: Any,
) -> None:
    for arguments in ([place, "-o", "out"], ["scans", "-o", place]):
        assert run(*(a.format(port=free_port()) for a in arguments)) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {place.split('u')[0]}") and words in error
        assert "secret" not in error


def test_one_photo_is_of_this_machine(run: Run, scans: Path, url: str, capsys: Any) -> None:
    assert run(f"{url}/scans/a.jpg", "-o", "a.jpg") == 2
    assert "single photos are taken from and left on this machine; give folders" in capsys.readouterr().err
