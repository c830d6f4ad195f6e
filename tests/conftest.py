"""What several test files share.

It imports no torch: pytest's first process, which starts the others and runs no test, would wait for it.
"""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # before anything imports it: tests ask no network
# Tiny tensors gain nothing from a second thread and, on a busy machine, lose tenfold waiting for it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import absl.logging
import forks
import numpy as np
import psutil
import pytest
import requests
from PIL import Image

if TYPE_CHECKING:
    from apiflask import APIFlask
    from omegaconf import DictConfig

# TensorBoard's logging holds the stderr of its import, and closes it when Hydra sets up its own: else pytest's capture.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# The four stages at widths for tests, as overrides. Fusion's ResNet-18, which has one size, is in tests of networks and
# of stages.
SMALL_STAGES = {
    "baseline": ["model=baseline", "model.network.width=4"],
    "unet": ["model=unet", "model.network.width=4"],
    "gan": ["model=gan", "model.network.width=4", "model.discriminator.width=4"],
    "fusion": [
        "model=fusion",
        "model.network.width=4",
        "model.discriminator.width=4",
        "model.network.features=test_efficientnet",
        "model.network.resnet_size=32",
        "model.resnet_weights=null",
    ],
}

# The same of what has a timm backbone.
SMALL_ENCODERS = {
    name: [f"model={name}", "model.network.encoder=test_efficientnet", "model.encoder_weights=null"]
    for name in ("encoder_unet", "classes", "hinted")
}


# A training of seconds, as overrides.
SMALL_RUN = [
    *SMALL_STAGES["baseline"],
    "datamodule=sample",
    "datamodule.image_size=32",
    "datamodule.crops=1",
    "datamodule.batch_size=2",
    "datamodule.num_workers=0",
    "accelerator=cpu",
    "logger=csv",
    "test=false",
    "trainer.max_epochs=2",
]


AnyProcess = subprocess.Popen[str] | forks.Process
# Seconds that anything may take, on a machine whose cores others use, too; what is waited for mostly takes one or two.
PATIENCE = 300


def free_port() -> int:
    """A port of this machine on which nobody listens, and which no connection of another test is given meanwhile."""
    for port in random.SystemRandom().sample(range(20000, 30000), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE, process: AnyProcess | None = None) -> Any:
    """What ``condition`` returns once it is true; if that needs a process, it fails with what this said."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if value := condition():
            return value
        time.sleep(0.1)  # a server takes 20 requests a second of one client
    if process is None:
        raise AssertionError(f"it did not come to pass in {seconds} s")
    ended = process.poll()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"it did not come to pass; exit code {ended}; it said:\n{process.communicate(timeout=60)[0]}")


def finish(process: AnyProcess, code: int = 0, seconds: float = PATIENCE) -> str:
    """What the command said; it must end by itself, with this exit code, and leave no process behind."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(process.communicate()[0]) from None
    assert process.returncode == code, said
    try:  # joblib's watcher of resources needs a moment to see that it is alone
        wait_for(lambda: not [p for p in psutil.process_iter() if _group(p) == process.pid])
    except AssertionError:
        raise AssertionError(f"a process is left behind: {said}") from None
    return said


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as cores, as half of the time a test waits for a process of its own. Four of them, with
    these processes, were seen to take 13 GB."""
    return max(1, min(2 * (psutil.cpu_count() or 1), psutil.virtual_memory().available // 3_200_000_000))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have recorded with ``record_property``, where all see it."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests, and the processes that they start, find an AlexNet file that cannot be loaded, and so download none.

    Neither do they see or fill the user's cache.
    """
    import colorization.core.hydra_main  # noqa: F401 (the resolvers of the configs)

    os.environ["COLORIZATION_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["FSSPEC_SFTP_PASSWORD"] = "secret"  # of tests/sftp.py, for every process that is ever forked
    home = tmp_path_factory.mktemp("torch")
    os.environ["TORCH_HOME"] = str(home)
    (home / "hub" / "checkpoints").mkdir(parents=True)
    (home / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()


@pytest.fixture
def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """``run_main(main, *arguments)``: a command in this process, in ``tmp_path``; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    handlers = list(logging.root.handlers)

    def call(main: Callable[[], object], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        try:
            main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
        return 0

    yield call
    logging.root.handlers[:] = handlers  # Hydra's own write to this test's captured stderr, which later tests close


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, `trained`: baseline, width 4, one epoch on the sample photos. To be copied."""
    from colorization import train

    folder = tmp_path_factory.mktemp("trained")
    data = ["datamodule=sample", "datamodule.image_size=32", "datamodule.crops=1", "datamodule.num_workers=0"]
    handlers = list(logging.root.handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["run_id=trained", *SMALL_STAGES["baseline"], *data, "accelerator=cpu", "trainer.max_epochs=1"]
        patch.setattr(sys, "argv", ["train", *arguments])
        train.main()
    logging.root.handlers[:] = handlers
    return folder / "outputs" / "runs" / "trained"


@pytest.fixture
def compose_train() -> Iterator[Callable[..., DictConfig]]:
    """``compose_train("model=unet", ...)``: the ``train`` config with these overrides."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module("colorization.configs", version_base="1.3"):
        yield lambda *overrides: compose("train", overrides=list(overrides))
    GlobalHydra.instance().clear()


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder of twelve colourful JPEGs of different sizes, two of them in a folder below."""
    from colorization.data.datamodules import sample_photo

    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    sources = [sample_photo(p) for p in ("skimage/astronaut", "skimage/coffee", "sklearn/flower", "sklearn/china")]
    rng = np.random.default_rng(0)
    for i in range(12):
        photo = sources[i % len(sources)]
        h, w = (int(n) for n in rng.integers(160, 280, 2))
        y, x = int(rng.integers(photo.shape[0] - h)), int(rng.integers(photo.shape[1] - w))
        image = Image.fromarray(photo[y : y + h, x : x + w]).resize((w // 2, h // 2))
        image.save(folder / ("more" if i >= 10 else ".") / f"{i:02d}.jpg", quality=92)
    return folder


@pytest.fixture
def photo_bytes() -> Callable[..., bytes]:
    """``photo_bytes(side, format)``: a real photograph, encoded."""
    from colorization.data.datamodules import sample_photo

    def make(side: int = 96, format: str = "JPEG") -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(sample_photo("skimage/astronaut")).resize((side, side)).save(buffer, format)
        return buffer.getvalue()

    return make


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., APIFlask]]:
    """``make_app(key=value, ...)``: the app in ``tmp_path``, data below ``tmp_path/data``; closed at the end."""
    from colorization.api.app import create_app
    from colorization.api.settings import load

    apps: list[APIFlask] = []

    def make(**settings: Any) -> APIFlask:
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        given = {"output_dir": tmp_path / "outputs", "data_roots": [str(data)], **settings}
        apps.append(create_app(load(**given)))
        return apps[-1]

    yield make
    for app in apps:
        app.extensions["colorization"].close()


class Server:
    """``colorization serve`` as a process of its own in a folder; :meth:`start` it again after :meth:`kill`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url, self.process = folder, "", None
        (folder / "data").mkdir(exist_ok=True)

    def start(self, *arguments: str, **environment: str) -> Server:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "colorization.api.server", "serve", "--port", str(port), *arguments]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        wait_for(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            return requests.get(f"{self.url}/api/health", timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """End the server and its worker (not the runs, which have their own process groups)."""
        assert self.process is not None
        os.killpg(self.process.pid, signum)
        self.process.wait(PATIENCE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A :class:`Server` in ``tmp_path``, not started; ended at the end."""
    it = Server(tmp_path)
    yield it
    if it.process is not None and it.process.poll() is None:
        it.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A :class:`clusters.Ray` for all tests that do not kill it."""
    import clusters

    with clusters.ray() as cluster:
        yield cluster
