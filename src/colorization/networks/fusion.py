"""Stage 4's generator: the U-Net with what a frozen ResNet-18 saw mixed into its bottleneck."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from colorization.checkpoint import load_tensors
from colorization.color import grey_of_lightness
from colorization.errors import InputError
from colorization.networks.unet import UNet, Upsampling

FEATURES = 512


def _antialiasing(inputs: int, outputs: int) -> torch.Tensor:
    """(outputs, inputs): what ``F.interpolate(mode="bilinear", antialias=True)`` does to one axis, as a matrix.

    A triangle about each output's centre, as wide as the reduction and at least two inputs.
    """
    scale = torch.as_tensor(inputs) / outputs  # a tensor when tracing, too
    centres = (torch.arange(outputs) + 0.5) * scale
    distances = (torch.arange(inputs) + 0.5 - centres[:, None]) / scale.clamp(min=1)
    weights = (1 - distances.abs()).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


class FrozenResNet18(nn.Module):
    """The 512 globally pooled features of a ResNet-18 that never trains: no gradient, always in eval mode.

    They are computed anew for each picture: training crops and flips at random, so no picture comes twice.

    It gets what it was trained on: the picture as grey RGB with ImageNet's mean and deviation, not raw L.

    Args:
        size: side to which the picture is resized first (bilinear), so that the features do not depend on the
            working size, as in Iizuka et al. 2016; ``None`` leaves it as it is.
    """

    def __init__(self, size: int | None = 224) -> None:
        super().__init__()
        self.size = size
        self.resnet = resnet18(weights=None)
        self.resnet.fc = nn.Identity()
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.train(False)

    def train(self, mode: bool = True) -> FrozenResNet18:
        """Stays in eval mode whatever is asked: its running statistics are part of what it learnt."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, L: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 512)."""
        grey = grey_of_lightness(L)
        if (
            self.size is not None and torch.onnx.is_in_onnx_export()
        ):  # there every runtime has an antialiasing of its own
            rows, columns = (_antialiasing(grey.size(d), self.size) for d in (-2, -1))
            grey = rows @ grey @ columns.T
        elif self.size is not None:
            grey = F.interpolate(grey, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.resnet((grey.expand(-1, 3, -1, -1) - self.mean) / self.std)


class FusionUNet(UNet):
    """A U-Net whose bottleneck is concatenated with the tiled global feature and mixed by a 1x1 convolution.

    (Iizuka, Simo-Serra and Ishikawa 2016, "Let there be color!", equation 2.) The ResNet is part of the module and of
    its state, so that loading a checkpoint never downloads anything.

    Args:
        width, depth, dropout, upsampling: as in :class:`UNet`.
        resnet_size: as ``size`` in :class:`FrozenResNet18`.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 8,
        dropout: float = 0.5,
        upsampling: Upsampling = "transposed",
        resnet_size: int | None = 224,
    ) -> None:
        super().__init__(width, depth, dropout, upsampling)
        self.resnet = FrozenResNet18(resnet_size)
        self.mix = nn.Sequential(
            nn.Conv2d(self.bottleneck_channels + FEATURES, self.bottleneck_channels, 1), nn.LeakyReLU(0.2)
        )

    def fuse(self, bottleneck: torch.Tensor, L: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and the picture's features, tiled over h x w, to (B, C, h, w)."""
        features = self.resnet(L)[:, :, None, None].expand(-1, -1, *bottleneck.shape[-2:])
        return self.mix(torch.cat((bottleneck, features.to(bottleneck.dtype)), dim=1))

    def load_pretrained(self, resnet_weights: str | None) -> dict[str, str]:
        """Fill the ResNet before training starts; called once, by the stage, never when a checkpoint is loaded.

        Args:
            resnet_weights: ``imagenet`` (torchvision's, downloaded once into torch's hub folder), a file with a
                ResNet-18 state dict, or ``None`` for random ones.

        Returns:
            What the ResNet now is, for the checkpoint and every table: ``{"resnet": "imagenet"}``, the file's name, or
            ``"random"``.

        Raises:
            InputError: the weights cannot be had or do not fit.
        """
        if resnet_weights is None:
            return {"resnet": "random"}
        if resnet_weights == "imagenet":
            try:
                state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
            except (URLError, OSError) as error:
                raise InputError(
                    "model.resnet_weights=imagenet: torchvision's ResNet-18 could not be downloaded "
                    f"({getattr(error, 'reason', error)}); give a local file (model.resnet_weights=<file>) or ask for "
                    "random ones (model.resnet_weights=null)"
                ) from error
        else:
            try:
                state = load_tensors(Path(resnet_weights))
            except InputError as error:
                raise InputError(
                    f"model.resnet_weights={error}; give a ResNet-18 state dict, imagenet or null"
                ) from error
        try:
            state = {k: v for k, v in state.items() if not k.startswith("fc.")}  # the classifier is not used
            self.resnet.resnet.load_state_dict(state, strict=True)
        except (RuntimeError, AttributeError) as error:
            raise InputError(f"model.resnet_weights={resnet_weights}: these are not a ResNet-18's weights") from error
        return {"resnet": "imagenet" if resnet_weights == "imagenet" else Path(resnet_weights).name}
