"""timm's backbones on grey pictures, and where their ImageNet weights come from."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from colorization.core import color
from colorization.core.errors import InputError


def create(name: str, key: str, **how: Any) -> Any:
    """A backbone with random weights.

    Args:
        name: timm's.
        key: the config key that names it, for the message.
        how: see ``timm.create_model``.

    Raises:
        InputError: timm has none of that name, or it cannot be made like that.
    """
    import timm  # a sixth of the imports of a command, of which most need none of it

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
