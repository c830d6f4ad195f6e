"""Several weights as one file: ``python -m colorization.ensemble weights=[a,b,c] datamodule.data_dir=photos``.

The file has a description, and is evaluated, exported and used like any other weights file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from colorization.core import atomic, color, devices, hydra_main
from colorization.core.errors import InputError
from colorization.data import datamodules
from colorization.data.loading import PhotoLoader
from colorization.evaluation.splits import take_split
from colorization.models import checkpoint, descriptions
from colorization.models.descriptions import working_size
from colorization.models.weights import resolve_weights
from colorization.networks.ensemble import Ensemble

MERGES = (*color.MERGES, "fit")
FITTED_PIXELS = 300_000  # on a grid over all photos: a handful of weights needs no more
LEAST = 0.01  # weight below which a member is not worth its time


def ensemble(cfg: DictConfig) -> dict[str, Any]:
    """Write the ensemble as configured; prints and returns the validation ΔE2000 of each member and of the whole.

    Raises:
        InputError: weights that cannot be merged, no validation photos, or something in the config cannot work.
    """
    if cfg.merge not in MERGES:
        raise InputError(f"merge={cfg.merge}: should be {', '.join(MERGES[:-1])} or {MERGES[-1]}")
    asked = list(cfg.weights) if isinstance(cfg.weights, ListConfig) else [cfg.weights]
    files = [resolve_weights(str(w), Path(cfg.paths.output_dir)) for w in asked]
    digests = [atomic.sha256(f) for f in files]
    if len(set(digests)) < max(2, len(files)):
        raise InputError(f"weights={list(map(str, asked))}: an ensemble needs two or more, each of them once")
    output = Path(cfg.output)
    if output.suffix != ".safetensors":
        raise InputError(f"output={output}: should end with .safetensors")
    networks, descriptions = zip(*map(checkpoint.load_weights, files), strict=True)
    device = devices.choose(cfg.trainer.accelerator, "trainer.accelerator")
    size = max(map(working_size, descriptions))
    if cfg.datamodule.image_size is None:
        cfg.datamodule.image_size = size
    datamodule = datamodules.configured(cfg.datamodule)
    take_split(files, datamodule)
    datamodule.setup()
    with closing(datamodule):
        loader = datamodule.loader("val", train=False)
        each = assemble(networks, [d["network"] for d in descriptions], "mean").to(device)
        distances = mean_distances(each.members, loader, device)
        chosen, merge = list(range(len(files))), cfg.merge
        if merge == "fit":
            weights = fit(*_on_a_grid(each, loader, device))
            chosen = [i for i, w in enumerate(weights) if w > 0]
            if len(chosen) == 1:
                raise InputError(f"merge=fit: the others add nothing to {asked[chosen[0]]}; use that alone")
            merge = [round(float(weights[i]), 4) for i in chosen]
        members = [{"weights": files[i].name, "sha256": digests[i], **descriptions[i]} for i in chosen]
        merged = assemble([networks[i] for i in chosen], [m["network"] for m in members], merge).to(device)
        distances += mean_distances([merged], loader, device)
    about = OmegaConf.to_container(cfg.about)
    checkpoint.save_weights(output, merged, describe(members, merge, size, distances[-1], about))

    shares = dict(zip(chosen, merge, strict=True)) if cfg.merge == "fit" else {}
    print(f"mean ΔE2000 of {len(loader.dataset)} validation photos:")  # type: ignore[arg-type]
    for i, (file, distance) in enumerate(zip(files, distances[:-1], strict=True)):
        print(f"{distance:8.3f}  {file}" + (f", weight {shares.get(i, 0):g}" if shares else ""))
    print(f"{distances[-1]:8.3f}  {output} ({cfg.merge})")
    return {"delta_e2000": distances, "merge": merge}


def assemble(
    networks: Sequence[nn.Module],
    specs: Sequence[Mapping[str, Any]],
    merge: str | list[float],
    takes: Sequence[Sequence[str]] | None = None,
) -> Ensemble:
    """An ensemble of networks that exist already; the rest as for :class:`Ensemble`. In eval mode."""
    whole = Ensemble(specs, merge, takes)
    for member, network in zip(whole.members, networks, strict=True):
        member.load_state_dict(network.state_dict())
    return whole.eval()


def describe(
    members: list[dict[str, Any]], merge: str | list[float], size: int, distance: float, about: Any = None
) -> dict[str, Any]:
    """The document of an ensemble; it holds the one of each member with the name and SHA-256 of its file.

    ``size`` is the working size, ``distance`` the mean ΔE2000 on the validation photos, ``about`` from the config.
    """
    inputs = _common_inputs(members)
    spec = {
        "_target_": f"{Ensemble.__module__}.Ensemble",
        "members": [m["network"] for m in members],
        "merge": merge,
        "takes": [[name for name in descriptions.inputs(m) if name in inputs] for m in members],
    }
    pretrained = {
        f"{part} of member {i}": source for i, m in enumerate(members, 1) for part, source in m["pretrained"].items()
    }
    data = {"name": " + ".join(sorted({str(m["training_data"].get("name")) for m in members})), "image_size": size}
    return descriptions.describe(
        "ensemble",
        spec,
        pretrained,
        data,
        {"val/delta_e2000": round(distance, 5)},
        {**(about or {}), "inputs": {"L": {}, **inputs}},
        members=members,
    )


def _common_inputs(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of each input that some members take, and those that do agree on; any other keeps its defaults."""
    each = [descriptions.inputs(m) for m in members]
    names = dict.fromkeys(name for inputs in each for name in inputs)
    found = {name: {i[name] for i in each if name in i} for name in names}
    return {
        name: {k: v for k, v in asdict(next(iter(same))).items() if v is not None}
        for name, same in found.items()
        if len(same) == 1
    }


@torch.inference_mode()
def mean_distances(networks: Iterable[nn.Module], loader: PhotoLoader, device: str) -> list[float]:
    """Mean ΔE2000 of each network over the photos of a loader, as the evaluation's table has it."""
    networks = list(networks)
    found: list[list[torch.Tensor]] = [[] for _ in networks]
    for batch in loader:
        lab = color.rgb_to_lab(batch["rgb"].to(device))
        L, _ = color.split(lab)
        for of_network, network in zip(found, networks, strict=True):
            _, shown = color.as_shown(color.join(L, network(L)))
            of_network.append(color.delta_e2000(shown, lab).mean((-2, -1)))
    return [float(torch.cat(values).mean()) for values in found]


@torch.inference_mode()
def _on_a_grid(whole: Ensemble, loader: PhotoLoader, device: str) -> tuple[np.ndarray, np.ndarray]:
    """The members' answers (K, 2, 1, N) and the truth (3, 1, N) Lab on a grid of pixels of all photos."""
    answers, truths = [], []
    for batch in loader:
        lab = color.rgb_to_lab(batch["rgb"].to(device))
        step = max(1, math.ceil(math.sqrt(lab[0, 0].numel() * len(loader.dataset) / FITTED_PIXELS)))  # type: ignore[arg-type]
        grid = whole.answers(color.split(lab)[0])[..., ::step, ::step]
        answers.append(grid.permute(0, 2, 1, 3, 4).flatten(2).cpu().numpy())
        truths.append(lab[..., ::step, ::step].transpose(0, 1).flatten(1).cpu().numpy())
    return np.concatenate(answers, -1)[:, :, None], np.concatenate(truths, -1)[:, None]


def fit(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights, not negative and of sum one, with which the merged colours have the smallest mean ΔE2000.

    It is what the tables judge by. Least squares in ab has a closed form, but its few saturated pixels, whose large
    differences the eye hardly sees, decide it. SLSQP from equal weights and from the best member
    alone; weights below :data:`LEAST` become 0.

    Args:
        answers: (K, 2, H, W) normalised ab.
        truth: (3, H, W) Lab.

    Returns:
        (K,) float64.
    """
    L, _ = color.split(truth)

    def distance(weights: np.ndarray) -> float:
        _, shown = color.as_shown(color.join(L, color.merge_ab(answers, weights.tolist())))
        return float(color.delta_e2000(shown, truth).mean(dtype=np.float64))

    k = len(answers)
    # The colours are float32: smaller steps would measure their rounding.
    options = {"eps": 1e-3, "ftol": 1e-7}
    one = {"type": "eq", "fun": lambda w: w.sum() - 1}
    starts = [np.full(k, 1 / k), min(np.eye(k), key=distance)]
    ends = [
        scipy.optimize.minimize(distance, s, method="SLSQP", bounds=[(0, 1)] * k, constraints=one, options=options).x
        for s in starts
    ]
    found = min([*starts, *ends], key=distance)
    found = np.where(found < LEAST, 0, found)
    return found / found.sum()


def main() -> None:
    """The command."""

    def task(cfg: DictConfig) -> None:
        ensemble(cfg)

    hydra_main.run(task, "ensemble")


if __name__ == "__main__":
    main()
