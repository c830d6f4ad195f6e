"""Stage 4's generator: the U-Net with what a frozen ResNet-18 saw mixed into its bottleneck."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import ResNet18_Weights

from colorization.core.errors import InputError
from colorization.models.checkpoint import load_network, load_tensors
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

    def load_pretrained(self, resnet_weights: str | None) -> dict[str, str]:
        """Fill the ResNet before training starts; called once, by the stage, never when a checkpoint is loaded.

        Args:
            resnet_weights: of a timm backbone see :func:`colorization.networks.backbones.load_pretrained`. Of the
                ResNet-18: ``imagenet`` (torchvision's, downloaded once into torch's hub folder), the
                ``*.safetensors`` of a run of ``model=classifier/resnet18``, another file with a ResNet-18 state dict,
                or ``None`` for random ones.

        Returns:
            What the ResNet now is, for the checkpoint and every table: ``{"resnet": "imagenet"}``, ``"<data>-grey"`` of
            our own classifier, the name of another file, or ``"random"``; of a timm backbone under its own name.

        Raises:
            InputError: the weights cannot be had or do not fit.
        """
        if isinstance(self.resnet, FrozenBackbone):
            frozen, key = self.resnet, "model.resnet_weights"
            said = backbones.load_pretrained(frozen.backbone, frozen.name, resnet_weights, key, num_classes=0)
            return {frozen.name: said}
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
            said = resnet_weights
        elif resnet_weights.endswith(".safetensors"):
            state, said = self._of_classifier(Path(resnet_weights))
        else:
            said = Path(resnet_weights).name
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
        return {"resnet": said}

    def _of_classifier(self, file: Path) -> tuple[dict[str, torch.Tensor], str]:
        """The state of the ResNet in a run's ``resnet18.safetensors``, and what to call it."""
        try:
            network, description = load_network(file)
        except InputError as error:
            raise InputError(f"model.resnet_weights={error}") from error
        if not isinstance(network, GreyResNet18):
            raise InputError(
                f"model.resnet_weights={file}: these weights of a {description['stage']} hold no ResNet-18"
            )
        if network.size != self.resnet.size:
            raise InputError(
                f"model.network.resnet_size={self.resnet.size}: the ResNet in {file} has learnt from pictures of "
                f"{network.size}; give model.network.resnet_size={network.size}"
            )
        return network.resnet.state_dict(), f"{description['training_data']['name']}-grey"
