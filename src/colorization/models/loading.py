"""Weights to a backend that runs them: their ONNX twin, the backend asked for, or the fastest that is installed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from colorization.core import atomic, machine
from colorization.core.errors import InputError
from colorization.models import descriptions
from colorization.models.backends import (
    Backend,
    OnnxBackend,
    OpenVINOBackend,
    TorchBackend,
    Unexportable,
    has_bf16,
    onnx_session,
    openvino_core,
)

log = logging.getLogger(__name__)

NAMES = ("torch", "onnx", "openvino", "openvino-bf16")
MEASURED_SECONDS = 0.4  # on each backend


def twin(path: Path) -> Path:
    """The ONNX model of a weights file: beside it, or in the cache, into which it is exported on first use.

    Raises:
        Unexportable: there is none, and it cannot be made.
        InputError: the weights cannot be used.
    """
    digest = atomic.sha256(path)
    cached = machine.cache_dir() / "onnx" / f"{digest}.onnx"
    for candidate in (path.with_suffix(".onnx"), cached):
        if os.access(candidate, os.R_OK):  # a cache that is not for this user counts as empty
            facts = onnx_session(candidate, 1, optimize=False).get_modelmeta().custom_metadata_map
            if facts.get(descriptions.SOURCE) == digest:
                return candidate
    if find_spec("torch") is None:
        raise Unexportable(
            f"{path}: without PyTorch these weights need their ONNX twin beside them; make it where PyTorch is: "
            f"python -m colorization.export weights={path.name}"
        )
    from colorization.models import onnx_export

    try:
        onnx_export.export(path, cached)
    except OSError as error:
        raise Unexportable(f"{path}: its ONNX twin cannot be written to {cached.parent} ({error.strerror})") from error
    return cached


def load(
    path: Path, device: str = "auto", backend: str = "auto", threads: int | None = None, measure: bool = False
) -> Backend:
    """The backend for a weights file.

    ``auto`` takes the backend that was measured to be the fastest on this machine for these weights and ``threads``,
    and until one was measured onnxruntime, which starts the fastest; torch for weights that it cannot run. Where there
    may be an accelerator, torch is imported to see.

    Args:
        path: ``*.safetensors``, ``*.ckpt``, or an exported ``*.onnx`` or ``*.xml`` (OpenVINO).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; all but torch run on the CPU alone.
        backend: ``auto`` or one of :data:`NAMES`.
        threads: cores that one call uses; default all.
        measure: with ``auto``, measure where that has not been done: about half a second a backend, and some seconds
            to import torch. Worth it for a folder, not for a photo.

    Raises:
        InputError: no such backend or device here, or the weights cannot be used by it.
    """
    if backend not in ("auto", *NAMES):
        raise InputError(f"backend={backend}: should be auto, {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"device={device}: should be auto, cpu, cuda or mps")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    model, exported = path, path.suffix in (".onnx", ".xml")
    if device in ("cuda", "mps"):
        if exported or backend not in ("auto", "torch"):
            raise InputError(f"device={device}: only backend=torch with weights that are not exported runs there")
        return _named("torch", path, device, threads)
    if backend != "auto":
        return _named(backend, path, device, threads)
    if path.suffix == ".xml":
        return _named("openvino", path, device, threads)
    if not exported:
        if device == "auto" and find_spec("torch") is not None and _may_have_accelerator():
            on_accelerator = TorchBackend(path, "auto", threads)
            if on_accelerator.device != "cpu":
                return on_accelerator
        try:
            model = twin(path)
        except Unexportable as error:
            if find_spec("torch") is None:
                raise
            log.warning("%s; PyTorch runs them", error)
            return TorchBackend(path, "cpu", threads)
    return _named(_fastest(path, model, threads, measure), path, "cpu", threads, model)


def _named(name: str, path: Path, device: str, threads: int | None, model: Path | None = None) -> Backend:
    """The backend of that name; ``model`` is the result of :func:`twin`, if known already."""
    if name == "torch":
        if path.suffix in (".onnx", ".xml"):
            raise InputError(f"{path}: an exported model; backend=torch needs the weights that it was made from")
        if find_spec("torch") is None:
            raise InputError("backend=torch: PyTorch is not installed")
        return TorchBackend(path, device, threads)
    if path.suffix == ".xml" and name == "onnx":
        raise InputError(f"{path}: is OpenVINO's format; backend=onnx needs *.onnx")
    if model is None:
        model = path if path.suffix in (".onnx", ".xml") else twin(path)
    if name == "onnx":
        return OnnxBackend(model, threads)
    return OpenVINOBackend(model, threads, bf16=name == "openvino-bf16")


def _may_have_accelerator() -> bool:
    """Whether it is worth the seconds that importing torch takes to look for one."""
    return sys.platform == "darwin" or shutil.which("nvidia-smi") is not None


def _fastest(path: Path, model: Path, threads: int | None, measure: bool) -> str:
    """The name of the backend that was measured to be the fastest; ``onnx`` if none was."""
    packages = {name: _version(name) for name in ("torch", "onnxruntime", "openvino")}
    key = {
        "weights": atomic.sha256(path),
        "machine": [platform.node(), platform.machine(), platform.processor(), machine.cores()],
        "packages": packages,
        "threads": threads,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    file = machine.cache_dir() / "fastest" / f"{digest[:32]}.json"
    try:
        seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError):  # none, or not to be read
        if not measure:
            return "onnx"
        seconds = _measure(path, model, threads, packages)
        log.info("measured, seconds a photo: %s", ", ".join(f"{n} {s:.3f}" for n, s in seconds.items()))
        try:
            atomic.write_json(file, {**key, "seconds": seconds}, indent=1)
        except OSError as error:
            log.warning("%s: cannot be written (%s); the backends will be measured again", file, error.strerror)
    return min(seconds, key=lambda name: seconds[name])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _measure(path: Path, model: Path, threads: int | None, packages: Mapping[str, str | None]) -> dict[str, float]:
    """Median seconds of one square photo at the trained size on every backend that is there, by turns."""
    names = ["onnx"]
    if packages["openvino"] is not None:
        names += ["openvino", *(["openvino-bf16"] if has_bf16(openvino_core()) else [])]
    if packages["torch"] is not None and path.suffix != ".onnx":
        names.append("torch")
    there = {name: _named(name, path, "cpu", threads, model) for name in names}
    size = descriptions.working_size(there["onnx"].description)
    L = np.random.default_rng(0).random((1, 1, size, size), np.float32)
    for run in there.values():
        run(L)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    while len(seconds["onnx"]) < 3 or time.perf_counter() - start < MEASURED_SECONDS * len(names):
        for name, run in there.items():
            before = time.perf_counter()
            run(L)
            seconds[name].append(time.perf_counter() - before)
    return {name: statistics.median(times) for name, times in seconds.items()}
