"""Which accelerator to use."""

import torch

from colorization.errors import InputError

KINDS = ("mps", "cuda", "cpu")  # in order of preference


def available() -> list[str]:
    """The kinds that this machine has, best first; ``cpu`` is always among them."""
    there = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available(), "cpu": True}
    return [kind for kind in KINDS if there[kind]]


def choose(asked: str, key: str) -> str:
    """``auto`` (or ``gpu``) to the best kind there is; any other is checked.

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
