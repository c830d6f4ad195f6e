"""Reads and writes weights files with a description (:mod:`.descriptions`), and refuses others."""

from __future__ import annotations

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

from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError
from colorization.models import descriptions
from colorization.models.descriptions import KEY
from colorization.networks.building import build_network


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


_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # raised by zipfile; some only for a wrong flag


class Unreadable(InputError):
    """A file of weights is missing, torn or damaged."""


def load_tensors(path: Path) -> Any:
    """The content of a file of ``torch.save``, tensors on the CPU; only plain data is ever unpickled.

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


def load_weights(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """As :func:`load_network`, and ``InputError`` for a network that does not colorize."""
    network, description = load_network(path)
    if descriptions.kind(description) == descriptions.CLASSIFIER:
        raise InputError(f"{path}: a classifier, not a colorizer; it is for model.resnet_weights")
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
