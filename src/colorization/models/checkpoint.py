"""Weights in and out of files that say what they are (:mod:`.descriptions`), and the refusal of others."""

from __future__ import annotations

import importlib
import inspect
import json
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from colorization import __version__
from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError
from colorization.models import descriptions
from colorization.models.descriptions import KEY

_NETWORKS = "colorization.networks."


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """A network from ``{"_target_": "colorization.networks.<module>.<Class>", **arguments}``.

    The same form stands in a model's YAML and in a weights file. A file may come from a stranger, so nothing but a
    module of :mod:`colorization.networks` is ever called.

    Raises:
        InputError: another target, or arguments that it does not take.
    """
    arguments = dict(spec)
    target = str(arguments.pop("_target_", None))
    cls = _class(target)
    try:
        return cls(**arguments)
    except TypeError as error:
        raise InputError(f"network {target!r}: {error}") from error


def complete(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a network with the defaults of the arguments that it leaves out."""
    if not spec:
        return {}
    parameters = inspect.signature(_class(str(spec["_target_"]))).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | dict(spec)


def _class(target: str) -> type[nn.Module]:
    """The network of this name. Raises ``InputError``."""
    module_name, _, class_name = target.rpartition(".")
    if not target.startswith(_NETWORKS):
        raise InputError(f"network {target!r}: only networks in {_NETWORKS}* can be built")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"network {target!r} does not exist in this version ({__version__})") from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise InputError(f"network {target!r} is not a network")
    return cls


def save_weights(
    path: Path, network: nn.Module, description: Mapping[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write a network's tensors and description atomically; ``dtype`` (e.g. ``torch.float16``) converts floats."""
    tensors = {
        k: (v.to(dtype) if dtype is not None and v.is_floating_point() else v).detach().cpu().contiguous().clone()
        for k, v in network.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), metadata={KEY: json.dumps(description)})


_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what zipfile raises; some only where a flag is wrong


class Unreadable(InputError):
    """A file of weights is missing, torn or damaged."""


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote, tensors on the CPU; nothing but plain data is ever unpickled.

    Raises:
        Unreadable: missing, damaged, no torch file, or one that holds code.
    """
    if not path.is_file():
        raise Unreadable(f"{path}: no such file")
    try:
        if zipfile.is_zipfile(path):  # torch writes a checksum for each tensor, and looks at none
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, OSError, EOFError, pickle.UnpicklingError, *_DAMAGE) as error:
        raise Unreadable(f"{path}: not a file of torch weights that can be loaded safely") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint of this project as a dictionary, tensors on the CPU.

    Raises:
        Unreadable: missing, damaged, no torch file, or unsafe.
        InputError: not from this project.
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(f"{path}: not a checkpoint of this project")
    descriptions.check(content.get(KEY), path)
    return content


def read_description(path: Path) -> dict[str, Any]:
    """The document in a weights file or checkpoint, checked. Raises ``InputError``."""
    return read_checkpoint(path)[KEY] if path.suffix == ".ckpt" else descriptions.read(path)


def colorizes(description: Mapping[str, Any]) -> bool:
    """Whether weights give colours; the ResNet-18 of :mod:`colorization.training.stages.classifier` tells classes."""
    return descriptions.answers(description) != descriptions.CLASSES


def load_weights(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """As :func:`load_network`, and ``InputError`` for a network that does not colorize."""
    network, description = load_network(path)
    if not colorizes(description):
        raise InputError(f"{path}: a classifier, which gives no colours; it is for model.resnet_weights")
    return network, description


def load_network(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network in a ``.safetensors`` or ``.ckpt`` file, in eval mode, float32 on the CPU, and its description.

    Raises:
        InputError: the file is missing, broken, unsafe, of another format, or does not fill its network exactly.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        content = read_checkpoint(path)
        description = content[KEY]
        state = {k.removeprefix("network."): v for k, v in content["state_dict"].items() if k.startswith("network.")}
    else:
        description = descriptions.read(path)
        with safe_open(str(path), "pt") as file:
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dictionary)
    network = build_network(description["network"])
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=True)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights do not fit the network that the file describes") from error
    return network.eval(), description
