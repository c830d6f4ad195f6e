"""Weights to ONNX and OpenVINO, checked against the network that they were made from."""

from __future__ import annotations

import io
import json
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from colorization.core import atomic
from colorization.models import backends, checkpoint, descriptions
from colorization.models.backends import Unexportable
from colorization.models.descriptions import KEY, SOURCE

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
    metadata = {KEY: json.dumps(description), SOURCE: atomic.sha256(source)}
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model.onnx"
        made.write_bytes(_onnx(network, description, metadata, source))
        _check(backends.OnnxBackend(made), network, source)
        if target.suffix == ENDINGS["onnx"]:
            with atomic.atomic_path(target) as temporary:
                temporary.write_bytes(made.read_bytes())
            return
        _to_openvino(made, metadata)
        _check(backends.OpenVINOBackend(made.with_suffix(".xml")), network, source)
        # Two files cannot be renamed at once: without the .xml there is no model, and it comes last.
        target.unlink(missing_ok=True)
        for ending in (".bin", ".xml"):
            with atomic.atomic_path(target.with_suffix(ending)) as temporary:
                temporary.write_bytes(made.with_suffix(ending).read_bytes())


class _Exported(nn.Module):
    """The network as it is exported: its inputs by their places, and one more dimension in front of ab, the members.

    Where it has a distribution that is a second output, see :func:`.backends.has_distribution`.
    """

    def __init__(self, network: nn.Module, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.network: Any = network
        self.names, self.has_distribution = [*descriptions.inputs(description)], backends.has_distribution(description)

    def forward(self, L: torch.Tensor, *values: torch.Tensor) -> Any:
        given = dict(zip(self.names, values, strict=True))
        if not self.has_distribution:
            return backends.answers(self.network, L, **given)
        vividness = given.pop("vividness")
        raw = self.network.raw(L, **given)
        return self.network.decoded(raw, L, vividness)[None], self.network.log_shares(raw, 0.0)


def _onnx(network: nn.Module, description: Mapping[str, Any], metadata: dict[str, str], source: Path) -> bytes:
    axes = {0: "batch", 2: "height", 3: "width"}
    dynamic = {"L": axes, "ab": {i + 1: name for i, name in axes.items() if i != 1}}
    wrapped, L = _Exported(network, description), torch.rand(2, 1, 64, 96)
    given = [torch.from_numpy(value) for value in backends.filled(description, L.numpy(), {}).values()]
    for name, one in descriptions.inputs(description).items():
        if one.channels is not None or one.length is not None:
            dynamic[name] = axes if one.length is None else {0: "batch"}
    outputs = ["ab"]
    if wrapped.has_distribution:
        outputs = [*outputs, "distribution"]
        dynamic["distribution"] = {0: "batch", 2: "rows", 3: "columns"}
    buffer = io.BytesIO()
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        # Tracing, not torch.export: that one reasons about the sizes of every level of a U-Net of unknown size, which
        # took more than ten minutes. A constant in a trace is what the warnings are about; _check would see it.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                wrapped.eval(),
                tuple(given),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=_OPSET,
                training=torch.onnx.TrainingMode.PRESERVE,  # keeps batch norms: folded, weights are no float16 any more
                do_constant_folding=False,
                input_names=["L", *wrapped.names],
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
    inputs = descriptions.inputs(backend.description)
    for batch, height, width in _CHECKED:
        # Smooth, as photographs are, and with some grain.
        coarse = torch.rand(batch, 1, 8, 8, generator=generator)
        L = F.interpolate(coarse, (height, width), mode="bilinear")
        L = (L + 0.05 * torch.randn(L.shape, generator=generator)).clamp(0, 1)
        given = {name: _something(one, L.shape, generator) for name, one in inputs.items()}
        found = backend(L.numpy(), **given)
        values = backends.filled(backend.description, L.numpy(), given)
        wanted = backends.answers(network, **{name: torch.from_numpy(v) for name, v in values.items()}).numpy()
        if found.shape != wanted.shape or not np.abs(found - wanted).max() < TOLERANCE:  # also NaN
            raise Unexportable(f"{source}: the exported model does not answer like the network; it was not kept")


def _something(one: descriptions.Input, shape: Sequence[int], generator: torch.Generator) -> Any:
    """Another value of an input than its default, here and there."""
    value = one.value(None, shape)
    there = torch.rand(value.shape, generator=generator).numpy() < 0.1
    return np.where(there, torch.rand(value.shape, generator=generator).numpy(), value)
