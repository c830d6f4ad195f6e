"""What several test files share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # before anything imports it: tests ask no network
# Tiny tensors gain nothing from a second thread and, on a busy machine, lose tenfold waiting for it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from PIL import Image

from colorization.data.datamodules import sample_photo
from colorization.hydra_main import register_resolvers

# The four stages at widths for tests, as overrides.
SMALL_STAGES = {
    "baseline": ["model=baseline", "model.network.width=4"],
    "unet": ["model=unet", "model.network.width=4"],
    "gan": ["model=gan", "model.network.width=4", "model.discriminator.width=4"],
    "fusion": [
        "model=fusion",
        "model.network.width=4",
        "model.discriminator.width=4",
        "model.network.resnet_size=32",
        "model.resnet_weights=null",
    ],
}


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests, and the processes that they start, find an AlexNet file that cannot be loaded, and so download none.

    Neither do they see or fill the user's cache.
    """
    os.environ["COLORIZATION_CACHE"] = str(tmp_path_factory.mktemp("cache"))
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


@pytest.fixture
def compose_train() -> Iterator[Callable[..., DictConfig]]:
    """``compose_train("model=unet", ...)``: the ``train`` config with these overrides, resolvers registered."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_module("colorization.configs", version_base="1.3"):
        yield lambda *overrides: compose("train", overrides=list(overrides))
    GlobalHydra.instance().clear()


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder of twelve colourful JPEGs of different sizes, two of them in a folder below."""
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
