"""One edit, and no other: a metric in the catalogue, a stage as a network and a YAML. Each in a copy of the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_train import NETWORK

import colorization
from colorization.models.weights import shipped_weights

SOURCES = Path(colorization.__file__).parent
CONFIGS = SOURCES.parent.parent / "configs"
METRIC = """
    Metric(
        name="accuracy_10",
        label="ε10",
        unit="%",
        digits=3,
        better="higher",
        help="share of the pixels that are right within 10 %",
        form=f"{_ACCURACY}, t = 10",
        formula=f"{_FORMULAS}.accuracy",
        arguments={"threshold": 10},
    ),"""
MODEL = """
defaults:
  - _self_
  - override /loss@_global_.loss: huber
_target_: colorization.training.stages.RegressionStage
name: pointwise
about:
  title: Pointwise colours
  idea: "A pixel's lightness alone."
  kind: colorizer
  inputs: [L]
  outputs: [ab]
network:
  _target_: colorization.networks.pointwise.Pointwise
  width: 8
loss: ${loss}
optimizer:
  _target_: torch.optim.Adam
  lr: 5e-3
"""
ASK = """
import json, sys
from colorization.api.app import create_app
from colorization.api.settings import load
app = create_app(load(output_dir="outputs"))
client = app.test_client()
answers = {name: client.get(f"/api/{name}").json for name in ("schema", "models", "openapi.json")}
app.extensions["colorization"].close()
json.dump(answers, open("answers.json", "w"))
"""


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., None]:
    """``python(*arguments)``: Python in ``tmp_path``, whose ``colorization`` is the copy there."""
    shutil.copytree(SOURCES, tmp_path / "colorization", ignore=shutil.ignore_patterns("web", "__pycache__", "configs"))
    shutil.copytree(CONFIGS, tmp_path / "colorization" / "configs")

    def run(*arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def answers(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "answers.json").read_text(encoding="utf-8"))


def test_a_metric_is_one_entry(python: Callable[..., None], tmp_path: Path) -> None:
    catalog = tmp_path / "colorization" / "evaluation" / "catalog.py"
    text = catalog.read_text(encoding="utf-8")
    before, end, after = text.partition("\n)\n\n\n@dataclass(frozen=True)\nclass Logged:")
    assert end
    catalog.write_text(before + METRIC + end + after, encoding="utf-8")

    python("-c", ASK)
    told = {m["name"]: m for m in answers(tmp_path)["schema"]["metrics"]}["accuracy_10"]
    assert (told["label"], told["unit"], told["digits"], told["better"]) == ("ε10", "%", 3, "higher")
    image = answers(tmp_path)["openapi.json"]["components"]["schemas"]["ImageOut"]
    assert "accuracy_10" in image["properties"]

    weights = shipped_weights()["shipped-baseline"]
    photos = ["datamodule=sample", "datamodule.image_size=64", "datamodule.num_workers=0", "accelerator=cpu"]
    python("-m", "colorization.eval", f"weights={weights}", *photos, "lpips=false", "eval_dir=e")
    table = (tmp_path / "e" / "table.md").read_text(encoding="utf-8")
    assert "| ε10 ↑ (%) |" in table and "ε10: share of the pixels that are right within 10 %." in table
    rows = json.loads((tmp_path / "e" / "metrics.json").read_text(encoding="utf-8"))["rows"]
    for row in rows:
        assert 100 >= row["accuracy_10"]["mean"] >= row["accuracy_5"]["mean"] >= row["accuracy_2"]["mean"]
        assert f"| {row['accuracy_10']['mean']:.3f} |" in table
    assert "accuracy_10" in (tmp_path / "e" / "per_image.csv").read_text(encoding="utf-8").split("\n", 1)[0]


def test_a_stage_is_a_network_and_a_yaml(python: Callable[..., None], tmp_path: Path, make_app: Any) -> None:
    package = tmp_path / "colorization"
    (package / "networks" / "pointwise.py").write_text(NETWORK, encoding="utf-8")
    (package / "configs" / "model" / "pointwise.yaml").write_text(MODEL, encoding="utf-8")

    python("-c", ASK)
    told = answers(tmp_path)
    models = {m["name"]: m for m in told["models"]["models"]}
    assert list(models)[-2:] == ["pointwise", "ensemble"]
    fifth = models["pointwise"]
    assert (fifth["title"], fifth["idea"]) == ("Pointwise colours", "A pixel's lightness alone.")
    assert (fifth["kind"], fifth["inputs"], fifth["outputs"]) == ("colorizer", ["L"], ["ab"])
    assert fifth["parameters"] == 8 + 8 + 16 + 2
    forms = {s["key"]: s for s in told["schema"]["forms"]["training"]}
    assert (forms["lr"]["defaults"]["pointwise"], forms["width"]["defaults"]["pointwise"]) == (5e-3, 8)
    assert "pointwise" not in forms["l1_weight"]["defaults"]
    assert told["openapi.json"] == make_app().test_client().get("/api/openapi.json").json  # names no model
