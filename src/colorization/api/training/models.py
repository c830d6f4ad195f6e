"""Facts about the stages, from the configuration tree and the networks themselves, without any weights."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colorization.api import forms
from colorization.api.training.composing import choices, compose
from colorization.core import atomic
from colorization.core.errors import InputError
from colorization.models import descriptions

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
        folder: caches facts that need torch, and so seconds.
    """
    *stages, ensemble = _kept(folder, "models", kind, lambda: [*map(_stage, names()), _ensemble()])
    starts = defaults(kind, folder)
    sizes = starts["datamodule"]["image_size"]
    for stage in stages:
        own = {key: of_stages.get(stage["name"]) for key, of_stages in starts["model"].items()}
        own |= {"image_size": sizes[forms.DATAMODULE.default], "image_sizes": sizes, "network": stage.pop("network")}
        stage["defaults"] = own
    for count in ("parameters", "frozen_parameters"):
        ensemble[count] = sum(stage[count] for stage in stages)
    return [*stages, ensemble]


def defaults(kind: str, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The defaults of a training, from the composed configuration.

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
    """The cached facts of these configs, these networks and this kind of device."""
    file = folder / f"{name}-{kind}-{_fingerprint()}.json"
    with _lock:
        if not file.is_file():
            atomic.write_json(file, find())
    return json.loads(file.read_text(encoding="utf-8"))


@functools.cache
def _fingerprint() -> str:
    """Identity of the cache: this file and those that it uses, the configs and the networks."""
    digest = hashlib.sha256(b"".join(Path(m).read_bytes() for m in (__file__, forms.__file__, descriptions.__file__)))
    for package in ("colorization.configs", "colorization.networks"):
        root = Path(str(resources.files(package)))
        for file in sorted(f for f in root.rglob("*") if f.suffix in (".yaml", ".py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _stage(name: str) -> dict[str, Any]:
    config = compose("train", [f"model={name}"])
    loss = OmegaConf.to_container(config.loss)
    assert isinstance(loss, dict)
    return {
        "name": name,
        **_about(name, config.model.network, config.model.get("about")),
        "loss": {k: v for k, v in loss.items() if k != "_target_"},
        **_parameters(config),
        "network": {k: v for k, v in config.model.network.items() if k != "_target_"},
    }


def _ensemble() -> dict[str, Any]:
    config = compose("ensemble", [])
    return {
        "name": ENSEMBLE,
        **_about(ENSEMBLE, {"_target_": ENSEMBLE}, config.about),
        "loss": None,
        "discriminator_parameters": None,
        "defaults": {"merge": forms.defaults(forms.COLORIZE)["ensemble"], "members": list(names())},
    }


def _about(name: str, network: Mapping[Any, Any], said: DictConfig | None) -> dict[str, Any]:
    """The model's description, as in its weights, and the sentence for lists."""
    given = {} if said is None else {str(k): v for k, v in OmegaConf.to_container(said).items()}  # type: ignore[union-attr]
    about = descriptions.about({"stage": name, "network": network, "about": given})
    facts = {key: about[key] for key in descriptions.ABOUT}
    return {**facts, "inputs": list(about["inputs"]), "description": given.get("description", "")}


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
