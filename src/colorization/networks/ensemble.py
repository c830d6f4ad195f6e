"""Several networks as one: their answers merged in ab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colorization.core import color
from colorization.core.errors import InputError
from colorization.networks.building import build_network


class Ensemble(nn.Module):
    """Networks side by side (deep ensembles, Lakshminarayanan et al. 2017).

    Args:
        members: each as for :func:`colorization.networks.building.build_network`.
        merge: ``mean``, ``median`` or one weight a member, see :func:`colorization.core.color.merge_ab`.
        takes: of each member the names of what it takes besides L; ``None``: none takes anything.

    Raises:
        InputError: no members, or they cannot be merged like that.
    """

    def __init__(
        self,
        members: Sequence[Mapping[str, Any]],
        merge: str | Sequence[float] = "mean",
        takes: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(merge, str) and merge not in color.MERGES:
            raise InputError(f"merge={merge}: should be {' or '.join(color.MERGES)}, or one weight a member")
        if not members or (not isinstance(merge, str) and len(merge) != len(members)):
            raise InputError(f"an ensemble of {len(members)} members cannot be merged with merge={merge}")
        self.merge, self.takes = merge, takes or [()] * len(members)
        self.members = nn.ModuleList(build_network(spec) for spec in members)

    def answers(self, L: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (K, B, 2, H, W) normalised ab, one from each member, given what it takes."""
        answers = [
            member(L, **{name: given[name] for name in names if name in given})
            for member, names in zip(self.members, self.takes, strict=True)
        ]
        return torch.stack(answers)

    def forward(self, L: torch.Tensor, **given: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1] to (B, 2, H, W) normalised ab."""
        return color.merge_ab(self.answers(L, **given), self.merge)
