"""Stage 2, and the generator of stages 3 and 4: the U-Net of pix2pix (Isola et al. 2017)."""

from typing import Literal

import torch
from torch import nn

from colorization.core.color import squash_ab
from colorization.networks.layers import BatchNorm2d, Level, UpConv2d, crop_to, pad_to_even

Upsampling = Literal["transposed", "nearest"]


def _upsample(inputs: int, outputs: int, how: Upsampling, bias: bool) -> nn.Module:
    if how == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)
    return nn.Sequential(nn.Identity(), UpConv2d(inputs, outputs, bias))  # the name of its weights: <level>.1.weight


class UNet(nn.Module):
    """Encoder and decoder with a skip connection at every level.

    An odd height or width is padded by one at each level and cropped on the way up, so any size is taken and the
    cost follows the true size.

    Args:
        width: channels of the first level; they double per level up to ``8 * width``.
        depth: number of halvings; 8 reaches 1x1 from 256x256.
        dropout: rate in the (up to three) innermost decoder levels that have 8 * width channels; 0 for none.
        upsampling: ``transposed`` 4x4 convolutions as in pix2pix, or ``nearest`` with 3x3 convolutions (fewer
            parameters, no checkerboards).
    """

    def __init__(
        self, width: int = 64, depth: int = 8, dropout: float = 0.5, upsampling: Upsampling = "transposed"
    ) -> None:
        super().__init__()
        channels = [min(2**i, 8) * width for i in range(depth)]
        self.bottleneck_channels = channels[-1]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            layers: list[nn.Module] = [] if i == 0 else [nn.LeakyReLU(0.2)]
            # As in pix2pix: no normalisation next to the image nor at the bottleneck.
            norm = 0 < i < depth - 1
            layers.append(nn.Conv2d(1 if i == 0 else channels[i - 1], c, 4, stride=2, padding=1, bias=not norm))
            if norm:
                layers.append(BatchNorm2d(c))
            self.down.append(Level(*layers))
        for i in reversed(range(1, depth)):
            inputs = channels[i] if i == depth - 1 else 2 * channels[i]
            layers = [
                nn.ReLU(),
                _upsample(inputs, channels[i - 1], upsampling, bias=False),
                BatchNorm2d(channels[i - 1]),
            ]
            if dropout > 0 and depth - 4 <= i < depth - 1 and channels[i - 1] == 8 * width:
                layers.append(nn.Dropout(dropout))
            self.up.append(Level(*layers))
        self.head = Level(nn.ReLU(), _upsample(2 * channels[0] if depth > 1 else channels[0], 2, upsampling, True))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def fuse(self, bottleneck: torch.Tensor, L: torch.Tensor) -> torch.Tensor:
        """What a subclass mixes into the bottleneck (B, bottleneck_channels, h, w); here nothing."""
        return bottleneck

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 2, H, W) normalised ab."""
        x = 2 * L - 1
        skips = []
        for level in self.down:
            x = level(pad_to_even(x))
            skips.append(x)
        x = self.fuse(skips.pop(), L)
        for level in self.up:
            skip = skips.pop()
            x = torch.cat((crop_to(level(x), skip), skip), dim=1)
        return squash_ab(crop_to(self.head(x), L))
