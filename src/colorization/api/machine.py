"""The server's machine. Does not import torch, which takes seconds and hundreds of megabytes."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from colorization.core import machine

MIB = 1 << 20
PACKAGES = (
    "lab-colorization",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "onnxruntime",
    "openvino",
    "numpy",
    "pillow",
    "hydra-core",
    "apiflask",
    "sqlalchemy",
)


@functools.cache
def accelerator() -> dict[str, Any]:
    """The best device there is: ``kind`` (as in :data:`.devices.KINDS`), ``name``, ``memory_bytes``."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return {"kind": "mps", "name": processor(), "memory_bytes": psutil.virtual_memory().total}
    if (program := shutil.which("nvidia-smi")) is not None:
        command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
            name, _, memory = answer.splitlines()[0].rpartition(", ")
            return {"kind": "cuda", "name": name, "memory_bytes": int(memory) * MIB}
        except (OSError, subprocess.SubprocessError, IndexError, ValueError):
            pass  # a driver without a device
    return {"kind": "cpu", "name": processor(), "memory_bytes": psutil.virtual_memory().total}


@functools.cache
def processor() -> str:
    """The processor's name."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def now(folder: Path) -> dict[str, Any]:
    """Load, memory, and the disk that holds ``folder``."""
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(folder)
    return {
        "processor": processor(),
        "cores": machine.cores(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "memory": {
            "total_bytes": memory.total,
            "available_bytes": memory.available,
            "server_bytes": psutil.Process().memory_info().rss,
        },
        "disk": {"total_bytes": disk.total, "free_bytes": disk.free},
    }
