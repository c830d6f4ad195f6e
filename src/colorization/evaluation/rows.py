"""The rows of an evaluation: weights, ensembles, pictures of other systems, and the trivial answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig

from colorization.core import color, runs
from colorization.core.errors import InputError
from colorization.data.datamodules import PhotoDataModule
from colorization.data.plain import AnyDataModule
from colorization.evaluation import external_predictions
from colorization.evaluation.sparsification import Measure
from colorization.models import backends, checkpoint, descriptions
from colorization.models.weights import resolve_weights, shipped_weights

GREY, MEAN = "grey", "mean colour"


@dataclass
class Row:
    """One row of the table: a way to get ab from L, and its scores.

    Attributes:
        name: as shown.
        predict: ``L`` (B, 1, H, W) in [0, 1] to normalised ab (B, 2, H, W).
        network: the torch network behind ``predict``; ``None`` for all other rows.
        inputs, outputs: of that network, see :func:`.descriptions.about`.
        facts: about the weights (file, stage, pretrained parts, ...).
        values: metric -> one value a photo, in the order of the test split.
        of_set: custom metrics over all photos at once, by name; if means over photos, also in ``values``.
        fid: Fréchet distance to the truths as ``{"mean", "reason"}``; ``None`` if not asked for.
        kid: distance to the truths in the judge's features; ``None`` without a judge.
        answers: of an ensemble: ``L`` to the ab of each member, (K, B, 2, H, W).
        uncertainties: how well uncertainties tell the error; empty if not asked for.
        strips: names of the files with the strips of the first photos.
        pictures: the results of another system; ``predict`` is not used then.
        curve: chroma factor -> metric -> one value a photo; empty if not asked for.
        hints: points of the truth that the model is told in each photo, :func:`.hinting.revealed`; ``None``: none, and
            it is not asked to take any.
    """

    name: str
    predict: Callable[..., torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    network: Any = None
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    values: dict[str, list[float]] = field(default_factory=dict)
    of_set: dict[str, float] = field(default_factory=dict)
    fid: dict[str, Any] | None = None
    kid: dict[str, Any] | None = None
    answers: Callable[[torch.Tensor], torch.Tensor] | None = None
    uncertainties: list[Measure] = field(default_factory=list)
    strips: list[str] = field(default_factory=list)
    pictures: external_predictions.Pictures | None = None
    curve: dict[float, dict[str, list[float]]] = field(default_factory=dict)
    hints: int | None = None


def find_weights(cfg: DictConfig) -> list[Path]:
    """The files to evaluate: the given ones, or the newest finished run of each model and the weights that ship."""
    output_dir = Path(cfg.paths.output_dir)
    if cfg.weights is not None:
        several = list(cfg.weights.values()) if isinstance(cfg.weights, DictConfig) else cfg.weights
        asked = list(several) if isinstance(several, (list, ListConfig)) else [several]
        return [resolve_weights(str(w), output_dir) for w in asked]
    newest: dict[str, Path] = {}
    for run in runs.find_runs(output_dir):
        status = run.status()
        if status["state"] == "finished" and run.weights_file.is_file():
            newest[status["model"]] = run.weights_file
    files = [*newest.values(), *shipped_weights().values()]
    if not files:
        raise InputError(
            f"weights=null: no finished run in {output_dir / 'runs'} and no weights that ship; give weights=<file>"
        )
    return files


def trivial_rows(models: list[Row], datamodule: AnyDataModule) -> list[Row]:
    """Grey (a = b = 0) and the mean colour of the training split, else of the first weights that know theirs."""
    means = [(datamodule.describe(), datamodule.name)]
    means += [(m.facts["training_data"], m.facts.get("weights", m.name)) for m in models]
    known = [(d["mean_ab"], source) for d, source in means if "mean_ab" in d]
    rows = [Row(GREY, lambda L: L.new_zeros(len(L), 2, *L.shape[2:]))]
    if known:
        ab, source = known[0]
        mean = torch.tensor(ab).view(1, 2, 1, 1) / color.AB_SCALE
        constant = Row(MEAN, lambda L: mean.to(L.device).expand(len(L), 2, *L.shape[2:]))
        constant.facts = {"mean_ab": ab, "training_data": source}
        rows.append(constant)
    return rows


def model_row(file: Path, device: str) -> Row:
    """The row of a weights file or an ONNX model, which runs on the CPU."""
    if file.suffix == ".onnx":
        return onnx_row(file)
    network, description = checkpoint.load_weights(file)
    about, model = descriptions.about(description), network.to(device)
    row = Row(row_name(description), model, facts_of(file, description), model, about["inputs"], about["outputs"])
    row.answers = row.network.answers if "members" in row.outputs else None
    return row


def at_vividness(row: Row, values: Sequence[float]) -> list[Row]:
    """A row of the same weights for each vividness; the row itself if they have no such setting or none is given."""
    if not values or "vividness" not in row.inputs:
        return [row]
    return [
        Row(
            f"{row.name}, vividness {v:g}",
            functools.partial(row.network, vividness=v),
            {**row.facts, "vividness": v},
            *(row.network, row.inputs, row.outputs),
        )
        for v in values
    ]


def at_hints(row: Row, numbers: Sequence[int]) -> list[Row]:
    """A row of the same weights for each number of points; the row itself if they take no hints or none is given."""
    if not numbers or "hints" not in row.inputs:
        return [row]
    facts = [{**row.facts, "hints": n} for n in numbers]
    return [replace(row, name=f"{row.name}, {n} hints", facts=f, hints=n) for n, f in zip(numbers, facts, strict=True)]


def row_name(description: dict[str, Any]) -> str:
    """The stage, with the sources of its pretrained parts (``network`` is G itself)."""
    parts = {part: source for part, source in description["pretrained"].items() if part != "network"}
    return description["stage"] + "".join(f" ({source} {part})" for part, source in parts.items())


def facts_of(file: Path, description: dict[str, Any]) -> dict[str, Any]:
    """The facts of a row about its weights."""
    keys = ("stage", "network", "pretrained", "training_data", "loss", "version", "git")
    return {"weights": str(file), **{k: description.get(k) for k in keys}}


def onnx_row(file: Path) -> Row:
    """The row of an ONNX model: an exported one, or another system's (:class:`.backends.ForeignOnnx`)."""

    def on_tensors(model: Callable[[np.ndarray], np.ndarray]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda L: torch.from_numpy(model(np.ascontiguousarray(L.cpu().numpy()))).to(L.device)

    if backends.is_foreign(file):
        return Row(file.stem, on_tensors(backends.ForeignOnnx(file)), {"weights": str(file), "training_data": {}})
    model = backends.OnnxBackend(file)
    members = descriptions.kind(model.description) == descriptions.ENSEMBLE
    answers, merge = on_tensors(model), descriptions.merge(model.description)
    name, facts = row_name(model.description), facts_of(file, model.description)
    row = Row(name, lambda L: color.merge_ab(answers(L), merge), facts)
    row.answers = answers if members else None
    return row


def picture_rows(predictions: object, datamodule: AnyDataModule) -> list[Row]:
    """A row for each folder of pictures that other systems made, see :class:`.external_predictions.Pictures`."""
    if not predictions:
        return []
    if not isinstance(datamodule, PhotoDataModule):
        raise InputError(f"predictions={predictions}: the photos of {datamodule.name} have no names to find them by")
    names, sizes = datamodule.photos["test"].names, [f.size for f in datamodule.facts["test"]]
    rows = []
    for name, folder in external_predictions.named_folders(predictions).items():
        pictures = external_predictions.Pictures(folder, names, sizes, datamodule.image_size)  # type: ignore[arg-type]
        rows.append(Row(name, torch.zeros_like, {"predictions": str(folder)}, pictures=pictures))
    return rows


def ensemble_row(models: list[Row], how: str) -> Row:
    """The row of all models merged (:func:`colorization.core.color.merge_ab`) but those that are ensembles already.

    Raises:
        InputError: less than two, or no such merge.
    """
    models = [m for m in models if m.answers is None]
    if how not in color.MERGES or len(models) < 2:
        raise InputError(
            f"ensemble={how}: should be {' or '.join(color.MERGES)} and needs two weights or more, not {len(models)}"
        )

    def answers(L: torch.Tensor) -> torch.Tensor:
        return torch.stack([m.predict(L) for m in models])

    facts = {"stage": "ensemble", "merge": how, "members": [m.name for m in models], "training_data": {}}
    return Row(f"{how} of all", lambda L: color.merge_ab(answers(L), how), facts, answers=answers)


def disambiguate(rows: list[Row]) -> None:
    """Give rows of the same name their run's or file's name."""
    names = [r.name for r in rows]
    for row in rows:
        if names.count(row.name) > 1:
            file = Path(row.facts["weights"])
            row.name = f"{row.name} {file.parent.name}/{file.name if file.suffix == '.onnx' else file.stem}"
