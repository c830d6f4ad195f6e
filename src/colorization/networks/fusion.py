"""Stage 4's generator: the U-Net with what a frozen ResNet-18 saw mixed into its bottleneck."""

from __future__ import annotations

import torch
from torch import nn

from colorization.networks import backbones
from colorization.networks.resnet import GreyResNet18, resized
from colorization.networks.unet import UNet, Upsampling

FEATURES = 512


class FrozenResNet18(GreyResNet18):
    """The 512 globally pooled features of a ResNet-18 that never trains: no gradient, always in eval mode.

    They are computed anew for each picture: training crops and flips at random, so no picture comes twice.

    Args:
        size: as in :class:`GreyResNet18`.
    """

    def __init__(self, size: int | None = 224) -> None:
        super().__init__(size)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenResNet18:
        """Stays in eval mode whatever is asked: its running statistics are part of what it learnt."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 512)."""
        return super().forward(L)


class FrozenBackbone(nn.Module):
    """The globally pooled features of a timm backbone that never trains, as :class:`FrozenResNet18`.

    Args:
        name: timm's.
        size: side to which the picture is resized first; ``None`` leaves it as it is.
    """

    def __init__(self, name: str, size: int | None) -> None:
        super().__init__()
        self.name, self.size = name, size
        backbone = backbones.create(name, "model.network.features", num_classes=0)
        self.backbone, self.channels = backbone, int(backbone.num_features)
        self.grey = backbones.Grey(backbone)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in eval mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, features)."""
        return self.backbone(self.grey(resized(L, self.size)))


class FusionUNet(UNet):
    """A U-Net whose bottleneck is concatenated with the tiled global feature and mixed by a 1x1 convolution.

    (Iizuka, Simo-Serra and Ishikawa 2016, "Let there be color!", equation 2.) The ResNet is part of the module and of
    its state, so that loading a checkpoint never downloads anything.

    Args:
        width, depth, dropout, upsampling: as in :class:`UNet`.
        resnet_size: side to which the picture is resized for the frozen part; ``None`` leaves it as it is.
        features: a timm backbone to take in the place of the ResNet-18.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 8,
        dropout: float = 0.5,
        upsampling: Upsampling = "transposed",
        resnet_size: int | None = 224,
        features: str | None = None,
    ) -> None:
        super().__init__(width, depth, dropout, upsampling)
        self.resnet: FrozenResNet18 | FrozenBackbone = (
            FrozenResNet18(resnet_size) if features is None else FrozenBackbone(features, resnet_size)
        )
        channels = self.resnet.channels if isinstance(self.resnet, FrozenBackbone) else FEATURES
        self.mix = nn.Sequential(
            nn.Conv2d(self.bottleneck_channels + channels, self.bottleneck_channels, 1), nn.LeakyReLU(0.2)
        )

    def fuse(self, bottleneck: torch.Tensor, L: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and the picture's features, tiled over h x w, to (B, C, h, w)."""
        features = self.resnet(L)[:, :, None, None].expand(-1, -1, *bottleneck.shape[-2:])
        return self.mix(torch.cat((bottleneck, features.to(bottleneck.dtype)), dim=1))
