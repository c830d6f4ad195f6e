"""The discriminator of stages 3 and 4: a PatchGAN (Isola et al. 2017)."""

import torch
from torch import nn

from colorization.networks.layers import BatchNorm2d, Level


class PatchGAN(nn.Module):
    """Judges overlapping patches (70x70 pixels with the defaults) of a picture given as L and ab.

    Args:
        width: channels of the first layer; they double per layer up to ``8 * width``.
        layers: stride-2 layers; 3 gives the 70x70 receptive field.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for i in range(1, layers + 1):
            previous, channels = channels, min(2**i, 8) * width
            stride = 2 if i < layers else 1
            modules += [
                nn.Conv2d(previous, channels, 4, stride, padding=1, bias=False),
                BatchNorm2d(channels),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        modules.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.layers = Level(*modules)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, L: torch.Tensor, ab: torch.Tensor) -> torch.Tensor:
        """``L`` (B, 1, H, W), ``ab`` (B, 2, H, W), H, W >= 32: logits (B, 1, h, w), one a patch, high for real."""
        return self.layers(torch.cat((2 * L - 1, ab), dim=1))
