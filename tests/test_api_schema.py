"""``GET /api/schema``: its figures are those of the tables, its settings those by which requests are checked."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose
from marshmallow import Schema, ValidationError
from omegaconf import DictConfig, OmegaConf

from colorization.api import forms
from colorization.api.machine import accelerator
from colorization.api.training.composing import choices
from colorization.data.datamodules import FolderDataModule, ShardsDataModule
from colorization.evaluation import report
from colorization.evaluation.catalog import METRICS


@pytest.fixture
def client(make_app: Any) -> Any:
    return make_app().test_client()


@pytest.fixture
def schema(client: Any) -> dict[str, Any]:
    answer = client.get("/api/schema")
    assert answer.status_code == 200
    return answer.json


def test_the_figures_are_those_of_the_tables(schema: dict[str, Any]) -> None:
    told = {m["name"]: m for m in schema["metrics"]}
    assert list(told) == list(report.FIGURES)
    assert [name for name, m in told.items() if m["shown"]] == list(report.COLUMNS)
    for metric in METRICS:
        one = {"label": metric.label, "unit": metric.unit, "digits": metric.digits, "better": metric.better}
        assert {key: told[metric.name][key] for key in one} == one
        assert told[metric.name]["form"] == metric.form
    assert told[schema["main"]]["label"] == "ΔE2000"
    assert (told["ssim"]["digits"], told["psnr"]["unit"]) == (4, "dB")


def test_defaults_are_those_of_the_composed_configuration(schema: dict[str, Any], compose_train: Any) -> None:
    kind = f"accelerator.kind={accelerator()['kind']}"
    configs: dict[str, dict[str, DictConfig]] = {
        per: {name: compose_train(f"{per}={name}", kind) for name in choices(per)} for per in ("model", "datamodule")
    }
    for setting in schema["forms"]["training"][1:]:
        for name, config in configs[setting["per"]].items():
            value = OmegaConf.select(config, setting["config"])
            assert setting["defaults"].get(name) == value, (setting["key"], name)
    photos = schema["forms"]["training"][0]
    assert photos["default"] == compose_train().datamodule.name
    evaluation = compose("eval")
    for setting in schema["forms"]["evaluation"]:
        assert setting["default"] == OmegaConf.select(evaluation, setting["config"]), setting["key"]


def test_a_folder_is_asked_for_where_the_data_takes_one(schema: dict[str, Any], compose_train: Any) -> None:
    photos = schema["forms"]["training"][0]
    assert {choice["value"] for choice in photos["choices"]} == set(choices("datamodule"))
    for choice in photos["choices"]:
        data = compose_train(f"datamodule={choice['value']}").datamodule
        of_folders = data._target_.endswith((f".{FolderDataModule.__name__}", f".{ShardsDataModule.__name__}"))
        free = of_folders and not data.get("train_dir") and not data.get("test_dir")
        assert (choice["takes"] == ["data"]) <= free, choice["value"]


def test_requests_are_refused_by_what_is_told(client: Any, schema: dict[str, Any]) -> None:
    def refused(body: dict[str, Any]) -> set[str]:
        answer = client.post("/api/training/start", json={"model": "gan", "datamodule": "sample", **body})
        assert answer.status_code == 422, body
        return set(answer.json["errors"])

    for setting in schema["forms"]["training"]:
        if setting["kind"] in ("integer", "number"):
            below = setting["above"] if setting["low"] is None else setting["low"] - 1
            wrong = [below, setting["high"] + 1, "many"]
        else:
            wrong = ["no such choice", 1]
        for value in wrong:
            assert refused({setting["key"]: value}) == {setting["key"]}
    assert refused({"model": "unet", "l1_weight": 5}) == {"l1_weight"}  # which has none


def test_a_setting_is_one_entry() -> None:
    """Checked in requests and given to the command."""
    curve = forms.Setting(
        key="curve", label="Curve", help="Twice the time.", kind="flag", default=False, config="curve"
    )

    @forms.with_settings((*forms.EVALUATION, curve))
    class In(Schema):
        """A request."""

    asked = In().load({"curve": True})
    assert forms.overrides((*forms.EVALUATION, curve), asked) == [
        "datamodule.image_size=256", "ensemble=null", "uncertainty=false", "curve=true",
    ]  # fmt: skip
    with pytest.raises(ValidationError, match="curve"):
        In().load({"curve": "perhaps"})
