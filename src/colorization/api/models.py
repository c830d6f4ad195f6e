"""What the stages are: from the configuration tree and the networks themselves, without any weights."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from colorization import runs
from colorization.api.composing import compose
from colorization.api.plan import choices
from colorization.errors import InputError

ENSEMBLE = "ensemble"
_TITLES = {
    "baseline": "Baseline CNN",
    "unet": "U-Net",
    "gan": "Pix2Pix GAN",
    "fusion": "Fusion GAN",
    "encoder_unet": "Encoder U-Net",
    "classes": "Colour classes",
    ENSEMBLE: "Ensemble",
}
_IDEAS = {
    "baseline": "The plain answer: a mean of all plausible colours, so safe and desaturated.",
    "unet": "Skip connections carry the detail past the bottleneck.",
    "gan": "A discriminator that judges patches asks for colours that look real.",
    "fusion": "What the whole picture shows decides the colours of its parts (Iizuka et al. 2016).",
    "encoder_unet": "An encoder that has learnt from ImageNet knows what it sees.",
    "classes": "A distribution over colours at each place, so that doubt is a choice, not brown (Zhang et al. 2016).",
    ENSEMBLE: "Where the members disagree, their errors average out.",
}
_lock = threading.Lock()


@functools.cache
def names() -> tuple[str, ...]:
    """The stages, in the order of the thesis, then any further one of the configuration tree."""
    files = (resources.files("colorization.configs") / "model").iterdir()
    there = sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))
    return tuple(sorted(there, key=lambda n: list(_TITLES).index(n) if n in _TITLES else len(_TITLES)))


def describe(kind: str, folder: Path) -> list[dict[str, Any]]:
    """All stages and the ensemble.

    Args:
        kind: of device, whose batch size is the default.
        folder: remembers what takes torch, and so seconds, to find out.
    """
    file = folder / f"models-{_fingerprint()}.json"
    with _lock:
        if not file.is_file():
            runs.write_json(file, [_stage(name) for name in names()])
        stages = json.loads(file.read_text(encoding="utf-8"))
    for stage in stages:
        stage["defaults"]["batch_size"] = stage["defaults"]["batch_size"][kind]
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
    text = (resources.files("colorization.configs") / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    first = text.splitlines()[0]
    loss = OmegaConf.to_container(config.loss)
    assert isinstance(loss, dict)
    return {
        "name": name,
        "title": _TITLES.get(name, name),
        "description": first.lstrip("# ") if first.startswith("#") else "",
        "idea": _IDEAS.get(name),
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
            "lr_schedule": config.model.get("lr_schedule"),
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
