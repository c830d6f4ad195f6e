"""What runs a network: PyTorch, onnxruntime or OpenVINO behind one call. Each is imported only where it is used.

Weights run in onnxruntime and OpenVINO as their ONNX twin (:mod:`colorization.export`): the one that lies beside them,
or one in the user's cache, where it is made on first use if torch is there. A twin knows the SHA-256 of its weights.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from colorization.core import atomic, machine
from colorization.core.errors import InputError
from colorization.models import descriptions

log = logging.getLogger(__name__)


class Backend(Protocol):
    """One set of weights, ready to run.

    Attributes:
        name: one of :data:`NAMES`.
        description: what the weights say of themselves.
        digest: SHA-256 of the weights file, hexadecimal; of an exported model that of the weights it was made from.
    """

    name: str
    description: dict[str, Any]
    digest: str

    def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
        """(N, 1, h, w) float32 in [0, 1] to (K, N, 2, h, w) float32 normalised ab, from each of its K members.

        K is 1 unless the weights are an ensemble's. ``given`` are further inputs by name
        (:func:`.descriptions.inputs`): what these weights do not take they ignore, what is not given or ``None`` has
        its default. May be called from several threads at once.
        """

    def distribution(self, L: np.ndarray, **given: Any) -> np.ndarray:
        """(N, 1, h, w) float32 to (N, Q, h', w') float32 log-probabilities of the classes of ab, as often as in the
        photographs, see :meth:`colorization.networks.encoder_unet.ClassUNet.distribution`. Only of weights that have
        it (:func:`has_distribution`).
        """


def has_distribution(description: Mapping[str, Any]) -> bool:
    """Whether weights give a distribution over classes of ab besides ab itself."""
    return "distribution" in descriptions.about(description)["outputs"]


def filled(description: Mapping[str, Any], L: np.ndarray, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All that a network takes by name: L, and the rest as it is given or by default. Raises ``InputError``."""
    values = {"L": L}
    for name, one in descriptions.inputs(description).items():
        try:
            values[name] = one.value(given.get(name), L.shape)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return values


class Unexportable(InputError):
    """Weights that are sound but have no ONNX twin here."""


class TorchBackend:
    """The network itself, see :func:`.checkpoint.load_weights`. ``threads`` holds for the whole process."""

    name = "torch"

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None) -> None:
        import torch

        from colorization.core import devices
        from colorization.models import checkpoint

        self._torch = torch
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = devices.choose(device, "device")
        network, self.description = checkpoint.load_weights(path)
        # Channels last takes two thirds of the time on CPUs (benchmarks/bench_infer.py) and changes no result.
        self._network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.digest = atomic.sha256(path)

    def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
        with self._torch.inference_mode():
            return answers(self._network, **self._tensors(L, given)).float().cpu().numpy()

    def distribution(self, L: np.ndarray, **given: Any) -> np.ndarray:
        with self._torch.inference_mode():
            network: Any = self._network
            tensors = {**self._tensors(L, given), "vividness": 0.0}
            return network.distribution(**tensors).float().cpu().numpy()

    def _tensors(self, L: np.ndarray, given: Mapping[str, Any]) -> dict[str, Any]:
        values = filled(self.description, L, given)
        return {name: self._torch.from_numpy(value).to(self.device) for name, value in values.items()}


def answers(network: Any, L: Any, **given: Any) -> Any:
    """(K, N, 2, h, w): what each member of an ensemble answers, or the one answer of another network; tensors."""
    return network.answers(L, **given) if hasattr(network, "answers") else network(L, **given)[None]


class OnnxBackend:
    """An exported model (``*.onnx``) in onnxruntime, on the CPU."""

    name = "onnx"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self._session = onnx_session(path, threads)
        self.description, self.digest = _identity(self._session.get_modelmeta().custom_metadata_map, path)

    def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
        return self._session.run(["ab"], filled(self.description, L, given))[0]

    def distribution(self, L: np.ndarray, **given: Any) -> np.ndarray:
        return self._session.run(["distribution"], filled(self.description, L, given))[0]


class ForeignOnnx:
    """Somebody else's ONNX model, which does not say what it is, in onnxruntime, on the CPU.

    One input, (N, 1, h, w) float32 L*/100, and as first output (N, 2, h, w) a*b*/110; it may insist on a batch or size.

    Raises:
        InputError: no such model; when it is called, it does not take this or answers something else.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._session = path, onnx_session(path)
        self._input = self._session.get_inputs()[0]

    def __call__(self, L: np.ndarray) -> np.ndarray:
        """(N, 1, h, w) to (N, 2, h, w), photo by photo."""
        try:
            parts = [self._session.run(None, {self._input.name: photo})[0] for photo in np.split(L, len(L))]
        except Exception as error:  # onnxruntime's have no other class in common
            wants = f"{self._input.type} {self._input.shape}"
            raise InputError(
                f"{self._path}: takes {wants}, should take L*/100 as float32 {[1, *L.shape[1:]]}"
            ) from error
        ab = np.concatenate(parts)
        if ab.shape != (len(L), 2, *L.shape[2:]):
            shape = list(parts[0].shape)
            raise InputError(f"{self._path}: answers {shape}, should answer a*b*/110 as {[1, 2, *L.shape[2:]]}")
        return ab


def is_foreign(path: Path) -> bool:
    """Whether a model file (``*.onnx``) was made by something else than :mod:`colorization.export`."""
    return descriptions.KEY not in onnx_session(path, 1, optimize=False).get_modelmeta().custom_metadata_map


def onnx_session(path: Path, threads: int | None = None, optimize: bool = True) -> Any:
    import onnxruntime

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no other class in common
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not an ONNX model that onnxruntime can run ({reason})") from error


class OpenVINOBackend:
    """An exported model (``*.onnx``, ``*.xml``) in OpenVINO, on the CPU.

    Args:
        path: the model.
        threads: cores that one call uses; as many calls run side by side as there is room for.
        bf16: compute in bfloat16, which only some processors do, and they several times as fast; the answers differ
            by up to 0.2 in a* and b*.

    Raises:
        InputError: the file is no model of this project, the package is missing, or the processor has no bfloat16.
    """

    def __init__(self, path: Path, threads: int | None = None, bf16: bool = False) -> None:
        if find_spec("openvino") is None:
            raise InputError(f"{path}: needs the package openvino: pip install 'lab-colorization[openvino]'")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self.name = "openvino-bf16" if bf16 else "openvino"
        core = openvino_core()
        if bf16 and not has_bf16(core):
            raise InputError(f"backend={self.name}: this processor does not compute in bfloat16; take openvino")
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise InputError(f"{path}: not a model that OpenVINO can run") from error
        if path.suffix == ".onnx":
            facts: Mapping[str, str] = onnx_session(path, 1, optimize=False).get_modelmeta().custom_metadata_map
        else:
            keys = [k for k in (descriptions.KEY, descriptions.SOURCE) if model.has_rt_info(k)]
            facts = {k: model.get_rt_info(k).value for k in keys}
        self.description, self.digest = _identity(facts, path)
        there = machine.cores()
        streams = max(1, there // (threads or there))
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": min(there, streams * threads) if threads else there,
            "NUM_STREAMS": streams,
        }
        self._model = core.compile_model(model, "CPU", config)
        self._local = threading.local()  # a request serves one thread at a time

    def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
        return self._answer("ab", L, given)

    def distribution(self, L: np.ndarray, **given: Any) -> np.ndarray:
        return self._answer("distribution", L, given)

    def _answer(self, output: str, L: np.ndarray, given: Mapping[str, Any]) -> np.ndarray:
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        return self._local.request.infer(filled(self.description, L, given))[output].copy()


@cache
def openvino_core() -> Any:
    """The one of this process. Each brings its thread a stack for signals and, when it goes, the one from before it,
    which by then may be that of another core and gone: the next signal would then end the process."""
    import openvino

    return openvino.Core()


def has_bf16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _identity(facts: Mapping[str, str], path: Path) -> tuple[dict[str, Any], str]:
    """Description and source's digest in an exported model's metadata. Raises ``InputError``."""
    description = descriptions.parse(facts.get(descriptions.KEY), path)
    if descriptions.SOURCE not in facts:
        raise InputError(f"{path}: does not say which weights it was made from")
    return description, facts[descriptions.SOURCE]
