"""The folder run on a Ray cluster: what the local run leaves, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import clusters
import psutil
import pytest
import sftp
from conftest import free_port, wait_for
from PIL import Image
from test_folder import canonical, lines, names, results, scans, weights  # noqa: F401 (fixtures)

from colorization.colorize import folder
from colorization.data.datamodules import sample_photo

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, scans: Path, weights: Path, ray_cluster: clusters.Ray) -> Start:  # noqa: F811
    """``start("out", "--engine", "ray")``: the command on sixty photos of which two cannot be read."""
    grey = Image.fromarray(sample_photo("skimage/coffee")).convert("L")
    for i in range(46):
        grey.crop((i * 9, i * 9, i * 9 + 300, i * 9 + 200)).save(scans / f"{i:02d}.jpg")
    (scans / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (scans / "pipe.png").unlink(missing_ok=True)
    os.mkfifo(scans / "pipe.png")

    def begin(out: str, *more: str, photos: str = "scans") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "colorization.colorize.cli", photos, "-o", out, "-r", "--strip", *more]
        environment = os.environ | ray_cluster.environment | {"COLORIZATION_WEIGHTS": str(weights)}
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **said)  # type: ignore[call-overload]

    return begin


def workers(cluster: clusters.Ray, kind: str = "_Worker") -> list[psutil.Process]:
    """The processes of its actors."""
    found = []
    for process in psutil.Process(cluster.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if f"ray::{kind}" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
def test_the_same_files_and_the_same_manifest(start: Start, tmp_path: Path) -> None:
    said, error = start("local").communicate(timeout=120)
    assert "done 58, skipped 0, failed 2" in said, error
    process = start("ray", "--engine", "ray")
    said, error = process.communicate(timeout=240)
    assert process.returncode == 1 and "done 58, skipped 0, failed 2" in said, error
    assert error.count("failed: ") == 2 and "not a file" in error and "Traceback" not in error
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert canonical(tmp_path / "ray") == canonical(tmp_path / "local")
    # Either goes on with what the other has left.
    said, error = start("ray").communicate(timeout=120)
    assert "done 0 (58 more were finished before), skipped 0, failed 2" in said, error


@pytest.mark.slow
def test_photos_and_results_elsewhere(start: Start, tmp_path: Path, scans: Path) -> None:  # noqa: F811
    """Which the workers fetch and bring themselves."""
    (scans / "pipe.png").unlink()  # a server may wait for it
    start("local").communicate(timeout=120)
    with sftp.serve(tmp_path) as url:
        said, error = start(f"{url}/ray", "--engine", "ray", photos=f"{url}/scans").communicate(timeout=240)
    assert "done 58, skipped 0, failed 1" in said, error
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert "secret" not in said + error + (tmp_path / "ray" / folder.MANIFEST).read_text()


@pytest.mark.slow
def test_killed_workers_and_a_killed_command_lose_nothing(
    start: Start, tmp_path: Path, ray_cluster: clusters.Ray
) -> None:
    start("local").communicate(timeout=120)
    manifest = tmp_path / "ray" / folder.MANIFEST
    process = start("ray", "--engine", "ray", "--workers", "2")
    for done in (3, 9):  # one in the beginning, one later
        wait_for(lambda done=done: manifest.exists() and manifest.read_bytes().count(b"\n") > done)
        workers(ray_cluster)[0].kill()
    wait_for(lambda: manifest.read_bytes().count(b"\n") > 18)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = sum(row.get("state") == "done" for row in lines(tmp_path / "ray"))
    assert 18 - 2 <= done < 58 and not [r for r in lines(tmp_path / "ray") if "died" in json.dumps(r)]
    process = start("ray", "--engine", "ray", "--workers", "2")
    said, error = process.communicate(timeout=240)
    assert "skipped 0, failed 2" in said, error
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert canonical(tmp_path / "ray") == canonical(tmp_path / "local")


# Its class of workers is pickled by value, since it is __main__'s: they hang as this process would.
HANGING = """
import re, sys
import imagecodecs, tifffile
from colorization.colorize import cli, cluster
from colorization.files import pictures

class Hanging(cluster._Worker):
    def __init__(self, *arguments):
        imagecodecs.jpeg8_decode, imagecodecs.jpeg8_encode, imagecodecs.png_encode  # loaded now: no photo's time
        whole = pictures.Picture._open

        def hangs(picture):
            if str(picture._path).endswith("hangs.jpg"):  # in C, and with the interpreter's lock
                re.match("(a*)*b", "a" * 99)
            return whole(picture)

        pictures.Picture._open = hangs
        super().__init__(*arguments)

cluster._Worker = Hanging
sys.exit(cli.colorize(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_photo_that_hangs_is_given_up_and_its_worker_replaced(
    tmp_path: Path,
    scans: Path,  # noqa: F811
    weights: Path,  # noqa: F811
    ray_cluster: clusters.Ray,
) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    everything = names(scans)
    (scans / "hangs.jpg").write_bytes((scans / "a.jpg").read_bytes())
    command = [sys.executable, "hanging.py", "scans", "-o", "out", "-r", "--engine", "ray", "--workers", "1"]
    environment = os.environ | ray_cluster.environment | {"COLORIZATION_WEIGHTS": str(weights)}
    process = subprocess.run(
        [*command, "--file-timeout", "4"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 1, process.stderr
    assert "done 12, skipped 0, failed 1; " in process.stdout
    assert sorted(results(tmp_path / "out")) == everything
    failed = {row["target"]: row["error"] for row in lines(tmp_path / "out") if row["state"] == "failed"}
    assert failed == {"hangs.jpg": "took more than 4 s; --file-timeout allows more"}
    assert [f.name for f in (tmp_path / "out" / folder.WORK).iterdir()] == ["lock"]
    wait_for(lambda: not workers(ray_cluster, "Hanging"))  # none still counts


def test_no_cluster_is_said_in_a_sentence(tmp_path: Path, scans: Path) -> None:  # noqa: F811
    command = [sys.executable, "-m", "colorization.colorize.cli", "scans", "-o", "out", "-r", "--engine", "ray"]
    environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{free_port()}", "RAY_AUTH_MODE": "disabled"}
    said: Any = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 2
    assert said.stderr.strip().splitlines()[-1].startswith("error: --engine ray: no Ray cluster answers at 127.0.0.1")
