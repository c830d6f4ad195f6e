"""What the stages are: from the configuration tree and the networks themselves, without any weights."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colorization.api import forms
from colorization.api.training.composing import choices, compose
from colorization.core import atomic
from colorization.core.errors import InputError

ENSEMBLE = "ensemble"
_lock = threading.Lock()


@functools.cache
def names() -> tuple[str, ...]:
    """The models of the configuration tree, in the order of their ``about.place``; those without one are the last."""
    folder = resources.files("colorization.configs") / "model"
    files = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    places = {
        name: OmegaConf.select(OmegaConf.create(f.read_text(encoding="utf-8")), "about.place", default=math.inf)
        for name, f in files.items()
    }
    return tuple(sorted(places, key=lambda name: (places[name], name)))


def describe(kind: str, folder: Path) -> list[dict[str, Any]]:
    """All stages and the ensemble.

    Args:
        kind: of device, whose batch size is the default.
        folder: remembers what takes torch, and so seconds, to find out.
    """
    stages = _kept(folder, "models", kind, lambda: [_stage(name) for name in names()])
    starts, sizes = defaults(kind, folder)["model"], defaults(kind, folder)["datamodule"]
    for stage in stages:
        network = stage.pop("network")
        own = {key: of_stages.get(stage["name"]) for key, of_stages in starts.items()}
        own |= {"image_size": sizes["image_size"][forms.DATAMODULE.default], "image_sizes": sizes["image_size"]}
        stage["defaults"] = {**own, "network": network}
    ensemble = {
        "name": ENSEMBLE,
        "title": "Ensemble",
        "description": "Several weights merged: in each pixel the mean or median of their colours, or fitted weights.",
        "idea": "Where the members disagree, their errors average out.",
        "loss": None,
        "parameters": sum(s["parameters"] for s in stages),
        "frozen_parameters": sum(s["frozen_parameters"] for s in stages),
        "discriminator_parameters": None,
        "defaults": {"merge": "mean", "members": list(names())},
    }
    return [*stages, ensemble]


def defaults(kind: str, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """What a training starts with where nothing else is asked, by the composed configuration.

    Args:
        kind, folder: as for :func:`describe`.

    Returns:
        ``model`` and ``datamodule`` (:attr:`.forms.Setting.per`) -> key of a setting -> name of one -> its default; one
        that is not there has no such setting.
    """
    return _kept(folder, "defaults", kind, lambda: {per: _defaults(per, kind) for per in ("model", "datamodule")})


def _defaults(per: str, kind: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {s.key: {} for s in forms.TRAINING if s.per == per}
    for name in names() if per == "model" else choices(per):
        config = compose("train", [f"{per}={name}"])
        config.accelerator.kind = kind  # else the device is looked for, with torch
        for setting in forms.TRAINING:
            value = OmegaConf.select(config, setting.config) if setting.per == per else None
            if value is not None:
                found[setting.key][name] = getattr(value, "_target_", value)  # a schedule can be a class of torch's
    return found


def _kept(folder: Path, name: str, kind: str, find: Callable[[], Any]) -> Any:
    """What was found out once, of these configs, these networks and this kind of device."""
    file = folder / f"{name}-{kind}-{_fingerprint()}.json"
    with _lock:
        if not file.is_file():
            atomic.write_json(file, find())
    return json.loads(file.read_text(encoding="utf-8"))


@functools.cache
def _fingerprint() -> str:
    """Of all that is kept: this file, the settings, the configs and the networks."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + Path(forms.__file__).read_bytes())
    for package in ("colorization.configs", "colorization.networks"):
        root = Path(str(resources.files(package)))
        for file in sorted(f for f in root.rglob("*") if f.suffix in (".yaml", ".py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _stage(name: str) -> dict[str, Any]:
    config = compose("train", [f"model={name}"])
    about = config.model.get("about") or {}
    loss = OmegaConf.to_container(config.loss)
    assert isinstance(loss, dict)
    return {
        "name": name,
        "title": about.get("title", name),
        "description": about.get("description", ""),
        "idea": about.get("idea"),
        "loss": {k: v for k, v in loss.items() if k != "_target_"},
        **_parameters(config),
        "network": {k: v for k, v in config.model.network.items() if k != "_target_"},
    }


def _parameters(config: DictConfig) -> dict[str, int | None]:
    """Of the network (that colorizes), of it those that are not trained, and of the discriminator.

    Nothing is allocated: torch's meta device has shapes only.
    """
    import torch

    from colorization.networks.building import build_network

    def count(spec: Any) -> tuple[int, int]:
        plain = OmegaConf.to_container(spec, resolve=True)
        assert isinstance(plain, dict)
        try:
            with torch.device("meta"):
                network = build_network({str(k): v for k, v in plain.items()})
        except InputError:  # a stage of somebody's own whose network lies elsewhere
            return 0, 0
        numbers = list(network.parameters())
        return sum(p.numel() for p in numbers), sum(p.numel() for p in numbers if not p.requires_grad)

    whole, frozen = count(config.model.network)
    discriminator = config.model.get("discriminator")
    return {
        "parameters": whole,
        "frozen_parameters": frozen,
        "discriminator_parameters": None if discriminator is None else count(discriminator)[0],
    }
