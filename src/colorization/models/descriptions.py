"""What weights say of themselves: one JSON document, and the refusal of files without it.

``weights.safetensors`` holds it in its header (key ``colorization``), a Lightning checkpoint (``*.ckpt``) beside the
optimizer's state, an exported model in its metadata. This module imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from colorization import __version__
from colorization.core import color
from colorization.core.errors import InputError
from colorization.core.runs import git_state, utc_now

FORMAT_VERSION = 1
KEY = "colorization"
ABOUT = ("title", "idea", "kind", "inputs", "outputs")  # of a model's YAML, what travels with its weights
# What a model is, and by it what goes in and what comes out unless it says so itself. ``L`` and ``ab`` are those of
# :mod:`colorization.networks`, ``classes`` logits, ``members`` the ab of each member.
COLORIZER, CLASSIFIER, ENSEMBLE = "colorizer", "classifier", "ensemble"
_KINDS = {COLORIZER: "ab", CLASSIFIER: "classes", ENSEMBLE: "members"}  # what comes out; what goes in is L
SOURCE = "colorization_source_sha256"  # in exported models: of the weights file that they were made from
# A checkpoint is only read by code that means the same by "ab"; see color.split.
_COLOR = {"space": "CIE L*a*b*, D65, 2 degrees", "l_scale": color.L_SCALE, "ab_scale": color.AB_SCALE}


def describe(
    stage: str,
    network: Mapping[str, Any],
    pretrained: Mapping[str, str],
    training_data: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The document that travels with weights.

    Args:
        stage: ``model.name``.
        network: as for :func:`colorization.networks.building.build_network`.
        pretrained: what pretrained parts are, e.g. ``{"resnet": "imagenet"}``.
        training_data: name, number of photos, hash and mean ab of the training split, image size.
        metrics: validation figures.
        about: of the model's YAML.
        more: anything else that is plain JSON.
    """
    return {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "network": dict(network),
        "about": {key: value for key, value in (about or {}).items() if key in ABOUT},
        "pretrained": dict(pretrained),
        "color": _COLOR,
        "training_data": dict(training_data or {}),
        "metrics": dict(metrics or {}),
        "version": __version__,
        "git": git_state(),
        "created": utc_now(),
        **more,
    }


@dataclass(frozen=True)
class Input:
    """What a network takes besides L, as its description says.

    Attributes:
        channels: of a map, (B, channels, H, W) float32 as large as L.
        length: of a vector, (B, length) float32. An input that is neither is one number for the whole batch.
        default: the value, the same everywhere, that stands for "nothing is asked".
    """

    channels: int | None = None
    length: int | None = None
    default: float = 0.0

    def value(self, given: Any, shape: Sequence[int]) -> np.ndarray:
        """What the network is given beside L of this shape, (B, 1, H, W): float32; ``None`` is the default.

        Raises:
            InputError: of another shape.
        """
        batch, _, height, width = shape
        wanted: tuple[int, ...] = ()
        if self.channels is not None:
            wanted = batch, self.channels, height, width
        elif self.length is not None:
            wanted = batch, self.length
        value = np.full(wanted, self.default, np.float32) if given is None else np.asarray(given, np.float32)
        if value.shape != wanted:
            raise InputError(f"is of shape {list(value.shape)}, should be {list(wanted)}")
        return value


def inputs(description: Mapping[str, Any]) -> dict[str, Input]:
    """What a network takes besides L, by name and in its order."""
    found = {}
    for name, said in about(description)["inputs"].items():
        if name != "L":
            is_number = not {"channels", "length"} & said.keys()
            own = {"default": description["network"].get(name, 0.0)} if is_number else {}
            found[name] = Input(**{**own, **said})
    return found


def working_size(description: Mapping[str, Any]) -> int:
    """Short side, pixels, at which a network sees a photo unless asked otherwise: what was chosen when the weights were
    exported, else the size that they were trained at."""
    return int(description.get("working_size") or description["training_data"].get("image_size", 256))


def about(description: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is: ``title``, ``idea``, ``kind`` (colorizer, classifier or ensemble), ``inputs``, ``outputs``.

    ``inputs`` has what is said of each by its name: ``channels`` of a map, ``length`` of a vector, nothing of a number,
    and the ``default``, which of a number is that of the network's argument of this name (:class:`Input`).

    It stands in the ``about`` block of the model's YAML and travels with the weights. What a description does not say,
    as none of earlier versions does, follows from one rule:

    - the kind is what ``answers``, their word for it, means (``classes``: classifier, ``members``: ensemble); without
      that it is that of the one network that there was of a kind (our ``Ensemble``, our ``GreyResNet18`` with classes);
      all else colorizes;
    - a colorizer takes L and answers ab, and one whose network has a ``vividness`` takes that, too, and has a
      distribution; a classifier answers with classes, an ensemble with its members' ab;
    - the title is the stage's name, and there is no idea.
    """
    network = description["network"]
    words = {"classes": CLASSIFIER, "members": ENSEMBLE, "ab": COLORIZER}
    networks = {"colorization.networks.ensemble.Ensemble": ENSEMBLE}
    if network.get("classes"):
        networks["colorization.networks.resnet.GreyResNet18"] = CLASSIFIER
    said = description.get("about") or {}
    kind = said.get("kind") or words.get(description.get("answers", "")) or networks.get(network["_target_"], COLORIZER)
    known: dict[str, Any] = {"title": description.get("stage"), "idea": None, "kind": kind}
    known |= {"inputs": ["L"], "outputs": [_KINDS[kind]]}
    if kind == COLORIZER and network.get("vividness") is not None:
        known |= {"inputs": ["L", "vividness"], "outputs": ["ab", "distribution"]}
    known |= said
    if not isinstance(known["inputs"], Mapping):  # their names, where there is nothing to say of them
        known["inputs"] = {name: {} for name in known["inputs"]}
    return known


def kind(description: Mapping[str, Any]) -> str:
    """:data:`COLORIZER`, :data:`CLASSIFIER` or :data:`ENSEMBLE`, see :func:`about`."""
    return about(description)["kind"]


def merge(description: Mapping[str, Any]) -> str | list[float]:
    """How the answers of an ensemble's members are merged, see :func:`.color.merge_ab`; ``mean`` of any
    other network, whose one answer that leaves as it is."""
    return description["network"]["merge"] if kind(description) == ENSEMBLE else "mean"


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
    said = description.get("about") or {}
    if said.get("kind", COLORIZER) not in _KINDS:
        raise InputError(f"{path}: weights of kind {said['kind']}; this version knows {', '.join(_KINDS)}")
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
