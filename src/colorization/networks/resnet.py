"""torchvision's ResNet-18 on grey pictures: the classifier that fusion's frozen part can be taken from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

from colorization.core.color import grey_of_lightness


def _antialiasing(inputs: int, outputs: int) -> torch.Tensor:
    """(outputs, inputs): what ``F.interpolate(mode="bilinear", antialias=True)`` does to one axis, as a matrix.

    A triangle about each output's centre, as wide as the reduction and at least two inputs.
    """
    scale = torch.as_tensor(inputs) / outputs  # a tensor when tracing, too
    centres = (torch.arange(outputs) + 0.5) * scale
    distances = (torch.arange(inputs) + 0.5 - centres[:, None]) / scale.clamp(min=1)
    weights = (1 - distances.abs()).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def resized(x: torch.Tensor, size: int | None) -> torch.Tensor:
    """(B, 1, H, W) to (B, 1, size, size), bilinear with antialiasing; ``None`` leaves it as it is."""
    if size is None:
        return x
    if torch.onnx.is_in_onnx_export():  # there every runtime has an antialiasing of its own
        rows, columns = (_antialiasing(x.size(d), size) for d in (-2, -1))
        return rows @ x @ columns.T
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)


class GreyResNet18(nn.Module):
    """A ResNet-18 that gets the picture as grey RGB with ImageNet's mean and deviation, not raw L.

    Args:
        size: side to which the picture is resized first (bilinear), so that the features do not depend on the
            working size, as in Iizuka et al. 2016; ``None`` leaves it as it is.
        classes: what it tells apart; ``None``: it gives the 512 globally pooled features.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, size: int | None = 224, classes: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.resnet = resnet18(weights=None, num_classes=classes or 1000)
        if classes is None:
            self.resnet.fc = nn.Identity()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, classes) logits or (B, 512)."""
        grey = resized(grey_of_lightness(L), self.size)
        return self.resnet((grey.expand(-1, 3, -1, -1) - self.mean) / self.std)
