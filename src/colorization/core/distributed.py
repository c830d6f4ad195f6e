"""Several processes that train one model together (torch.distributed); trivial with a single process."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from colorization.core.errors import InputError

_control: Any = None  # a group that needs no accelerator, see `agree`


def is_distributed() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """The number of this process, from 0; before the processes have met, from the environment of the launcher."""
    if is_distributed():
        return dist.get_rank()
    # Set by torchrun, by Slurm, and by Lightning for the processes that it starts.
    names = ("RANK", *(["SLURM_PROCID"] if int(os.environ.get("SLURM_NTASKS", 1)) > 1 else []), "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def is_main_process() -> bool:
    """Whether this is the process that writes the run folder."""
    return rank() == 0


def common_id() -> str | None:
    """The id that the launcher gave all processes of a run; ``None`` for a process started on its own.

    Raises:
        InputError: torchrun was given no id.
    """
    if elastic := os.environ.get("TORCHELASTIC_RUN_ID"):
        if elastic == "none":
            raise InputError("run_id is not set: give all processes the same one, or torchrun a --rdzv-id")
        return elastic
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    return None


def started_by_others() -> bool:
    """Whether torchrun or srun has started this process among several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def restarted() -> bool:
    """Whether torchrun has started this process again after another one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def elastic_shape() -> tuple[int, int] | None:
    """Processes a host and hosts, as torchrun has found them; ``None`` without torchrun."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return None
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return local, int(os.environ["WORLD_SIZE"]) // local


def agree(number: int) -> int:
    """The largest number of all processes. Waits for all of them, but never for an accelerator."""
    global _control
    if not is_distributed():
        return number
    if dist.get_backend() != "gloo" and _control is None:
        _control = dist.new_group(backend="gloo")
    said = torch.tensor(number)
    dist.all_reduce(said, dist.ReduceOp.MAX, group=_control)
    return int(said)


def gather(value: Any) -> list[Any]:
    """The value of each process, in the order of the ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def mean(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The means over the processes, of scalars that all have."""
    if not is_distributed():
        return values
    stacked = torch.stack([v.detach().float() for v in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, (stacked / world_size()).unbind(), strict=True))


class SumOfAll(torch.autograd.Function):
    """The sum of all processes' tensors; each gets the sum of all gradients. (Plain ``all_reduce`` has no gradient.)"""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


# How torch reports a lost process: gloo, NCCL, and the store where they meet.
_LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "timed out",
    "pair closure",  # gloo's, without its name, if another transfer has timed out before the awaited one
    "nccl",
    "broken pipe",
    "gloo",
)


def is_loss_of_others(error: BaseException) -> bool:
    """Whether an error means that another process has ended or cannot be reached."""
    return isinstance(error, RuntimeError) and is_distributed() and any(said in str(error).lower() for said in _LOST)
