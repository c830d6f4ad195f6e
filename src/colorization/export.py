"""Export weights: ``python -m colorization.export weights=<file or run> format=onnx``, for machines without torch.

The result takes any batch, height and width, and says what it is as the weights do (:mod:`colorization.descriptions`),
with the SHA-256 of the file that it was made from. Its input ``L`` is (N, 1, h, w) float32 in [0, 1], its output ``ab``
(K, N, 2, h, w) float32 normalised, from each of K members (1 but for an ensemble). A network with a distribution over
classes of ab also takes ``vividness``, one float32 in [0, 1], and gives its ``distribution``, (N, Q, h', w') float32
log-probabilities of the colours :func:`colorization.color.ab_grid` (grid) as often as in the photographs.

``format=float16`` writes the weights themselves in half the size, to pass on.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from colorization import backends, checkpoint, hydra_main, runs
from colorization.backends import Unexportable
from colorization.descriptions import KEY, SOURCE
from colorization.errors import InputError

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "float16": ".safetensors"}
# Of normalised ab, whose range is about 2. What was seen is 1e-6; a graph that computes something else is far off.
TOLERANCE = 1e-3
_OPSET = 18
_CHECKED = ((1, 32, 32), (2, 45, 71), (1, 130, 97))  # batch, height, width
_ONE_AT_A_TIME = threading.Lock()  # torch.onnx.export keeps its state in the process; a server exports in threads


def export(source: Path, target: Path) -> None:
    """Write the network in ``source`` as ``target``, ONNX or (``*.xml``, its weights beside it) OpenVINO's format.

    It appears only when it answers like the network itself.

    Args:
        source: ``*.safetensors`` or ``*.ckpt``.
        target: ``*.onnx`` or ``*.xml``.

    Raises:
        InputError: the weights cannot be used; :class:`Unexportable`: the network cannot be exported here.
        OSError: ``target`` cannot be written.
    """
    if target.suffix == ENDINGS["openvino"] and find_spec("openvino") is None:
        raise Unexportable(f"{target}: needs the package openvino: pip install 'lab-colorization[openvino]'")
    network, description = checkpoint.load_weights(source)
    metadata = {KEY: json.dumps(description), SOURCE: runs.sha256(source)}
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model.onnx"
        made.write_bytes(_onnx(network, metadata, source))
        _check(backends.OnnxBackend(made), network, source)
        if target.suffix == ENDINGS["onnx"]:
            with runs.atomic_path(target) as temporary:
                temporary.write_bytes(made.read_bytes())
            return
        _to_openvino(made, metadata)
        _check(backends.OpenVINOBackend(made.with_suffix(".xml")), network, source)
        # Two files cannot be renamed at once: without the .xml there is no model, and it comes last.
        target.unlink(missing_ok=True)
        for ending in (".bin", ".xml"):
            with runs.atomic_path(target.with_suffix(ending)) as temporary:
                temporary.write_bytes(made.with_suffix(ending).read_bytes())


def write_float16(
    source: Path,
    target: Path,
    chroma: float = 1.0,
    size: int | None = None,
    vividness: float | None = None,
    temperature: float | None = None,
) -> None:
    """Write the weights in ``source`` to ``target`` as float16, with other colours or settings of their own.

    Args:
        source: ``*.safetensors`` or ``*.ckpt``.
        target: ``*.safetensors``, not ``source``.
        chroma: factor on a* and b*, above 0, noted in the description. It is a setting of
            :class:`colorization.networks.encoder_unet.ClassUNet`; in any other network it goes into the last layer,
            ahead of the squashing that bounds them, so colours near the bound change less.
        size: working size, see :func:`colorization.descriptions.working_size`.
        vividness, temperature: of :class:`colorization.networks.encoder_unet.ClassUNet`.

    Raises:
        InputError: the weights cannot be used, are an ensemble, whose members have colours of their own, or have no
            such setting.
        OSError: ``target`` cannot be written.
    """
    network, description = checkpoint.load_weights(source)
    has_classes = backends.own_vividness(description) is not None
    if chroma != 1 and not has_classes:
        head = getattr(network, "head", None)
        if head is None:
            raise InputError(f"chroma={chroma}: {source} is an ensemble; scale the colours of its members")
        last = [m for m in head.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(chroma)
        # What was measured in training is not true of these colours.
        description = {**description, "chroma": chroma * description.get("chroma", 1.0), "metrics": {}}
    if size is not None:
        description = {**description, "working_size": size}
    own = {k: v for k, v in (("vividness", vividness), ("temperature", temperature)) if v is not None}
    if chroma != 1 and has_classes:
        own["chroma"] = chroma * description["network"].get("chroma", 1.0)
    if own:
        if not has_classes:
            raise InputError(f"{next(iter(own))}: weights of a {description['stage']} have no such setting")
        description = {**description, "network": {**description["network"], **own}, "metrics": {}}
        checkpoint.build_network(description["network"])  # refuses a value that cannot work
    checkpoint.save_weights(target, network, description, torch.float16)


class _AllAnswers(nn.Module):
    """The network with one more dimension in front: its members, where it is an ensemble."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, L: torch.Tensor) -> torch.Tensor:
        return backends.answers(self.network, L)


class _WithDistribution(nn.Module):
    """A network that has a distribution: its ab, and that."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, L: torch.Tensor, vividness: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = self.network.raw(L)
        ab = self.network.decoded(raw, L, vividness)
        return ab[None], self.network.log_shares(raw, 0.0)


def _onnx(network: nn.Module, metadata: dict[str, str], source: Path) -> bytes:
    axes = {0: "batch", 2: "height", 3: "width"}
    dynamic = {"L": axes, "ab": {i + 1: name for i, name in axes.items() if i != 1}}
    wrapped: nn.Module = _AllAnswers(network)
    given: tuple[torch.Tensor, ...] = (torch.rand(2, 1, 64, 96),)
    inputs, outputs = ["L"], ["ab"]
    if hasattr(network, "distribution"):
        wrapped, given = _WithDistribution(network), (*given, torch.tensor(0.5))
        inputs, outputs = [*inputs, "vividness"], [*outputs, "distribution"]
        dynamic["distribution"] = {0: "batch", 2: "rows", 3: "columns"}
    buffer = io.BytesIO()
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        # Tracing, not torch.export: that one reasons about the sizes of every level of a U-Net of unknown size, which
        # took more than ten minutes. A constant in a trace is what the warnings are about; _check would see it.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                wrapped.eval(),
                given,
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=_OPSET,
                training=torch.onnx.TrainingMode.PRESERVE,  # keeps batch norms: folded, weights are no float16 any more
                do_constant_folding=False,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=dynamic,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise Unexportable(f"{source}: cannot be exported to ONNX: {_first_line(error)}") from error
    model = onnx.load_from_string(buffer.getvalue())
    _store_as_float16(model)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _store_as_float16(model: Any) -> None:
    """Store as float16 what is float16 to the bit, as all weights that were saved so: half the file, the same model."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size > 1 and np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _to_openvino(made: Path, metadata: dict[str, str]) -> None:
    import openvino

    model = backends.openvino_core().read_model(made)
    for key, value in metadata.items():
        model.set_rt_info(value, [key])
    openvino.save_model(model, made.with_suffix(".xml"), compress_to_fp16=False)


@torch.inference_mode()
def _check(backend: backends.Backend, network: nn.Module, source: Path) -> None:
    """Raises ``InputError`` where the answers differ by more than the tolerance."""
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in _CHECKED:
        # Smooth, as photographs are, and with some grain.
        coarse = torch.rand(batch, 1, 8, 8, generator=generator)
        L = F.interpolate(coarse, (height, width), mode="bilinear")
        L = (L + 0.05 * torch.randn(L.shape, generator=generator)).clamp(0, 1)
        found = backend(L.numpy())
        wanted = backends.answers(network, L).numpy()
        if found.shape != wanted.shape or not np.abs(found - wanted).max() < TOLERANCE:  # also NaN
            raise Unexportable(f"{source}: the exported model does not answer like the network; it was not kept")


def command(cfg: DictConfig) -> None:
    """The command, as configured. Raises as :func:`export`."""
    if cfg.format not in ENDINGS:
        raise InputError(f"format={cfg.format}: should be {', '.join(ENDINGS)}")
    source = runs.resolve_weights(cfg.weights, cfg.paths.output_dir)
    target = source.with_suffix(ENDINGS[cfg.format]) if cfg.output is None else Path(cfg.output)
    if target.suffix != ENDINGS[cfg.format]:
        raise InputError(f"output={target}: should end in {ENDINGS[cfg.format]}")
    if cfg.chroma != 1 and cfg.format != "float16":
        raise InputError(f"chroma={cfg.chroma}: goes with format=float16; what is made of those weights has it, too")
    given = [key for key in ("size", "vividness", "temperature") if cfg[key] is not None]
    if given and cfg.format != "float16":
        raise InputError(f"{given[0]}={cfg[given[0]]}: goes with format=float16")
    if cfg.size is not None and (not isinstance(cfg.size, int) or cfg.size < 32):
        raise InputError(f"size={cfg.size}: should be a whole number, 32 or more")
    if not cfg.chroma > 0:
        raise InputError(f"chroma={cfg.chroma}: should be above 0")
    if target.exists() and target.samefile(source):
        raise InputError(f"output={target}: these are the weights themselves; give another file")
    try:
        if cfg.format == "float16":
            write_float16(source, target, cfg.chroma, cfg.size, cfg.vividness, cfg.temperature)
        else:
            export(source, target)
    except OSError as error:
        raise InputError(f"output={target}: cannot be written ({error.strerror})") from error
    logging.getLogger(__name__).info("%s: %.1f MB", target, target.stat().st_size / 1e6)


if __name__ == "__main__":
    hydra_main.run(command, "export")
