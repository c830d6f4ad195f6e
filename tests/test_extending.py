"""The package of docs/extending.md, which nobody here knows: trained, evaluated, exported and colorized with."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colorization import Colorizer, export, train
from colorization import eval as evaluation
from colorization.core import hydra_main, trusted
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.networks.building import build_network

DOCUMENT = Path(__file__).parent.parent / "docs" / "extending.md"
SMALL = (
    *("datamodule=sample", "datamodule.image_size=32", "datamodule.crops=2", "datamodule.batch_size=2"),
    *("datamodule.num_workers=0", "accelerator=cpu", "logger=csv", "lpips=false"),
)


def blocks() -> dict[str, str]:
    """The files that the document shows, by the name in their first line."""
    found = {}
    for block in DOCUMENT.read_text(encoding="utf-8").split("```")[1::2]:
        head, _, body = block.partition("\n")
        first = body.split("\n", 1)[0]
        if head in ("python", "yaml") and first.startswith("# ") and first.endswith((".py", ".yaml")):
            found[first.removeprefix("# ")] = body
    return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the document, where Python finds it."""
    root = tmp_path / "site"
    for name, content in blocks().items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    for folder in (root / "tintlab", root / "tintlab" / "configs"):
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv(trusted.VARIABLE, "")
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "tintlab"]:
        del sys.modules[name]


@pytest.fixture
def run_id(run_main: Callable[..., int], package: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of the document's stage, with its loss and its schedule; nothing is trusted any more after it."""
    search = "hydra.searchpath=[pkg://tintlab.configs]"
    assert run_main(train.main, search, "model=tint", "run_id=t", "trainer.max_steps=3", "callbacks=tint", *SMALL) == 0
    monkeypatch.setenv(trusted.VARIABLE, "")
    return "t"


def test_a_package_is_trained_evaluated_exported_and_colorized_with(run_main, run_id, tmp_path, monkeypatch) -> None:
    run = Run(tmp_path / "outputs/runs" / run_id)
    rates = {row["step"]: row["value"] for row in run.metrics() if row["name"] == "lr"}
    assert rates == {step: pytest.approx(1e-3 * 0.5**step) for step in rates}  # the schedule of torch
    assert max(rates) == 2
    assert "3 steps of tint" in (run.path / "train.log").read_text()  # the callback
    assert run_main(train.main, f"run_id={run_id}", "ckpt_path=last", "trainer.max_steps=5") == 0

    trusted_now = "trust=[tintlab]"
    assert run_main(evaluation.main, f"weights={run_id}", *SMALL[:2], "lpips=false", "eval_dir=e", trusted_now) == 0
    assert "| tint |" in (tmp_path / "e/table.md").read_text()
    assert run_main(lambda: hydra_main.run(export.command, "export"), f"weights={run_id}", trusted_now) == 0
    # The ONNX model is the network itself: nothing of the package runs any more.
    monkeypatch.setenv(trusted.VARIABLE, "")
    Image.fromarray(np.full((40, 50), 128, np.uint8)).save(tmp_path / "grey.png")
    assert Colorizer.load(run.weights_file, backend="onnx").colorize(tmp_path / "grey.png").size == (50, 40)


def test_weights_of_an_unknown_package_are_refused_until_it_is_named(run_id, tmp_path) -> None:
    weights = Run(tmp_path / "outputs/runs" / run_id).weights_file
    with pytest.raises(InputError, match=r"tintlab.*trust=\[tintlab\].*colorize --trust tintlab"):
        Colorizer.load(weights, backend="torch")
    command = [sys.executable, "-m", "colorization.colorize.cli", "grey.png", "-o", "colour.png", "--backend", "torch"]
    Image.fromarray(np.full((40, 50), 128, np.uint8)).save(tmp_path / "grey.png")
    command += ["--weights", str(weights)]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "colour.png").exists()
    assert subprocess.run([*command, "--trust", "tintlab"], cwd=tmp_path).returncode == 0
    assert np.asarray(Image.open(tmp_path / "colour.png")).shape == (40, 50, 3)
    assert Colorizer.load(weights, backend="torch", trust=["tintlab"]).description["stage"] == "tint"


def test_trust_is_for_packages_that_are_named_alone(monkeypatch) -> None:
    monkeypatch.setenv(trusted.VARIABLE, "")
    trusted.trust(["torch.nn"])
    assert isinstance(build_network({"_target_": "torch.nn.Identity"}), torch.nn.Identity)
    for target in ("torch.hub.load", "torch.nnx.Identity", "os.system"):
        with pytest.raises(InputError, match="if you trust it"):
            build_network({"_target_": target})
    with pytest.raises(InputError, match="name of a package"):
        trusted.trust(["no package"])
