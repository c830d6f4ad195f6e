"""Evaluate weights side by side: ``python -m colorization.eval weights=[a,b] datamodule.test_dir=photos``.

One protocol for all rows, the trivial answers (no colour, the mean colour) always among them, every figure with a
bootstrap interval over the photos, and every figure once more without the near-grey photos.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, ListConfig
from PIL import Image
from tqdm import tqdm

from colorization import (
    __version__,
    arena,
    backends,
    callbacks,
    checkpoint,
    color,
    descriptions,
    devices,
    figures,
    hydra_main,
    metrics,
    runs,
    sparsification,
    uncertainty,
)
from colorization.data.datamodules import PhotoDataModule
from colorization.data.splits import by_identity, data_hash, split_hash
from colorization.errors import InputError
from colorization.networks.ensemble import Ensemble
from colorization.sparsification import Measure
from colorization.statistics import FEWEST_PHOTOS, bootstrap

if TYPE_CHECKING:
    from colorization.judge import Judge

log = logging.getLogger(__name__)

GREY, MEAN = "grey", "mean colour"
COMPARED = 6  # photos in comparison.png, spread over the split
# What metrics.json has of each row, in this order.
FIGURES = (
    *("psnr", "ssim", "lpips", "delta_e2000", "colorfulness", "delta_colorfulness"),
    *("photo_delta_colorfulness", "mae", "accuracy_2", "accuracy_5", "bleeding", "stains", "stability", "top1"),
)
# Of these table.md shows, where there are any.
COLUMNS = (
    *("psnr", "ssim", "lpips", "delta_e2000", "colorfulness", "delta_colorfulness"),
    *("bleeding", "stains", "stability", "top1"),
)
LABELS = {
    "psnr": "PSNR ↑ (dB)",
    "ssim": "SSIM ↑",
    "lpips": "LPIPS ↓",
    "delta_e2000": "ΔE2000 ↓",
    "colorfulness": "CF",
    "delta_colorfulness": "ΔCF ↓",
    "mae": "MAE ↓ (Lab)",
    "accuracy_2": "ε2 % ↑",
    "accuracy_5": "ε5 % ↑",
    "photo_delta_colorfulness": "photo ΔCF ↓",
    "bleeding": "bleeding (%)",
    "stains": "stains (%) ↓",
    "stability": "size ΔE ↓",
    "top1": "top-1 % ↑",
}
DIGITS = (
    dict.fromkeys(FIGURES, 2)
    | {"ssim": 4, "lpips": 4}
    | dict.fromkeys(("colorfulness", "delta_colorfulness", "accuracy_2", "accuracy_5", "bleeding", "stains"), 1)
    | {"photo_delta_colorfulness": 1, "top1": 1}
)
COMPARISONS = (*metrics.HIGHER_IS_BETTER, *metrics.FURTHER, "stability", "top1")  # what is compared pair by pair
CHROMA_FACTORS = tuple(i / 5 for i in range(9))  # of the curve: 0 to 1.6


@dataclass
class Row:
    """One row of the table: a way to get ab from L, and what it scored.

    Attributes:
        name: as shown.
        predict: ``L`` (B, 1, H, W) in [0, 1] to normalised ab (B, 2, H, W).
        facts: what is known of the weights (file, stage, pretrained parts, ...).
        values: metric -> one value a photo, in the order of the test split.
        fid: Fréchet distance to the truths as ``{"mean", "reason"}``; ``None`` if not asked for.
        kid: distance of what the judge sees to what it sees in the truths; ``None`` without one.
        answers: of an ensemble: ``L`` to the ab of each member, (K, B, 2, H, W).
        doubts: how well uncertainties tell the error; empty if not asked for.
        strips: names of the files with the strips of the first photos.
        pictures: of another system's row what it made; ``predict`` is of no use then.
        curve: chroma factor -> metric -> one value a photo; empty if not asked for.
    """

    name: str
    predict: Callable[[torch.Tensor], torch.Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    fid: dict[str, Any] | None = None
    kid: dict[str, Any] | None = None
    answers: Callable[[torch.Tensor], torch.Tensor] | None = None
    doubts: list[Measure] = field(default_factory=list)
    strips: list[str] = field(default_factory=list)
    pictures: arena.Pictures | None = None
    curve: dict[float, dict[str, list[float]]] = field(default_factory=dict)


class Progress:
    """``status.json`` of an evaluation, for whoever watches it: state (as of a run), photos ``done`` of ``total``,
    ``pid`` and ``process_started`` (seconds since 1970), ``error``. Written at most twice a second while it runs."""

    def __init__(self, folder: Path) -> None:
        self.file, self._written = folder / "status.json", 0.0
        self._content: dict[str, Any] = {
            "schema": runs.SCHEMA,
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "done": 0,
            "total": 0,
        }
        self.write("running")

    def write(self, state: str, error: str | None = None) -> None:
        """Write it now."""
        self._written = time.monotonic()
        runs.write_json(self.file, {**self._content, "state": state, "error": error, "time": runs.utc_now()})

    def count(self, done: int, total: int) -> None:
        """So many photos are done."""
        self._content.update(done=done, total=total)
        if time.monotonic() - self._written >= 0.5 or done == total:
            self.write("running")


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate as configured; writes the folder ``cfg.eval_dir`` and returns the content of its ``metrics.json``.

    Raises:
        InputError: no weights, no photos, or something in the config cannot work.
        callbacks.StopRequested: SIGTERM or Ctrl-C.
    """
    progress = Progress(Path(cfg.eval_dir))
    with callbacks.StopSignals(), metrics.lpips_wanted(cfg.lpips):
        try:
            report = _evaluate(cfg, progress)
        except callbacks.StopRequested:
            progress.write("stopped")
            raise
        except BaseException as error:
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            progress.write("failed", reason)
            raise
    progress.write("finished")
    return report


def _evaluate(cfg: DictConfig, progress: Progress) -> dict[str, Any]:
    device = devices.choose(cfg.trainer.accelerator, "trainer.accelerator")
    check(cfg)
    files = find_weights(cfg)
    models = [model_row(f, device) for f in files]
    if isinstance(cfg.weights, DictConfig):
        for row, name in zip(models, cfg.weights, strict=True):
            row.name = str(name)
    else:
        disambiguate(models)
    models = [row for model in models for row in at_vividness(model, cfg.vividness or ())]
    if cfg.ensemble is not None:
        models = [*models, ensemble_row(models, cfg.ensemble)]
    datamodule = hydra_main.data(cfg.datamodule)
    trained_on = take_split(files, datamodule)
    datamodule.setup("test")
    train_photos = check_unseen(trained_on, datamodule, cfg.allow_train_photos)
    loader = datamodule.loader("test", train=False)
    rows = trivial_rows(models, datamodule) + models + picture_rows(cfg.predictions, datamodule)
    if len({row.name for row in rows}) < len(rows):
        raise InputError(
            f"weights={cfg.weights} predictions={cfg.predictions}: two rows would have one name; give {{name: file}} "
            "and {name: folder}"
        )
    if cfg.uncertainty:
        for row in models:
            absent = {"members": not row.answers, "distribution": not hasattr(row.predict, "distribution")}
            row.doubts = [Measure(row.name, m) for m in sparsification.MEASURES if not absent.get(m)]
    folder = Path(cfg.eval_dir)
    judge = None
    if cfg.judge is not None:
        from colorization.judge import Judge  # (with timm, which nothing else here needs)

        judge = Judge(cfg.judge, device)
    with closing(datamodule):
        score(rows, loader, folder, cfg.strips, device, cfg.fid, progress, cfg.stability or (), cfg.curve, judge)

    names = [datamodule.photos["test"].names[i] for i in range(len(loader.dataset))]  # type: ignore[arg-type]
    report = {
        "schema": 1,
        "protocol": protocol(datamodule, len(rows[0].values["psnr"]), cfg) | {"train_photos": train_photos},
        **summarize(rows, datamodule.intervals, cfg.bootstrap, cfg.seed),
        "true_bleeding": float(np.mean(rows[0].values["true_bleeding"])),
        **(judged(rows[0], judge) if judge else {}),
        "uncertainty": [m.summary(datamodule.intervals, cfg.bootstrap, cfg.seed) for row in models for m in row.doubts],
    }
    runs.write_json(folder / "metrics.json", report, indent=1)
    write_per_image(folder / "per_image.csv", rows, names)
    shown = {m: {r.name: r.values[m] for r in rows} for m in ("delta_e2000", "psnr")}
    figures.distributions(shown, LABELS, folder / "distributions.png")
    if cfg.curve:
        points = curve(rows, datamodule.intervals, cfg.bootstrap, cfg.seed)
        write_curve(folder / "curve.csv", points)
        grey, truth = report["rows"][0]["delta_e2000"]["mean"], float(np.mean(rows[0].values["true_colorfulness"]))
        figures.chroma_curve(points, grey, truth, folder / "curve.png")
    if cfg.uncertainty and models:
        figures.sparsification(
            {r.name: _curves(r) for r in models},
            sparsification.SHARES,
            ("error itself", "random order"),
            folder / "sparsification.png",
        )
    text = table(report, cfg.columns or COLUMNS)
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)
    log.info("table, strips, per-image figures: %s", folder)
    return report


def check(cfg: DictConfig) -> None:
    """Refuse what would only fail when all is measured. Raises ``InputError``."""
    if unknown := [c for c in cfg.columns or () if c not in FIGURES]:
        raise InputError(f"columns={list(cfg.columns)}: {unknown[0]} is none of {', '.join(FIGURES)}")
    if not all(isinstance(v, int | float) and 0 <= v <= 1 for v in cfg.vividness or ()):
        raise InputError(f"vividness={cfg.vividness}: should be null or a list of numbers from 0 to 1")
    sizes = cfg.stability
    if sizes is not None and not (
        isinstance(sizes, ListConfig) and len(set(sizes)) > 1 and all(isinstance(s, int) and s >= 32 for s in sizes)
    ):
        raise InputError(f"stability={sizes}: should be null or two sizes or more, 32 pixels or more each")


def find_weights(cfg: DictConfig) -> list[Path]:
    """The files to evaluate: those asked for, else the newest finished run of each model and what ships."""
    output_dir = Path(cfg.paths.output_dir)
    if cfg.weights is not None:
        several = list(cfg.weights.values()) if isinstance(cfg.weights, DictConfig) else cfg.weights
        asked = list(several) if isinstance(several, (list, ListConfig)) else [several]
        return [runs.resolve_weights(str(w), output_dir) for w in asked]
    newest: dict[str, Path] = {}
    for run in runs.find_runs(output_dir):
        status = run.status()
        if status["state"] == "finished" and run.weights_file.is_file():
            newest[status["model"]] = run.weights_file
    files = [*newest.values(), *runs.shipped_weights().values()]
    if not files:
        raise InputError(
            f"weights=null: no finished run in {output_dir / 'runs'} and no weights that ship; give weights=<file>"
        )
    return files


def take_split(files: list[Path], datamodule: PhotoDataModule) -> dict[Path, dict[str, Any]]:
    """The ``split.json`` of each weights file that lies in its run; photos of one folder are split as the first of
    these runs has, if they are its own."""
    splits = {file: found for file in files if (found := split_of(file)) is not None}
    for file, split in splits.items():
        if datamodule.owns(split):
            datamodule.take_split(split)
            log.info("the photos are split as in %s", _run_of(file) / "split.json")
            break
    return splits


def split_of(file: Path) -> dict[str, Any] | None:
    """The ``split.json`` beside weights in a run's folder, if it is the one that they were trained with."""
    split = runs.Run(_run_of(file)).split() if file.suffix in (".safetensors", ".ckpt") else None
    if split is None:
        return None
    known = checkpoint.read_description(file)["training_data"].get("split")
    return split if known in (None, split_hash(split)) else None  # earlier versions did not say which


def _run_of(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def check_unseen(splits: dict[Path, dict[str, Any]], datamodule: PhotoDataModule, allowed: bool) -> dict[str, int]:
    """How many of the test photos each of the weights was trained on, for those of which it is known.

    Raises:
        InputError: any, unless ``allowed``.
    """
    photos = [{"path": f.name, "bytes": f.bytes, "digest": f.digest} for f in datamodule.facts["test"]]
    counts = {str(file): by_identity(split, photos).count("train") for file, split in splits.items()}
    seen = {file: n for file, n in counts.items() if n}
    if seen and not allowed:
        file, n = next(iter(seen.items()))
        raise InputError(
            f"{n} of the {len(photos)} test photos were trained on by {file}; give photos that it has not seen, or "
            "allow_train_photos=true, which the table then states"
        )
    return seen


def trivial_rows(models: list[Row], datamodule: PhotoDataModule) -> list[Row]:
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
    row = Row(row_name(description), network.to(device), facts_of(file, description))
    row.answers = network.answers if isinstance(network, Ensemble) else None
    return row


def at_vividness(row: Row, values: Sequence[float]) -> list[Row]:
    """A row of the same weights for each vividness; the row itself if they have no such setting or none is given."""
    network: Any = row.predict
    if not values or not hasattr(network, "distribution"):
        return [row]
    return [
        Row(f"{row.name}, vividness {v:g}", lambda L, v=v: network(L, v), {**row.facts, "vividness": v})  # type: ignore[misc]
        for v in values
    ]


def row_name(description: dict[str, Any]) -> str:
    """The stage, and of its pretrained parts what they are (``network`` is G itself)."""
    parts = {part: source for part, source in description["pretrained"].items() if part != "network"}
    return description["stage"] + "".join(f" ({source} {part})" for part, source in parts.items())


def facts_of(file: Path, description: dict[str, Any]) -> dict[str, Any]:
    """What a row tells of its weights."""
    keys = ("stage", "network", "pretrained", "training_data", "loss", "version", "git")
    return {"weights": str(file), **{k: description.get(k) for k in keys}}


def onnx_row(file: Path) -> Row:
    """The row of an ONNX model: an exported one, or another system's (:class:`colorization.backends.ForeignOnnx`)."""

    def on_tensors(model: Callable[[np.ndarray], np.ndarray]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda L: torch.from_numpy(model(np.ascontiguousarray(L.cpu().numpy()))).to(L.device)

    if backends.is_foreign(file):
        return Row(file.stem, on_tensors(backends.ForeignOnnx(file)), {"weights": str(file), "training_data": {}})
    model = backends.OnnxBackend(file)
    members = descriptions.answers(model.description) == descriptions.MEMBERS
    answers, merge = on_tensors(model), descriptions.merge(model.description)
    name, facts = row_name(model.description), facts_of(file, model.description)
    row = Row(name, lambda L: color.merge_ab(answers(L), merge), facts)
    row.answers = answers if members else None
    return row


def picture_rows(predictions: object, datamodule: PhotoDataModule) -> list[Row]:
    """A row for each folder of pictures that other systems made, see :class:`colorization.arena.Pictures`."""
    names, sizes = datamodule.photos["test"].names, [f.size for f in datamodule.facts["test"]]
    rows = []
    for name, folder in arena.named_folders(predictions).items():
        pictures = arena.Pictures(folder, names, sizes, datamodule.image_size)  # type: ignore[arg-type]
        rows.append(Row(name, torch.zeros_like, {"predictions": str(folder)}, pictures=pictures))
    return rows


def ensemble_row(models: list[Row], how: str) -> Row:
    """The row of all models merged (:func:`colorization.color.merge_ab`) but those that are ensembles already.

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


@torch.inference_mode()
def score(
    rows: list[Row],
    loader: Any,
    folder: Path,
    strips: int,
    device: str,
    fid: bool,
    progress: Progress,
    stability: Sequence[int] = (),
    with_curve: bool = False,
    judge: Judge | None = None,
) -> None:
    """Fill ``values`` of every row, and ``curve``; write the strips of the first photos and ``comparison.png``.

    ``stability``: working sizes for :func:`colorization.metrics.size_stability`; none: it is not measured.
    ``judge``: gives ``top1``, and ``true_top1`` of the truths.
    """
    (folder / "strips").mkdir(parents=True, exist_ok=True)
    photos, names = len(loader.dataset), loader.dataset.photos.names
    compared = set(np.linspace(0, photos - 1, min(COMPARED, photos)).round().astype(int).tolist())
    side_by_side: dict[int, list[torch.Tensor]] = {}
    doubted: dict[int, dict[str, dict[str, np.ndarray]]] = {}  # photo -> row -> maps
    distances, reason = _frechet(rows, device) if fid else ({}, None)
    scores: list[dict[str, list[torch.Tensor]]] = [{} for _ in rows]
    seen: list[list[torch.Tensor]] = [[] for _ in range(len(rows) + 1)]  # by the judge, in the truths and each row
    done = 0
    progress.count(done, photos)
    for batch in tqdm(loader, "evaluating", unit="batch", disable=None):
        rgb = batch["rgb"].to(device, non_blocking=True)
        predictors = [_predictor(row, batch["index"].tolist(), rgb) for row in rows]
        lab, predictions, values_of_rows = metrics.score(rgb, predictors, further=True)
        L, _ = color.split(lab)
        chosen = [i for i, index in enumerate(batch["index"].tolist()) if index in compared]
        if judge:
            from colorization.judge import top1

            labels = [judge.label(names[index]) for index in batch["index"].tolist()]
            of_all = [(values_of_rows[0], "true_top1", lab)]
            of_all += [(v, "top1", p) for v, p in zip(values_of_rows, predictions, strict=True)]
            for seen_of_row, (of_batch, name, seen_lab) in zip(seen, of_all, strict=True):
                features, logits = judge.see(color.lab_to_rgb(seen_lab))
                of_batch[name] = top1(logits, labels)
                seen_of_row.append(features)
        for row, prediction, of_batch in zip(rows, predictions, values_of_rows, strict=True):
            if stability and row.pictures is None:
                of_batch["stability"] = metrics.size_stability(rgb, row.predict, stability)
            if with_curve and row.name not in (GREY, MEAN):
                add_to_curve(row, prediction, lab)
            if (distance := distances.get(row.name)) is not None:
                distance.update(color.lab_to_rgb(prediction), real=False)
                distance.update(color.lab_to_rgb(lab), real=True)
            if row.doubts:
                maps = doubt(row, L, prediction, lab)
                for i in chosen:
                    doubted.setdefault(int(batch["index"][i]), {})[row.name] = {k: v[i] for k, v in maps.items()}
            if row.name not in (GREY, MEAN):
                for i in chosen:
                    side_by_side.setdefault(int(batch["index"][i]), []).append(color.lab_to_rgb(prediction[i]))
                for i, index in enumerate(batch["index"].tolist()):
                    if index < strips:
                        picture = Image.fromarray(figures.strip(prediction[i], lab[i]))
                        row.strips.append(f"{index:03d}-{_slug(Path(names[index]).stem)}-{_slug(row.name)}.png")
                        picture.save(folder / "strips" / row.strips[-1])
        for of_row, of_batch in zip(scores, values_of_rows, strict=True):
            for metric, values in of_batch.items():  # kept on the device: nothing here waits for it
                of_row.setdefault(metric, []).append(values)
        for i in chosen:
            grey = color.grey_of_lightness(L[i]).expand(3, -1, -1)
            pictures = side_by_side.get(int(batch["index"][i]), ())  # none where grey and the mean colour are all
            side_by_side[int(batch["index"][i])] = [grey, *pictures, color.lab_to_rgb(lab[i])]
        done += len(batch["index"])
        progress.count(done, photos)
    for row, of_row in zip(rows, scores, strict=True):
        row.values = {metric: torch.cat(values).tolist() for metric, values in of_row.items()}
    titles = ["input", *(r.name for r in rows if r.name not in (GREY, MEAN)), "truth"]
    figures.comparison(list(side_by_side.values()), titles, folder / "comparison.png")
    if doubted:
        # Of the last model, which is the ensemble where there is one: what it made of the photos, and its maps.
        name = next(r.name for r in reversed(rows) if r.doubts)
        column = titles.index(name)
        lines = [
            [
                *(side_by_side[index][c] for c in (0, column)),
                *map(_as_heat, doubted[index][name].values()),
                side_by_side[index][-1],
            ]
            for index in doubted
        ]
        shown = [sparsification.MEASURES.get(k, k) for k in doubted[next(iter(doubted))][name]]
        figures.comparison(lines, ["input", name, *shown, "truth"], folder / "uncertainty.png")
    if judge and photos > 1:
        from colorization.judge import kernel_distance

        truths, *others = (torch.cat(features) for features in seen)
        for row, features in zip(rows, others, strict=True):
            row.kid = {"mean": kernel_distance(truths, features), "judge": judge.name}
    if fid:
        for row in rows:
            distance = distances.get(row.name)
            row.fid = {"mean": None, "reason": reason} if distance is None else {"mean": float(distance.compute())}


def _predictor(row: Row, indices: list[int], rgb: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What answers for a row in this batch."""
    if (pictures := row.pictures) is None:
        return row.predict
    return lambda L: pictures.ab(indices, color.rgb_to_lab(rgb))


def add_to_curve(row: Row, prediction: torch.Tensor, lab: torch.Tensor) -> None:
    """Fill ``row.curve`` from a batch: the prediction with its chroma times each factor; (B, 3, H, W) Lab both."""
    for factor in CHROMA_FACTORS:
        rgb, shown = color.as_shown(torch.cat((prediction[:, :1], prediction[:, 1:] * factor), 1))
        values = {"delta_e2000": color.delta_e2000(shown, lab).mean((-2, -1)), "colorfulness": color.colorfulness(rgb)}
        for metric, of_batch in values.items():
            row.curve.setdefault(factor, {}).setdefault(metric, []).extend(of_batch.tolist())


def curve(rows: list[Row], intervals: bool, resamples: int, seed: int) -> list[dict[str, Any]]:
    """ΔE2000 against colorfulness, as the chroma of each row is scaled.

    Returns:
        For each row and factor ``model``, ``factor``, the mean ``colorfulness`` and ``delta_e2000``, and ``gain``, how
        much smaller the latter is than grey's, with its paired interval ``gain_low`` and ``gain_high`` (``None`` if
        there is none to claim).
    """
    grey = np.array(rows[0].values["delta_e2000"])
    points = []
    for row in rows:
        for factor, values in row.curve.items():
            gains = grey - np.array(values["delta_e2000"])
            ci = bootstrap(lambda i, g=gains: g[i].mean(1), len(gains), resamples, seed) if intervals else None  # type: ignore[misc]
            means = {m: float(np.mean(values[m])) for m in ("colorfulness", "delta_e2000")}
            low, high = ci or (None, None)
            gain = {"gain": float(gains.mean()), "gain_low": low, "gain_high": high}
            points.append({"model": row.name, "factor": factor, **means, **gain})
    return points


def write_curve(path: Path, points: list[dict[str, Any]]) -> None:
    """One line for each point of :func:`curve`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(points[0] if points else ["model"])
        for point in points:
            writer.writerow(f"{v:.5f}" if isinstance(v, float) else v for v in point.values())


def doubt(row: Row, L: torch.Tensor, prediction: torch.Tensor, lab: torch.Tensor) -> dict[str, np.ndarray]:
    """Fill ``row.doubts`` from a batch.

    Args:
        L: (B, 1, H, W) in [0, 1]; prediction, lab: (B, 3, H, W) Lab, the latter true.

    Returns:
        The maps that have something to see, (B, H, W): ``ΔE2000`` and the model's own doubts.
    """

    def answer(L: np.ndarray) -> np.ndarray:
        return row.predict(torch.from_numpy(L).to(lab.device)).float().cpu().numpy()[None]

    error = color.delta_e2000(color.as_shown(prediction)[1], lab).cpu().numpy()
    maps = {"augmentation": color.disagreement(uncertainty.augmented(answer, L.cpu().numpy()))}
    if row.answers:
        maps["members"] = color.disagreement(row.answers(L)).cpu().numpy()
    if hasattr(row.predict, "distribution"):
        network: Any = row.predict
        spread = color.spread(network.distribution(L), color.AB_SCALE * network.centres)
        enlarged = F.interpolate(spread[:, None], L.shape[-2:], mode="bilinear", align_corners=False)
        maps["distribution"] = enlarged[:, 0].cpu().numpy()
    trivial = {"chroma": prediction[:, 1:].norm(dim=1).cpu().numpy(), "random": np.zeros_like(error)}
    for measure in row.doubts:
        for e, u in zip(error, (maps | trivial)[measure.name], strict=True):
            measure.add(e.ravel(), u.ravel())
    return {"ΔE2000": error, **maps}


def _as_heat(values: np.ndarray) -> torch.Tensor:
    """A map (H, W) as a picture (3, H, W) in [0, 1]."""
    return torch.from_numpy(uncertainty.heat_map(values, *values.shape)).permute(2, 0, 1) / 255


def _curves(row: Row) -> dict[str, np.ndarray]:
    """The mean sparsification curves of a row, and the oracle's, by the names of the figure."""
    curves = {sparsification.MEASURES[m.name]: np.mean(m.curves, 0) for m in row.doubts}
    return {**curves, "error itself": np.mean(row.doubts[0].oracles, 0)}


def _slug(name: str) -> str:
    """A name that every file system takes."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:80]


def _frechet(rows: list[Row], device: str) -> tuple[dict[str, Any], str | None]:
    """torchmetrics' FID for each row, or none and the reason, where its package or weights are missing."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        return {r.name: FrechetInceptionDistance(normalize=True).to(device) for r in rows}, None
    except (ModuleNotFoundError, URLError, OSError) as error:
        log.warning("FID is not computed: %s", error)
        return {}, str(error)


def protocol(datamodule: PhotoDataModule, photos: int, cfg: DictConfig) -> dict[str, Any]:
    """What a reader has to know to compare these figures with others."""
    return {
        "data": datamodule.name,
        "data_hash": data_hash(datamodule.facts["test"]),
        "n": photos,
        "unreadable": len(datamodule.unreadable),
        "crop": "short side resized to the size, then centre crop; aspect ratio kept",
        "size": datamodule.image_size,
        "space": "RGB in [0, 1], rebuilt from the true L* and the predicted a*b*, channels clipped",
        "psnr": f"mean of images, at most {metrics.PSNR_LIMIT} dB (8-bit rounding)",
        "ssim": metrics.SSIM_WINDOW,
        "lpips": "AlexNet, v0.1",
        "colorfulness": metrics.COLORFULNESS_FORM,
        "delta_colorfulness": metrics.DELTA_COLORFULNESS_FORM,
        "mae": metrics.MAE_FORM,
        "accuracy": metrics.ACCURACY_FORM,
        "photo_delta_colorfulness": metrics.PHOTO_DELTA_COLORFULNESS_FORM,
        "bleeding": metrics.BLEEDING_FORM,
        "stains": metrics.STAINS_FORM,
        "stability": f"{metrics.STABILITY_FORM}; {list(cfg.stability)}" if cfg.stability else None,
        "top1": f"{metrics.TOP1_FORM}; {cfg.judge}" if cfg.judge else None,
        "kid": f"{metrics.KID_FORM}; {cfg.judge}" if cfg.judge else None,
        "predictions": "pictures go the photos' way to the crop; a*b* of 8-bit RGB, with the true L*",
        "near_grey": f"true colorfulness below {color.NEAR_GREY:g}",
        "intervals": f"95 %, percentile bootstrap over photos, {cfg.bootstrap} resamples, seed {cfg.seed}",
        "uncertainty": "standard deviation in ab of answers, Lab units, against ΔE2000 of pixels; means over photos",
        "version": __version__,
        "git": runs.git_state(Path(__file__).parent),
        "time": runs.utc_now(),
    }


def summarize(rows: list[Row], intervals: bool, resamples: int, seed: int) -> dict[str, Any]:
    """Means, intervals and paired comparisons, on all photos and without the near-grey ones.

    Returns:
        ``rows``: per row ``name`` and for each metric ``{"mean", "ci95"}``, the same again under
        ``without_near_grey``, and ``beats_grey`` (yes, no or undecided, by the paired ΔE2000); ``comparisons``: per
        pair and metric the mean difference a - b with its interval.
    """
    truth = np.array(rows[0].values["true_colorfulness"])
    coloured = np.flatnonzero(truth >= color.NEAR_GREY)
    subsets = {"all": np.arange(len(truth)), "without_near_grey": coloured}

    def interval(statistic: Callable[[np.ndarray], np.ndarray], photos: int) -> list[float] | None:
        found = bootstrap(statistic, photos, resamples, seed) if intervals else None
        return None if found is None else list(found)

    def figures_of(row: Row, chosen: np.ndarray) -> dict[str, Any]:
        result: dict[str, Any] = {"n": len(chosen)}
        for metric in FIGURES:
            if metric == "delta_colorfulness":
                predicted, true = np.array(row.values["colorfulness"])[chosen], truth[chosen]
                mean = abs(predicted.mean() - true.mean()) if len(chosen) else None
                ci = interval(lambda i, p=predicted, t=true: np.abs(p[i].mean(1) - t[i].mean(1)), len(chosen))  # type: ignore[misc]
            elif metric in row.values:
                values = _measured(np.array(row.values[metric])[chosen])
                mean = values.mean() if len(values) else None
                ci = interval(lambda i, v=values: v[i].mean(1), len(values))  # type: ignore[misc]
            elif metric == "lpips":
                result[metric] = {"mean": None, "ci95": None, "reason": metrics.lpips_network()[1]}
                continue
            elif metric == "stability" and metric in rows[0].values:
                result[metric] = {"mean": None, "ci95": None, "reason": "pictures, not a model"}
                continue
            else:
                continue
            result[metric] = {"mean": None if mean is None else float(mean), "ci95": ci}
        if len(chosen):
            result["psnr"]["median"] = float(np.median(np.array(row.values["psnr"])[chosen]))
        return result

    def difference(a: Row, b: Row, metric: str, chosen: np.ndarray) -> dict[str, Any]:
        d = _measured((np.array(a.values[metric]) - np.array(b.values[metric]))[chosen])
        return {"mean": float(d.mean()) if len(d) else None, "ci95": interval(lambda i: d[i].mean(1), len(d))}

    comparisons = [
        {"a": a.name, "b": b.name, "metric": m, "subset": s, **difference(a, b, m, chosen)}
        for k, a in enumerate(rows)
        for b in rows[:k]
        for m in COMPARISONS
        if m in a.values and m in b.values
        for s, chosen in subsets.items()
    ]
    result = []
    for row in rows:
        entry = {"name": row.name, **figures_of(row, subsets["all"]), "fid": row.fid, "kid": row.kid, **row.facts}
        entry["without_near_grey"] = figures_of(row, coloured)
        if row.pictures is not None:
            entry["remarks"] = row.pictures.remarks()
        if row.name != GREY:
            entry["beats_grey"] = _verdict(difference(row, rows[0], "delta_e2000", subsets["all"])["ci95"])
        result.append(entry)
    return {"rows": result, "comparisons": comparisons}


def _measured(values: np.ndarray) -> np.ndarray:
    """Without those of photos that a metric says nothing of."""
    return values[~np.isnan(values)]


def judged(row: Row, judge: Judge) -> dict[str, Any]:
    """Who judged, how many photos, and how many of the truths were seen rightly, %."""
    truths = _measured(np.array(row.values["true_top1"]))
    return {
        "judge": judge.name,
        "judged": len(truths),
        "true_top1": float(truths.mean()) if len(truths) else None,
    }


def _verdict(ci95: list[float] | None) -> str:
    if ci95 is None or ci95[0] <= 0 <= ci95[1]:
        return "undecided"
    return "yes" if ci95[1] < 0 else "no"


def write_per_image(path: Path, rows: list[Row], names: list[str]) -> None:
    """One line for each photo and row; ``strip`` names the file of its strip, where there is one."""
    columns = list(rows[0].values)
    # Not every file's name is UTF-8, but this file is.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "model", *columns, "strip"])
        for row in rows:
            for i, name in enumerate(names):
                strip = row.strips[i] if i < len(row.strips) else ""
                of_photo = [row.values[m][i] if m in row.values else math.nan for m in columns]
                values = ("" if math.isnan(v) else f"{v:.5f}" for v in of_photo)
                writer.writerow([name, row.name, *values, strip])


def table(report: dict[str, Any], columns: Sequence[str] = COLUMNS) -> str:
    """The report as Markdown: all photos, then without the near-grey ones if there are any, then what does not beat
    grey."""
    columns = [c for c in columns if any(row.get(c, {}).get("mean") is not None for row in report["rows"])]
    p = report["protocol"]
    lines = [f"{p['data']}, {p['n']} photos at {p['size']}x{p['size']}, {p['crop']}.", ""]
    for file, n in p["train_photos"].items():
        lines += [f"**Not a fair test: {n} of these photos were trained on by {file}.**", ""]
    lines += _one_table(report["rows"], columns)
    coloured = [{"name": r["name"], **r["without_near_grey"]} for r in report["rows"]]
    if coloured[0]["n"] < p["n"]:
        lines += ["", f"Without the near-grey photos (colorfulness < {color.NEAR_GREY:g}), n = {coloured[0]['n']}:", ""]
        lines += _one_table(coloured, columns)
    lines += ["", "CF: colorfulness; ΔCF: distance of the mean CF to the truths'."]
    if "bleeding" in columns:
        lines.append(
            "bleeding: share of the change in colour that is beside no edge in lightness; of the truths "
            f"{report['true_bleeding']:.1f} %."
        )
    if "stains" in columns:
        lines.append("stains: share of photos with a patch of strong colour where the truth is as good as grey.")
    if "top1" in columns:
        lines.append(
            f"top-1: photos in which {report['judge']} sees first what they show; of the truths "
            f"{report['true_top1']:.1f} %, of {report['judged']} photos."
        )
    if any(row.get("kid") for row in report["rows"]):
        lines.append("KID: distance to the truths in the features of that classifier, not of Inception.")
    if "stability" in columns:
        lines.append("size ΔE: ΔE2000 between the colours at different working sizes.")
    if all(r["delta_e2000"]["ci95"] is None for r in report["rows"]):
        lines.append(f"No intervals: fewer than {FEWEST_PHOTOS} photos, or crops of so few.")
    else:
        lines.append("In brackets: 95 % bootstrap intervals.")
        if losers := [r["name"] for r in report["rows"] if r.get("beats_grey") in ("no", "undecided")]:
            lines.append(f"Not better than grey in paired ΔE2000 (interval not below zero): {', '.join(losers)}.")
    if report["rows"][0]["lpips"]["mean"] is None:
        lines.append(f"No LPIPS: {report['rows'][0]['lpips']['reason']}.")
    lines += [f"{r['name']}: {remark}." for r in report["rows"] for remark in r.get("remarks", ())]
    if report["uncertainty"]:
        lines += [
            "",
            "How well an uncertainty tells the ΔE2000 of each pixel (means over photos), and of each photo:",
            "",
        ]
        lines += sparsification.table(report["uncertainty"])
    return "\n".join(lines) + "\n"


def _one_table(rows: list[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    def cell(row: dict[str, Any], metric: str) -> str:
        value, digits = row[metric], DIGITS[metric]
        if value["mean"] is None:
            return "–"
        text = f"{value['mean']:.{digits}f}"
        return text if value["ci95"] is None else text + " [{:.{d}f}, {:.{d}f}]".format(*value["ci95"], d=digits)

    of_sets = {"fid": "FID ↓", "kid": "KID x 1000 ↓"}  # of all photos together
    of_sets = {k: v for k, v in of_sets.items() if any(row.get(k) and row[k]["mean"] is not None for row in rows)}
    head = ["model", *(LABELS[m] for m in columns), "PSNR median", *of_sets.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        median = row["psnr"].get("median")
        cells = [row["name"], *(cell(row, m) for m in columns), "–" if median is None else f"{median:.2f}"]
        lines.append("| " + " | ".join(cells + [f"{row[k]['mean']:.2f}" for k in of_sets]) + " |")
    return lines


def main() -> None:
    """The command."""

    def task(cfg: DictConfig) -> None:
        try:
            evaluate(cfg)
        except callbacks.StopRequested as request:
            log.info("%s", request)
            sys.exit(143 if request.signum == signal.SIGTERM else 130)

    hydra_main.run(task, "eval")


if __name__ == "__main__":
    main()
