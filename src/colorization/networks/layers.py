"""Layers that let every network take any image size and any batch size."""

import torch
import torch.nn.functional as F
from torch import nn


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that also trains where a channel has a single value (a batch of one whose bottleneck is 1x1).

    One value has no variance; such a batch is normalised with the running statistics and leaves them alone.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.numel() == input.size(1):
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def pad_to_even(x: torch.Tensor) -> torch.Tensor:
    """Repeat the last row or column where H or W is odd, so that a stride-2 layer rounds up instead of down."""
    return F.pad(x, (0, x.size(-1) % 2, 0, x.size(-2) % 2), mode="replicate")


def crop_to(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The top-left part of ``x`` that has the height and width of ``like``."""
    return x[..., : like.size(-2), : like.size(-1)]
