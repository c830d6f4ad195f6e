"""Cores, memory and output of this process. Imports no torch."""

from __future__ import annotations

import ctypes
import io
import os
import sys
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "COLORIZATION_CACHE"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed arrays and tensors for the next ones; other C libraries are left alone.

    It gives large blocks back to the system at once, and getting fresh pages took a fifth (U-Net) to a third (baseline
    CNN) of a training step on a CPU, and a quarter of the CPU time of colorizing a 12-megapixel photo; the peak of
    training grows by a twentieth, that of colorizing not.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def print_all_letters() -> None:
    """Have stdout and stderr escape the letters that their encoding lacks (``\\u2192``), instead of raising.

    A Windows console or file may have cp1252, and names of files may hold anything.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_dir() -> Path:
    """For ONNX twins, measurements and shards: ``$COLORIZATION_CACHE``, by default the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("lab-colorization", appauthor=False)
