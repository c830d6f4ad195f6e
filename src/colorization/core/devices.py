"""The accelerator to use, and its capabilities."""

import sys
from collections.abc import Mapping
from typing import Any

import torch

from colorization.core.errors import InputError

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

KINDS = ("mps", "cuda", "cpu")  # in order of preference


def available() -> list[str]:
    """The kinds that this machine has, best first; ``cpu`` is always among them."""
    there = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available(), "cpu": True}
    return [kind for kind in KINDS if there[kind]]


def has_bf16(kind: str) -> bool:
    """Whether this machine's ``kind`` computes in bfloat16 in hardware, and so faster than in float32.

    torch emulates it elsewhere: twelve times slower than float32 on a CPU with AVX2 alone. (Of MPS nothing was
    measured.)
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch < 2.11 cannot tell
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def channels_last_pays(kind: str) -> bool:
    """Whether training is faster with channels last: on CUDA, and on a CPU with AVX-512 (1.8 times in the U-Net).

    With AVX2 alone oneDNN's convolutions gain in the forward pass and lose more in the backward pass (0.85 times).
    """
    return kind == "cuda" or (kind == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability())


# Of training: Lightning's but 64 bits, which no colour conversion and no metric here computes in, and ``auto``.
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "32", "bf16", "16")


def is_mixed(precision: str) -> bool:
    """Whether weights stay float32 while the network computes in 16 bits."""
    return precision in ("bf16-mixed", "16-mixed", "bf16", "16")


def resolve_precision(asked: str, kind: str) -> str:
    """``auto`` to ``bf16-mixed`` where the hardware has it, else ``32-true``; any other is Lightning's."""
    if asked != "auto":
        return asked
    return "bf16-mixed" if has_bf16(kind) else "32-true"


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory (MiB) that this process has had: on CUDA the tensors there, else all of the process.

    ``None`` if the system does not say (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kB elsewhere


def choose(asked: str, key: str) -> str:
    """``auto`` (or ``gpu``) to the best available kind; any other is checked.

    Args:
        asked: ``auto``, ``gpu`` or one of :data:`KINDS`.
        key: the option that asked, for the message.

    Raises:
        InputError: unknown, or this machine has none.
    """
    have = available()
    if asked in ("auto", "gpu"):
        return have[0]
    if asked not in KINDS:
        raise InputError(f"{key}={asked}: should be auto, cpu, cuda or mps")
    if asked not in have:
        raise InputError(f"{key}={asked}: this machine has no {asked.upper()}; it has {', '.join(have)}")
    return asked
