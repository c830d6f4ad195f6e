"""What runs a network: PyTorch, onnxruntime or OpenVINO behind one call. PyTorch is imported only where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Backend(Protocol):
    """One set of weights, ready to run.

    Attributes:
        name: ``torch``, ``onnx`` or ``openvino``.
        description: what the weights say of themselves.
        digest: SHA-256 of the weights file, hexadecimal.
    """

    name: str
    description: dict[str, Any]
    digest: str

    def __call__(self, L: np.ndarray) -> np.ndarray:
        """(N, 1, h, w) float32 in [0, 1] to (K, N, 2, h, w) float32 normalised ab, from each of its K members.

        K is 1 unless the weights are an ensemble's. May be called from several threads at once.
        """


class TorchBackend:
    """The network itself, see :func:`colorization.checkpoint.load_weights`."""

    name = "torch"

    def __init__(self, path: Path, device: str) -> None:
        import torch

        from colorization import checkpoint, devices

        self._torch = torch
        self.device = devices.choose(device, "device")
        network, self.description = checkpoint.load_weights(path)
        # Channels last takes two thirds of the time on CPUs (benchmarks/bench_infer.py) and changes no result.
        self._network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.digest = ""

    def __call__(self, L: np.ndarray) -> np.ndarray:
        with self._torch.inference_mode():
            return self._network(self._torch.from_numpy(L).to(self.device)).float().cpu().numpy()[None]


def load(path: Path, device: str = "auto", backend: str = "auto", threads: int | None = None) -> Backend:
    """The backend for a weights file.

    Args:
        path: ``*.safetensors``, ``*.ckpt``, ``*.onnx`` or OpenVINO's ``*.xml``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        backend: ``auto`` (the fastest here), ``torch``, ``onnx`` or ``openvino``.
        threads: cores that one call uses; default all.
    """
    return TorchBackend(path, device)
