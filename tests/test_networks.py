"""What every network has to keep, whatever its architecture, and the sizes and parts that the papers give."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import SMALL_ENCODERS
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from skimage.color import lab2rgb
from torch import nn

from colorization.core import color
from colorization.core.errors import InputError
from colorization.models import checkpoint, descriptions, pretrained
from colorization.networks import building
from colorization.networks.fusion import FrozenResNet18, FusionUNet
from colorization.networks.layers import BatchNorm2d, UpConv2d
from colorization.networks.patchgan import PatchGAN
from colorization.networks.resnet import _antialiasing

# The four shipped configs, and what else a config can ask of their networks.
SMALL = {
    "baseline": ["model=baseline", "model.network.width=4"],
    "unet": ["model=unet", "model.network.width=4"],
    "unet nearest": ["model=unet", "model.network.width=4", "model.network.upsampling=nearest"],
    "gan": ["model=gan", "model.network.width=4"],
    "fusion": ["model=fusion", "model.network.width=4", "model.network.resnet_size=64", "model.resnet_weights=null"],
}
SMALL["fusion with timm's features"] = [*SMALL["fusion"], "model.network.features=test_efficientnet"]
SMALL |= SMALL_ENCODERS
SMALL["encoder_unet of a ConvNeXt"] = [*SMALL_ENCODERS["encoder_unet"], "model.network.encoder=test_convnext"]
SMALL["classes at half the size"] = [*SMALL_ENCODERS["classes"], "model.network.stride=2"]
MODELS = list(SMALL)
RESNET18 = "resnet18-f37072fd.pth"


@cache
def config(model: str, small: bool = True) -> dict[str, Any]:
    """The model part of the shipped config."""
    with initialize_config_module("colorization.configs", version_base="1.3"):
        cfg = compose("train", overrides=SMALL[model] if small else [f"model={model}"])
    return OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[return-value]


def build(model: str) -> nn.Module:
    torch.manual_seed(0)
    return building.build_network(config(model)["network"])


def lightness(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty torch hub folder and no way to fill it; yields where its files go."""

    def download(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    yield folder


def resnet_state(seed: int = 3) -> dict[str, torch.Tensor]:
    """A ResNet-18 whose running statistics are not those of a new one, as after training."""
    torch.manual_seed(seed)
    net = torchvision.models.resnet18(weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.state_dict()


# Every architecture


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96), (129, 65)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("model", MODELS)
def test_any_size_and_batch_gives_finite_colours_in_the_box(
    model: str, size: tuple[int, int], batch: int, mode: str
) -> None:
    """Also where the bottleneck is 1x1 and the batch is one, for which plain batch norm cannot train."""
    network = build(model).train(mode == "train")
    # Far larger weights than at the start, so that the box is really reached.
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.mul_(5)
        ab = network(lightness(batch, 1, *size))
    assert ab.shape == (batch, 2, *size)
    assert ab.dtype == torch.float32
    assert ab.isfinite().all()
    for i in range(2):
        assert color.AB_MIN[i] / 110 - 1e-6 <= ab[:, i].min() and ab[:, i].max() <= color.AB_MAX[i] / 110 + 1e-6
    assert ab.std() > 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_backward_reaches_every_parameter_that_trains(model: str) -> None:
    network, told = build(model).train(), {}
    if model == "hinted":  # whose further inputs add nothing at first, and where there are none
        for part in (*network.hints, *network.palette):
            nn.init.normal_(part[2].weight)
        told = {"hints": torch.ones(2, 3, 256, 256), "palette": torch.rand(2, color.PALETTE_LENGTH)}
    network(lightness(2, 1, 256, 256), **told).sum().backward()
    trained = {n: p.grad for n, p in network.named_parameters() if p.requires_grad}
    assert trained
    assert [n for n, g in trained.items() if g is None or not g.isfinite().all() or not g.any()] == []
    assert all(p.grad is None for p in network.parameters() if not p.requires_grad)


@pytest.mark.parametrize("model", MODELS)
def test_output_follows_input(model: str) -> None:
    """Another picture gets other colours, and each picture of a batch (in eval mode) those it gets alone."""
    network = build(model).eval()
    L = lightness(2, 1, 48, 48)
    with torch.no_grad():
        both, first, second = network(L), network(L[:1]), network(L[1:])
    assert (both[0] - both[1]).abs().max() > 1e-4
    assert torch.allclose(both, torch.cat((first, second)), atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_weights_file_gives_the_same_network(model: str, tmp_path: Path) -> None:
    """Identical outputs in eval mode, of a network whose running statistics have moved, and the same description."""
    network = build(model).train()
    with torch.no_grad():
        network(lightness(2, 1, 64, 64))
    network.eval()
    description = descriptions.describe(model, config(model)["network"], {})
    checkpoint.save_weights(tmp_path / "weights.safetensors", network, description)
    torch.manual_seed(99)
    loaded, read = checkpoint.load_weights(tmp_path / "weights.safetensors")
    L = lightness(1, 1, 40, 56)
    with torch.no_grad():
        assert torch.equal(loaded(L), network(L))
    assert not loaded.training
    assert read["stage"] == model and read["network"] == config(model)["network"]


@pytest.mark.parametrize("model", MODELS)
def test_half_precision_file_is_read_as_float32(model: str, tmp_path: Path) -> None:
    """Each tensor is the float16 rounding of its own."""
    network = build(model)
    description = descriptions.describe(model, config(model)["network"], {})
    checkpoint.save_weights(tmp_path / "weights.safetensors", network, description, torch.float16)
    loaded, _ = checkpoint.load_weights(tmp_path / "weights.safetensors")
    for (name, a), b in zip(network.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert b.dtype == a.dtype, name
        assert torch.equal(b, a.half().float() if a.is_floating_point() else a), name


def test_batch_of_one_value_per_channel_is_normalised_by_the_running_averages() -> None:
    """Where torch's batch norm raises; the averages stay. With more values it is torch's batch norm."""
    ours, reference = BatchNorm2d(3).train(), nn.BatchNorm2d(3).train()
    for norm in (ours, reference):
        norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.running_var.fill_(4.0)
    x = torch.full((1, 3, 1, 1), 5.0)
    with pytest.raises(ValueError, match="more than 1 value"):
        reference(x)
    assert ours(x).flatten().tolist() == pytest.approx([2.0, 1.5, 1.0], abs=1e-4)
    assert ours.running_mean.tolist() == [1, 2, 3] and ours.running_var.tolist() == [4, 4, 4]
    x = torch.rand(2, 3, 1, 1)
    assert torch.equal(ours(x), reference(x))
    assert torch.equal(ours.running_mean, reference.running_mean)


# The papers' sizes


@pytest.mark.parametrize("model", ["unet", "gan"])
def test_default_unet_has_the_size_of_pix2pix(model: str) -> None:
    with torch.device("meta"):
        network = building.build_network(config(model, small=False)["network"])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(54.4e6, rel=0.01)


@pytest.mark.parametrize("model", ["gan", "fusion"])
def test_default_discriminator_has_the_size_of_pix2pix(model: str) -> None:
    network = building.build_network(config(model, small=False)["discriminator"])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(2.77e6, rel=0.01)


def test_default_discriminator_judges_patches_of_70_pixels() -> None:
    """By the arithmetic of kernels and strides, and by what one logit's gradient reaches."""
    torch.manual_seed(0)
    network = building.build_network({**config("gan", small=False)["discriminator"], "width": 8}).double().eval()
    field, stride = 1, 1
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            field += (layer.kernel_size[0] - 1) * stride
            stride *= layer.stride[0]
    assert field == 70

    picture = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = network(picture[:, :1], picture[:, 1:])
    logits[0, 0, logits.size(2) // 2, logits.size(3) // 2].backward()
    assert picture.grad is not None
    for plane in picture.grad[0]:  # L, a and b are all seen
        rows, columns = plane.nonzero().unbind(1)
        assert int(rows.max() - rows.min()) + 1 == 70
        assert int(columns.max() - columns.min()) + 1 == 70
        assert len(rows) == 70 * 70
        assert int(rows.min()) > 0 and int(rows.max()) < 159  # not cut by the picture's edge


def test_discriminator_takes_the_smallest_and_odd_pictures() -> None:
    network = PatchGAN(width=4).train()
    for size in ((32, 32), (33, 47), (129, 65)):
        logits = network(torch.rand(1, 1, *size), torch.rand(1, 2, *size))
        assert logits.shape[:2] == (1, 1) and logits.numel() > 1 and logits.isfinite().all()


# The frozen ResNet


def test_resnet_never_trains() -> None:
    network = build("fusion").train()
    assert isinstance(network, FusionUNet)
    frozen = network.resnet
    assert network.training and not any(m.training for m in frozen.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    network(lightness(2, 1, 64, 64)).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())
    assert any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("size", [None, 96])
def test_resnet_features_are_those_of_torchvision(size: int | None) -> None:
    """Fed with the grey picture as RGB, resized and normalised as torchvision does."""
    frozen = FrozenResNet18(size).train()
    state = resnet_state()
    frozen.resnet.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    reference = torchvision.models.resnet18(weights=None)
    reference.load_state_dict(state)
    reference.fc = nn.Identity()
    reference.eval()

    L = lightness(2, 1, 64, 80)
    lab = np.stack((L[:, 0] * 100, 0 * L[:, 0], 0 * L[:, 0]), -1)
    rgb = torch.from_numpy(lab2rgb(lab)).float().permute(0, 3, 1, 2)
    if size is not None:
        rgb = torchvision.transforms.functional.resize(rgb, [size, size], antialias=True)
    normalised = torchvision.transforms.functional.normalize(rgb, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        expected = reference(normalised)
    features = frozen(L)
    assert features.shape == (2, 512) and expected.std() > 0.1
    # The grey of a neutral Lab colour has three channels that differ by some 1e-4 in scikit-image.
    assert (features - expected).abs().max() < 0.01 * expected.abs().max()


def test_features_reach_the_colours_everywhere() -> None:
    """Another global feature, with the same picture, changes colours in every cell of the bottleneck (8x8 pixels)."""
    torch.manual_seed(0)
    network = building.build_network({**config("fusion")["network"], "depth": 3}).eval()
    assert isinstance(network, FusionUNet)
    L = lightness(1, 1, 64, 64)
    with torch.no_grad():
        for p in network.parameters():
            if p.requires_grad:
                p.mul_(5)  # new weights are so small that hardly anything passes
        ab = network(L)
        network.resnet.resnet.load_state_dict({k: v for k, v in resnet_state(7).items() if not k.startswith("fc.")})
        other = network(L)
    assert (nn.functional.max_pool2d((ab - other).abs(), 8) > 1e-3).all()


@pytest.mark.parametrize("source", ["imagenet", "file"])
def test_resnet_weights_come_from_the_hub_folder_or_a_file(source: str, no_network: Path) -> None:
    state = resnet_state()
    file = no_network / (RESNET18 if source == "imagenet" else "mine.pth")
    torch.save(state, file)
    network = build("fusion")
    assert isinstance(network, FusionUNet)
    assert not torch.equal(network.resnet.resnet.conv1.weight, state["conv1.weight"])
    said = pretrained.load(network, resnet_weights="imagenet" if source == "imagenet" else str(file))
    loaded = network.resnet.resnet.state_dict()
    assert set(state) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(v, state[k]) for k, v in loaded.items())
    assert said == {"resnet": "imagenet" if source == "imagenet" else "mine.pth"}


def test_random_resnet_is_said_to_be_random() -> None:
    network = build("fusion")
    assert isinstance(network, FusionUNet)
    before = network.resnet.resnet.conv1.weight.clone()
    assert pretrained.load(network, resnet_weights=None) == {"resnet": "random"}
    assert torch.equal(network.resnet.resnet.conv1.weight, before)


def test_imagenet_without_network_names_the_setting_and_the_ways_out(no_network: Path) -> None:
    network = build("fusion")
    assert isinstance(network, FusionUNet)
    with pytest.raises(InputError, match=r"model\.resnet_weights=imagenet.*no route to host.*<file>.*null") as error:
        pretrained.load(network, resnet_weights="imagenet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["missing", "text", "another network", "no state dict"])
def test_wrong_resnet_file_is_refused_by_name(content: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.pth"
    if content == "text":
        file.write_text("no weights")
    elif content == "another network":
        torch.save(nn.Linear(2, 2).state_dict(), file)
    elif content == "no state dict":
        torch.save(torch.zeros(3), file)
    network = build("fusion")
    assert isinstance(network, FusionUNet)
    with pytest.raises(InputError, match=r"model\.resnet_weights=.*wrong\.pth"):
        pretrained.load(network, resnet_weights=str(file))


@pytest.mark.parametrize(("inputs", "outputs"), [(32, 224), (224, 224), (300, 224), (1001, 32)])
def test_the_exported_antialiasing_is_that_of_interpolate(inputs, outputs) -> None:
    x = torch.rand(1, 1, inputs, 40)
    expected = torch.nn.functional.interpolate(x, (outputs, 40), mode="bilinear", antialias=True)
    torch.testing.assert_close(_antialiasing(inputs, outputs) @ x, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 5, 7, 4), (3, 4, 16, 9)])
def test_upconv_is_enlargement_and_convolution(shape: tuple[int, ...], bias: bool) -> None:
    """Against the two steps, forward and backward, borders and all, in float64 where rounding hides nothing."""
    torch.manual_seed(0)
    layer = UpConv2d(shape[1], 6, bias).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours = layer(x)
    enlarged = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    plain = torch.nn.functional.conv2d(enlarged, layer.weight, layer.bias, padding=1)
    for computed in (ours, layer.by_phases(x)):
        torch.testing.assert_close(computed, plain)
    wanted = torch.randn_like(plain)
    gradients = [torch.autograd.grad(y, (x, *layer.parameters()), wanted, retain_graph=True) for y in (ours, plain)]
    torch.testing.assert_close(*gradients)
    assert layer.state_dict().keys() == torch.nn.Conv2d(1, 1, 3, bias=bias).state_dict().keys()


def test_a_network_that_fills_itself_is_asked_before_its_parent() -> None:
    class Mine(FusionUNet):
        def load_pretrained(self, mine: str) -> dict[str, str]:
            return {"part": mine}

    network = Mine(width=4, depth=2)
    assert pretrained.settings(network) == {"mine"}
    assert pretrained.load(network, mine="a.pth") == {"part": "a.pth"}
    assert pretrained.settings(FusionUNet(width=4, depth=2)) == {"resnet_weights"}
    assert pretrained.settings(nn.Linear(1, 1)) == set()
