"""The plain way, as most tutorials do it: the yardstick of all benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize
from torch import nn
from torch.utils.data import Dataset

from colorization.networks.layers import UpConv2d


class _PlainUpConv2d(UpConv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.Conv2d.forward(self, F.interpolate(x, scale_factor=2.0, mode="nearest"))


def plain_network(network: nn.Module) -> nn.Module:
    """The same network, its layers as everybody writes them; changed in place."""
    for module in network.modules():
        if isinstance(module, UpConv2d):
            module.__class__ = _PlainUpConv2d
    return network


class PlainPhotos(Dataset[Any]):
    """Each photo by PIL -> square resize -> scikit-image's ``rgb2lab``; L and ab as float32 tensors in [0, 1], [-1, 1].

    Args:
        paths: the files.
        size: side of the square, pixels.
        train: random resized crop and flip as torchvision does them, instead of the resize.
    """

    def __init__(self, paths: Sequence[Path], size: int, train: bool = False) -> None:
        from torchvision.transforms import v2

        crop = [v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(1.0, 1.0)), v2.RandomHorizontalFlip()]
        self.paths, self.transform = paths, v2.Compose(crop if train else [v2.Resize((size, size))])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.transform(Image.open(self.paths[index]).convert("RGB"))
        lab = rgb2lab(np.asarray(image)).astype(np.float32).transpose(2, 0, 1)
        return torch.from_numpy(lab[:1] / 100), torch.from_numpy(lab[1:] / 110)


def colorize_plain(network: torch.nn.Module, source: Path, target: Path, size: int) -> None:
    """A photo file colorized with scikit-image at full resolution: Lab, the network on a reduced L, and back."""
    rgb = np.asarray(Image.open(source).convert("RGB"))
    lab = rgb2lab(rgb)
    scale = size / min(rgb.shape[:2])
    small = [max(32, round(n * scale)) for n in rgb.shape[:2]]
    L = resize(lab[..., 0] / 100, small, anti_aliasing=True)
    with torch.inference_mode():
        ab = network(torch.from_numpy(L.astype(np.float32))[None, None])[0].numpy().transpose(1, 2, 0) * 110
    result = lab2rgb(np.dstack((lab[..., :1], resize(ab, rgb.shape[:2], order=3))))
    Image.fromarray((result * 255).round().astype(np.uint8)).save(target, quality=92)


def evaluate_plain(
    paths: Sequence[Path], size: int, predictors: Sequence[Callable[[np.ndarray], np.ndarray]]
) -> list[dict[str, list[float]]]:
    """Photo by photo: decode, crop, convert and, for each predictor, convert back and measure, in float64.

    Args:
        paths: the photos.
        size: side of the central square, pixels.
        predictors: each from L* (H, W) to a*b* (H, W, 2), in Lab units.

    Returns:
        For each predictor metric -> one value a photo. PSNR has no upper limit.
    """
    rows: list[dict[str, list[float]]] = [
        {m: [] for m in ("psnr", "ssim", "delta_e2000", "colorfulness")} for _ in predictors
    ]
    for path in paths:
        photo = np.asarray(Image.open(path).convert("RGB"))
        scale = size / min(photo.shape[:2])
        height, width = (round(n * scale) for n in photo.shape[:2])
        photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        top, left = (height - size) // 2, (width - size) // 2
        truth = photo[top : top + size, left : left + size] / 255
        lab = rgb2lab(truth)
        for row, predict in zip(rows, predictors, strict=True):
            rgb = lab2rgb(np.dstack((lab[..., 0], predict(lab[..., 0]))))
            with np.errstate(divide="ignore"):
                row["psnr"].append(peak_signal_noise_ratio(truth, rgb, data_range=1))
            row["ssim"].append(
                structural_similarity(
                    truth, rgb, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False,
                )
            )  # fmt: skip
            row["delta_e2000"].append(deltaE_ciede2000(rgb2lab(rgb), lab).mean())
            row["colorfulness"].append(_colorfulness(255 * rgb))
    return rows


def _colorfulness(rgb: np.ndarray) -> float:
    rg, yb = rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def plain_training(
    network: nn.Module,
    discriminator: nn.Module | None,
    loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    lr: float,
) -> Iterator[int]:
    """The usual training loop, one step each time it is asked; yields the batch's size.

    float32, channels first, Adam parameter by parameter. With a ``discriminator`` the steps of pix2pix: one pass of G,
    D on the true and the detached colours, then G against the frozen D and 100 x ``loss``.
    """
    judge = nn.BCEWithLogitsLoss()
    nets = [network] if discriminator is None else [network, discriminator]
    parameters = [[p for p in net.parameters() if p.requires_grad] for net in nets]
    betas = (0.9, 0.999) if discriminator is None else (0.5, 0.999)
    optimizers = [torch.optim.Adam(p, lr, betas, foreach=False, fused=False) for p in parameters]
    for net in nets:
        plain_network(net).to(device).train()
    while True:
        for L, ab in loader:
            L, ab = L.to(device), ab.to(device)
            fake = network(L)
            value = loss(fake, ab)
            if discriminator is not None:
                for p in parameters[1]:
                    p.requires_grad_(True)
                optimizers[1].zero_grad()
                real_logits, fake_logits = discriminator(L, ab), discriminator(L, fake.detach())
                real = judge(real_logits, torch.ones_like(real_logits))
                false = judge(fake_logits, torch.zeros_like(fake_logits))
                (0.5 * (real + false)).backward()
                optimizers[1].step()
                for p in parameters[1]:
                    p.requires_grad_(False)
                fooled = discriminator(L, fake)
                value = judge(fooled, torch.ones_like(fooled)) + 100 * value
            optimizers[0].zero_grad()
            value.backward()
            optimizers[0].step()
            value.item()  # for the progress bar
            yield len(L)
