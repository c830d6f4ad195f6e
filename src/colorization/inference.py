"""The ``Colorizer``: weights in, grey photo in, colour photo of the same size out. One object for every door."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from colorization import checkpoint, color, devices
from colorization.data.photos import to_rgb8
from colorization.errors import InputError

DEFAULT_WEIGHTS = "unet.safetensors"
WEIGHTS_VARIABLE = "COLORIZATION_WEIGHTS"
SMALLEST_SIDE = 32  # of what a network takes


def shipped_weights() -> list[Path]:
    """The weights files that come with the package, sorted by name."""
    return sorted(
        Path(str(f)) for f in resources.files("colorization.weights").iterdir() if f.name.endswith(".safetensors")
    )


def find_weights(given: str | os.PathLike[str] | None = None) -> Path:
    """Which weights to use: those given (a file or a run's id or folder), else ``$COLORIZATION_WEIGHTS``, else shipped.

    Raises:
        InputError: they are not there.
    """
    reference = given or os.environ.get(WEIGHTS_VARIABLE)
    if reference:
        return checkpoint.resolve_weights(os.fspath(reference))
    default = [f for f in shipped_weights() if f.name == DEFAULT_WEIGHTS]
    if not default:
        raise InputError(
            f"no weights: give some with --weights, or set ${WEIGHTS_VARIABLE}; none ship with this version"
        )
    return default[0]


class Colorizer:
    """Colorizes photographs of any size with one set of weights.

    Use :meth:`load`. The network sees a reduced copy; only its a*b* are enlarged (bicubic) and joined to the L* of the
    original at full resolution, with out-of-gamut colours losing chroma at constant L* and hue.

    Attributes:
        description: what the weights say of themselves.
        device: where the network runs.
    """

    def __init__(self, network: nn.Module, description: dict[str, Any], device: str = "auto") -> None:
        self.device = devices.choose(device, "device")
        # Channels last takes two thirds of the time on CPUs (benchmarks/bench_infer.py) and changes no result.
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.description = description

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, device: str = "auto") -> Colorizer:
        """A colorizer from a weights file or a run (see :func:`find_weights`).

        Args:
            path: ``*.safetensors``, ``*.ckpt``, or the id or folder of a run; default see :func:`find_weights`.
            device: ``auto`` (MPS, then CUDA, then CPU), ``cpu``, ``cuda`` or ``mps``.

        Raises:
            InputError: no such weights, or they cannot be trusted or used; no such device.
        """
        return cls(*checkpoint.load_weights(find_weights(path)), device)

    @property
    def default_size(self) -> int:
        """The working size that the weights were trained at, pixels."""
        return int(self.description["training_data"].get("image_size", 256))

    def predict(self, L: np.ndarray, size: int | None = None) -> np.ndarray:
        """The network's answer at the working size.

        Args:
            L: (H, W) float32 in [0, 1], the lightness at full resolution.
            size: short side of the reduced copy, pixels; default :attr:`default_size`. The long side of a very long
                picture is held at four times that.

        Returns:
            (2, h, w) float32 normalised ab.
        """
        size = size or self.default_size
        if size < SMALLEST_SIDE:
            raise InputError(f"size={size}: should be {SMALLEST_SIDE} pixels or more")
        height, width = L.shape
        scale = min(size / min(height, width), 4 * size / max(height, width))
        h, w = (max(SMALLEST_SIDE, round(n * scale)) for n in (height, width))
        # Area averaging avoids aliasing when reducing, but gives blocks when a tiny picture is enlarged.
        reduced = cv2.resize(L, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        batch = torch.from_numpy(reduced.clip(0, 1))[None, None].to(self.device)
        with torch.inference_mode():
            return self.network(batch)[0].float().cpu().numpy()

    def colorize(self, image: Image.Image, size: int | None = None) -> Image.Image:
        """Colorize a photo.

        Args:
            image: any Pillow image, grey or colour (only its lightness is used); EXIF orientation is applied.
            size: as in :meth:`predict`.

        Returns:
            RGB, 8 bit, of the (upright) input's size, with its lightness.
        """
        L = color.split(color.rgb_to_lab(to_rgb8(image).transpose(2, 0, 1)))[0]
        ab = self.predict(L[0], size)
        height, width = L.shape[1:]
        enlarged = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in ab])
        result = color.lab_to_rgb(color.fit_to_gamut(color.join(L, enlarged)))
        return Image.fromarray(np.rint(result.transpose(1, 2, 0) * 255).astype(np.uint8))
