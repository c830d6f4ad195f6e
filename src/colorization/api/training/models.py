"""What the stages are: from the configuration tree and the networks themselves, without any weights."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colorization.api.training.composing import compose
from colorization.api.training.plan import choices
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
    file = folder / f"models-{_fingerprint()}.json"
    with _lock:
        if not file.is_file():
            atomic.write_json(file, [_stage(name) for name in names()])
        stages = json.loads(file.read_text(encoding="utf-8"))
    for stage in stages:
        stage["defaults"]["batch_size"] = stage["defaults"]["batch_size"][kind]
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


@functools.cache
def _fingerprint() -> str:
    """Of all that :func:`_stage` depends on: this file, the configs and the networks."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
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
    schedule = config.model.get("lr_schedule")  # a name, or a class of torch's
    return {
        "name": name,
        "title": about.get("title", name),
        "description": about.get("description", ""),
        "idea": about.get("idea"),
        "loss": {k: v for k, v in loss.items() if k != "_target_"},
        **_parameters(config),
        "defaults": {
            "epochs": config.trainer.max_epochs,
            "batch_size": {kind: of_kind.batch_size for kind, of_kind in config.accelerator.by_kind.items()},
            "lr": float(config.model.optimizer.lr),
            "l1_weight": loss.get("l1_weight"),
            "image_size": config.datamodule.image_size,
            "image_sizes": _image_sizes(),
            "seed": config.seed,
            "lr_schedule": getattr(schedule, "_target_", schedule),
            "network": {k: v for k, v in config.model.network.items() if k != "_target_"},
        },
    }


@functools.cache
def _image_sizes() -> dict[str, int]:
    """The default of each data module, whatever the stage."""
    return {data: compose("train", [f"datamodule={data}"]).datamodule.image_size for data in choices("datamodule")}


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
