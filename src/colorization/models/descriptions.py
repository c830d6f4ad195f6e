"""What weights say of themselves: one JSON document, and the refusal of files without it.

``weights.safetensors`` holds it in its header (key ``colorization``), a Lightning checkpoint (``*.ckpt``) beside the
optimizer's state, an exported model in its metadata. This module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from colorization import __version__
from colorization.core import color
from colorization.core.errors import InputError
from colorization.core.runs import git_state, utc_now

FORMAT_VERSION = 1
KEY = "colorization"
# What a network's answer is: normalised ab, or logits of classes; of an exported ensemble the ab of each member.
AB, CLASSES, MEMBERS = "ab", "classes", "members"
SOURCE = "colorization_source_sha256"  # in exported models: of the weights file that they were made from
# A checkpoint is only read by code that means the same by "ab"; see color.split.
_COLOR = {"space": "CIE L*a*b*, D65, 2 degrees", "l_scale": color.L_SCALE, "ab_scale": color.AB_SCALE}


def describe(
    stage: str,
    network: Mapping[str, Any],
    pretrained: Mapping[str, str],
    training_data: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    answers: str = AB,
    **more: Any,
) -> dict[str, Any]:
    """The document that travels with weights.

    Args:
        stage: ``model.name``.
        network: as for :func:`colorization.networks.building.build_network`.
        pretrained: what pretrained parts are, e.g. ``{"resnet": "imagenet"}``.
        training_data: name, number of photos, hash and mean ab of the training split, image size.
        metrics: validation figures.
        answers: :data:`AB`, :data:`CLASSES` or :data:`MEMBERS`.
        more: anything else that is plain JSON.
    """
    return {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "network": dict(network),
        "answers": answers,
        "pretrained": dict(pretrained),
        "color": _COLOR,
        "training_data": dict(training_data or {}),
        "metrics": dict(metrics or {}),
        "version": __version__,
        "git": git_state(),
        "created": utc_now(),
        **more,
    }


def working_size(description: Mapping[str, Any]) -> int:
    """Short side, pixels, at which a network sees a photo unless asked otherwise: what was chosen when the weights were
    exported, else the size that they were trained at."""
    return int(description.get("working_size") or description["training_data"].get("image_size", 256))


def answers(description: Mapping[str, Any]) -> str:
    """What the network's answer is. Earlier versions did not say it, and had one network of each kind."""
    if (said := description.get("answers")) is not None:
        return said
    network = description["network"]
    if network["_target_"] == "colorization.networks.ensemble.Ensemble":
        return MEMBERS
    classifies = network["_target_"] == "colorization.networks.resnet.GreyResNet18" and network.get("classes")
    return CLASSES if classifies else AB


def merge(description: Mapping[str, Any]) -> str | list[float]:
    """How the answers of an ensemble's members are merged, see :func:`.color.merge_ab`; ``mean`` of any
    other network, whose one answer that leaves as it is."""
    return description["network"]["merge"] if answers(description) == MEMBERS else "mean"


def parse(text: str | None, path: Path) -> dict[str, Any]:
    """The document that ``path`` holds as ``text``, checked. Raises ``InputError``."""
    try:
        description = json.loads(text or "null")
    except ValueError:
        description = None
    return check(description, path)


def check(description: Any, path: Path) -> dict[str, Any]:
    """The document, if this version can use it. Raises ``InputError``."""
    if not isinstance(description, dict) or "format_version" not in description:
        raise InputError(
            f"{path}: these weights do not say what they are; only files written by this project can be loaded"
        )
    if description["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: weights of format {description['format_version']}, but this version reads format {FORMAT_VERSION}"
        )
    if description["color"] != _COLOR:
        raise InputError(f"{path}: trained with other colour constants ({description['color']}) than this version has")
    return description


def read(path: Path) -> dict[str, Any]:
    """The document in a ``.safetensors`` file, checked. Raises ``InputError``."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(str(path), "np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file ({error})") from error
    return parse(metadata.get(KEY), path)
