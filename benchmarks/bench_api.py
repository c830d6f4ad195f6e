"""The REST API over loopback, against what it wraps, in one run.

    python benchmarks/bench_api.py [--rounds 15] [--seconds 15] [--runs 10000] [--save]

- latency of a colorized photo: the answer of a real server, and a direct ``Colorizer.colorize_file``, by turns
- throughput with 1, 4 and 16 clients, and directly, by turns; what the clients themselves take is told
- delay of server-sent events: from a line in a run's ``metrics.jsonl`` to the client
- the list of many runs
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import requests
from bench_colorize import mosaic
from common import arguments, photos

from colorization import Colorizer
from colorization.core import machine, runs

CLIENTS = (1, 4, 16)
PHOTO = {"Accept": "image/*"}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """``colorization serve`` in ``folder``; its URL."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    command = [sys.executable, "-m", "colorization.api.server", "serve", "--port", str(port)]
    settings = [f"output_dir={folder / 'outputs'}", "rate=1000000 per minute"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(600):
            try:
                requests.get(f"{url}/health", timeout=120).raise_for_status()
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def post(session: requests.Session, url: str, photo: Path) -> None:
    """Have a photo colorized, and take the picture."""
    while True:
        with photo.open("rb") as file:
            answer = session.post(f"{url}/colorize", files={"file": file}, headers=PHOTO, timeout=120)
        if answer.status_code != 503:
            break
        time.sleep(float(answer.headers["Retry-After"]))
    answer.raise_for_status()
    assert answer.headers["Content-Type"] == "image/jpeg", answer.headers


def latency(url: str, photo: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """p50 and p95 of both sides, ms."""
    colorizer, session = Colorizer.load(), requests.Session()
    sides: dict[str, Callable[[], Any]] = {
        "direct": lambda: colorizer.colorize_file(photo, scratch / "direct.jpg"),
        "API": lambda: post(session, url, photo),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if i:
                times[name].append(1000 * (time.perf_counter() - start))
    row: dict[str, Any] = {}
    for name, values in times.items():
        row[f"{name} p50, ms"] = statistics.median(values)
        row[f"{name} p95, ms"] = statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    row["overhead, ms"] = row["API p50, ms"] - row["direct p50, ms"]
    row["overhead"] = row["overhead, ms"] / row["direct p50, ms"]
    return row


def _photos_a_second(seconds: float, workers: int, work: Callable[[int], Any]) -> float:
    """How often ``workers`` threads get through ``work`` in a second."""
    done = count()
    start = time.perf_counter()

    def loop(worker: int) -> None:
        while time.perf_counter() - start < seconds:
            work(worker)
            next(done)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(loop, range(workers)))
    return next(done) / (time.perf_counter() - start)


def throughput(url: str, photo: Path, scratch: Path, seconds: float, slices: int = 3) -> list[dict[str, Any]]:
    """Photos/s of the API, and its share of the direct rate on the cores that the clients leave; by turns.

    Directly as many threads as clients, but no more than cores, which they share; a client that is alone waits for its
    answer before it asks again, as does the one thread.
    """
    cores = machine.cores()
    threads = cv2.getNumThreads()
    rows = []
    for clients in CLIENTS:
        callers = min(clients, cores)
        colorizer = Colorizer.load(threads=cores // callers)
        sessions = [requests.Session() for _ in range(clients)]
        direct, api, used = [], [], []

        def colorize(i: int, colorizer: Colorizer = colorizer) -> None:
            colorizer.colorize_file(photo, scratch / f"{i}.jpg")

        def ask(i: int, sessions: list[requests.Session] = sessions) -> None:
            post(sessions[i], url, photo)

        for _ in range(slices):
            cv2.setNumThreads(cores // callers)
            direct.append(_photos_a_second(seconds / slices, callers, colorize))
            cv2.setNumThreads(threads)
            before, start = _own_seconds(), time.perf_counter()
            api.append(_photos_a_second(seconds / slices, clients, ask))
            used.append((_own_seconds() - before) / (time.perf_counter() - start) / cores)
        share = statistics.mean(used)
        rows.append(
            {
                "clients": clients,
                "direct, photos/s": statistics.mean(direct),
                "API, photos/s": statistics.mean(api),
                "clients' share of the cores": share,
                "of the direct rate on the rest": sum(api) / (sum(direct) * (1 - share)),
            }
        )
    return rows


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def event_delay(url: str, outputs: Path, events: int = 20) -> dict[str, Any]:
    """Seconds from a row in ``metrics.jsonl`` to the client of the run's stream."""
    run = runs.Run(outputs / "runs" / "watched")
    run.path.mkdir(parents=True)
    run.update_status(
        state="running", model="unet", started=runs.utc_now(), pid=os.getpid(),
        process_started=_process_started(), host=socket.gethostname(), epoch=0, max_epochs=1,
    )  # fmt: skip
    for _ in range(100):
        if requests.get(f"{url}/training/status/watched", timeout=10).ok:
            break
        time.sleep(0.1)
    seen: dict[int, float] = {}
    ready = threading.Event()

    def watch() -> None:
        with requests.get(f"{url}/training/stream/watched", stream=True, timeout=60) as stream:
            ready.set()
            for line in stream.iter_lines(chunk_size=1):
                if line.startswith(b"data:"):
                    data = json.loads(line[5:])
                    if isinstance(data, dict) and data.get("name") == "delay":
                        seen[data["step"]] = time.monotonic()
                        if len(seen) == events:
                            return

    watcher = threading.Thread(target=watch)
    watcher.start()
    ready.wait(30)
    written = {}
    for step in range(events):
        time.sleep(0.13)
        run.append_metrics([{"step": step, "epoch": 0, "split": "train", "name": "delay", "value": 1.0}])
        written[step] = time.monotonic()
    watcher.join(60)
    delays = [seen[step] - written[step] for step in seen]
    return {"events": len(delays), "p50, s": statistics.median(delays), "max, s": max(delays)}


def _process_started() -> float:
    import psutil

    return psutil.Process().create_time()


def many_runs(folder: Path, number: int, rounds: int = 20) -> dict[str, Any]:
    """ms of the list of ``number`` runs, a page of it and a search in it."""
    for i in range(number):
        run = runs.Run(folder / "outputs" / "runs" / f"unet-{i:05d}")
        run.path.mkdir(parents=True)
        metrics = {"val/delta_e2000": 10 + i / number}
        content = {"schema": runs.SCHEMA, "run_id": run.id, "state": "finished", "model": "unet", "metrics": metrics}
        run.status_file.write_text(json.dumps({**content, "started": "2026-01-01T00:00:00+00:00", "epoch": 20}))
    row: dict[str, Any] = {"runs": number}
    with server(folder) as url:
        start = time.perf_counter()
        while requests.get(f"{url}/history/runs", timeout=60).json()["total"] < number:
            assert time.perf_counter() - start < 120
            time.sleep(0.2)
        row["found after, s"] = time.perf_counter() - start
        for name, path in (
            ("first page, ms", "/history/runs"),
            ("largest page, ms", "/history/runs?per_page=100&page=50"),
            ("search, ms", "/history/runs?q=unet-0999"),
            ("training/runs, ms", "/training/runs"),
        ):
            times = []
            for _ in range(rounds):
                before = time.perf_counter()
                requests.get(url + path, timeout=60).raise_for_status()
                times.append(1000 * (time.perf_counter() - before))
            row[name] = statistics.median(times)
    return row


def bench(rounds: int = 15, seconds: float = 15.0, runs: int = 10_000, megapixels: str = "0.3,12") -> dict[str, Any]:
    """The API against the direct call: ``rounds`` of each latency, ``seconds`` of each throughput."""
    tables: dict[str, list[dict[str, Any]]] = {"latency": []}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = sorted(photos(scratch, 20).glob("*.jpg"))
        sizes = {float(mp): scratch / f"{mp}.jpg" for mp in megapixels.split(",")}
        for mp, photo in sizes.items():
            mosaic(files, mp, photo)
        (scratch / "busy").mkdir()
        with server(scratch / "busy") as url:
            for mp, photo in sizes.items():
                tables["latency"].append({"megapixels": mp, **latency(url, photo, scratch, rounds)})
            tables["throughput"] = [
                {"megapixels": mp, **row}
                for mp, photo in sizes.items()
                for row in throughput(url, photo, scratch, seconds)
            ]
            tables["events"] = [event_delay(url, scratch / "busy" / "outputs")]
        (scratch / "many").mkdir()
        tables["list"] = [many_runs(scratch / "many", runs)]
    return {"tables": tables}


if __name__ == "__main__":
    arguments(bench)
