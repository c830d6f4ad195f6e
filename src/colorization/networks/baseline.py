"""Stage 1: a plain encoder-decoder without skip connections."""

import torch
from torch import nn

from colorization.core.color import squash_ab
from colorization.networks.layers import BatchNorm2d, Level, UpConv2d, crop_to, pad_to_even


def _conv(inputs: int, outputs: int, stride: int = 1) -> Level:
    return _level(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False))


def _level(convolution: nn.Conv2d) -> Level:
    return Level(convolution, BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


class BaselineCNN(nn.Module):
    """Convolutions down to 1/8 of the size and back up again, colour from what survives the bottleneck.

    Args:
        width: channels of the first level; each of the three levels doubles them.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.stem = _conv(1, w)
        self.down = nn.ModuleList([_conv(w, 2 * w, 2), _conv(2 * w, 4 * w, 2), _conv(4 * w, 8 * w, 2)])
        self.middle = _conv(8 * w, 8 * w)
        self.up = nn.ModuleList(_level(UpConv2d(2 * c, c, bias=False)) for c in (4 * w, 2 * w, w))
        self.head = nn.Conv2d(w, 2, 3, padding=1)

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 2, H, W) normalised ab."""
        x = self.stem(2 * L - 1)
        sizes = []
        for level in self.down:
            sizes.append(x)
            x = level(pad_to_even(x))
        x = self.middle(x)
        for level, like in zip(self.up, reversed(sizes), strict=True):
            x = crop_to(level(x), like)
        return squash_ab(self.head(x))
