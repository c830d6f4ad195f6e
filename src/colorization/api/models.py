"""What the stages are: from the configuration tree and the networks themselves, without any weights."""

from __future__ import annotations

import functools
import threading
from importlib import resources
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colorization.api.composing import compose
from colorization.errors import InputError

ENSEMBLE = "ensemble"
_TITLES = {
    "baseline": "Baseline CNN",
    "unet": "U-Net",
    "gan": "Pix2Pix GAN",
    "fusion": "Fusion GAN",
    ENSEMBLE: "Ensemble",
}
_IDEAS = {
    "baseline": "The plain answer: a mean of all plausible colours, so safe and desaturated.",
    "unet": "Skip connections carry the detail past the bottleneck.",
    "gan": "A discriminator that judges patches asks for colours that look real.",
    "fusion": "What the whole picture shows decides the colours of its parts (Iizuka et al. 2016).",
    ENSEMBLE: "Where the members disagree, their errors average out.",
}
_lock = threading.Lock()


@functools.cache
def names() -> tuple[str, ...]:
    """The stages, in the order of the thesis, then any further one of the configuration tree."""
    files = (resources.files("colorization.configs") / "model").iterdir()
    there = sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))
    return tuple(sorted(there, key=lambda n: list(_TITLES).index(n) if n in _TITLES else len(_TITLES)))


def describe(kind: str) -> list[dict[str, Any]]:
    """All stages and the ensemble. Composes and counts once; ``kind`` is the device whose batch size is the default."""
    with _lock:
        stages = [{**_stage(n), "defaults": {**_stage(n)["defaults"], **_batch_size(n, kind)}} for n in names()]
    ensemble = {
        "name": ENSEMBLE,
        "title": _TITLES[ENSEMBLE],
        "description": "Several weights merged: in each pixel the mean or median of their colours, or fitted weights.",
        "idea": _IDEAS[ENSEMBLE],
        "loss": None,
        "parameters": sum(s["parameters"] for s in stages),
        "frozen_parameters": sum(s["frozen_parameters"] for s in stages),
        "discriminator_parameters": None,
        "defaults": {"merge": "mean", "members": list(names())},
    }
    return [*stages, ensemble]


@functools.cache
def _composed(name: str) -> DictConfig:
    return compose("train", [f"model={name}"])


@functools.cache
def _stage(name: str) -> dict[str, Any]:
    config = _composed(name)
    text = (resources.files("colorization.configs") / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    first = text.splitlines()[0]
    loss = OmegaConf.to_container(config.loss)
    assert isinstance(loss, dict)
    counts = _parameters(config)
    return {
        "name": name,
        "title": _TITLES.get(name, name),
        "description": first.lstrip("# ") if first.startswith("#") else "",
        "idea": _IDEAS.get(name),
        "loss": {k: v for k, v in loss.items() if k != "_target_"},
        **counts,
        "defaults": {
            "epochs": config.trainer.max_epochs,
            "lr": float(config.model.optimizer.lr),
            "l1_weight": loss.get("l1_weight"),
            "image_size": config.datamodule.image_size,
            "seed": config.seed,
            "lr_schedule": config.model.get("lr_schedule"),
            "network": {k: v for k, v in config.model.network.items() if k != "_target_"},
        },
    }


def _batch_size(name: str, kind: str) -> dict[str, Any]:
    return {"batch_size": _composed(name).accelerator.by_kind[kind].batch_size}


def _parameters(config: DictConfig) -> dict[str, int | None]:
    """Of the network (that colorizes), of it those that are not trained, and of the discriminator.

    Nothing is allocated: torch's meta device has shapes only.
    """
    import torch

    from colorization.checkpoint import build_network

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
