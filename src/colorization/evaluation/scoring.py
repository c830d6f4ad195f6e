"""Scores of all rows in one pass over the photographs, with a collector for each thing that is asked for."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from colorization.colorize import uncertainty
from colorization.core import atomic, color, runs
from colorization.evaluation import figures, hinting, metrics, sparsification
from colorization.evaluation.custom_metrics import CustomMetric
from colorization.evaluation.rows import GREY, MEAN, Row

log = logging.getLogger(__name__)

COMPARED = 6  # photos in comparison.png, spread over the split
CHROMA_FACTORS = tuple(i / 5 for i in range(9))  # of the curve: 0 to 1.6


class Progress:
    """``status.json`` of an evaluation, for those who watch it: state (as in a run), photos ``done`` of ``total``,
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
        atomic.write_json(self.file, {**self._content, "state": state, "error": error, "time": runs.utc_now()})

    def count(self, done: int, total: int) -> None:
        """So many photos are done."""
        self._content.update(done=done, total=total)
        if time.monotonic() - self._written >= 0.5 or done == total:
            self.write("running")


@dataclass
class Scored:
    """A batch, and the predictions of all rows.

    Attributes:
        indices: positions of the photos in the split.
        rgb: (B, 3, H, W) uint8.
        lab: (B, 3, H, W), the truths.
        predictions: of each row, (B, 3, H, W) Lab with the true L*.
        values: of each row, metric -> (B,) float32; a collector may add to it.
    """

    indices: list[int]
    rgb: torch.Tensor
    lab: torch.Tensor
    predictions: list[torch.Tensor]
    values: list[dict[str, torch.Tensor]]


class Collector:
    """Something that is measured or drawn during an evaluation."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def add(self, batch: Scored) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def finish(self) -> None:
        """All batches were there: fill the rows, write the files."""


@torch.inference_mode()
def score(
    rows: list[Row],
    loader: Any,
    device: str,
    progress: Progress,
    collectors: Sequence[Collector] = (),
    custom: Sequence[CustomMetric] = (),
) -> None:
    """Fill ``values`` of every row, and run the collectors.

    Args:
        rows: the first is grey.
        loader: batches of ``rgb`` and ``index``.
        device: where the photos go.
        progress: is told after each batch.
        collectors: in the order in which they see a batch.
        custom: metrics of other packages.
    """
    collectors = [*collectors, Values(rows), *([Custom(rows, custom)] if custom else [])]
    photos, done = len(loader.dataset), 0
    progress.count(done, photos)
    for batch in tqdm(loader, "evaluating", unit="batch", disable=None):
        rgb, indices = batch["rgb"].to(device, non_blocking=True), batch["index"].tolist()
        scored = Scored(
            indices, rgb, *metrics.score(rgb, [_predictor(row, indices, rgb) for row in rows], further=True)
        )
        for collector in collectors:
            collector.add(scored)
        done += len(indices)
        progress.count(done, photos)
    for collector in collectors:
        collector.finish()


def _predictor(row: Row, indices: list[int], rgb: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that answers for a row in this batch."""
    if row.hints is not None:
        return functools.partial(row.predict, hints=hinting.revealed(color.rgb_to_lab(rgb), indices, row.hints))
    if (pictures := row.pictures) is None:
        return row.predict
    return lambda L: pictures.ab(indices, color.rgb_to_lab(rgb))


class Values(Collector):
    """``row.values``: every metric of every photo."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self._values: list[dict[str, list[torch.Tensor]]] = [{} for _ in rows]

    def add(self, batch: Scored) -> None:
        for of_row, of_batch in zip(self._values, batch.values, strict=True):
            for metric, values in of_batch.items():  # kept on the device: nothing here waits for it
                of_row.setdefault(metric, []).append(values)

    def finish(self) -> None:
        for row, of_row in zip(self.rows, self._values, strict=True):
            row.values = {metric: torch.cat(values).tolist() for metric, values in of_row.items()}


class Custom(Collector):
    """Metrics of other packages: ``row.of_set``, and where that is the mean over the photos ``row.values``."""

    def __init__(self, rows: Sequence[Row], custom: Sequence[CustomMetric]) -> None:
        super().__init__(rows)
        self._metrics = [[metric.fresh() for metric in custom] for _ in rows]
        self._values: list[dict[str, list[torch.Tensor]]] = [{m.entry.name: [] for m in custom} for _ in rows]

    def add(self, batch: Scored) -> None:
        truth = color.lab_to_rgb(batch.lab)
        for of_row, values, prediction in zip(self._metrics, self._values, batch.predictions, strict=True):
            rgb = color.as_shown(prediction.float())[0]
            for metric in of_row:
                if metric.of_one:
                    values[metric.entry.name].append(metric.update_each(rgb, truth))
                else:
                    metric.update(rgb, truth)

    def finish(self) -> None:
        for row, of_row in zip(self.rows, self._metrics, strict=True):
            row.of_set = {metric.entry.name: float(metric.compute()) for metric in of_row}
        for name in self.rows[0].of_set:
            values = [torch.cat(v[name]).tolist() if v[name] else [] for v in self._values]
            pairs = zip(self.rows, values, strict=True)
            # Only then an interval over photos is one of the figure.
            if all(v and np.isclose(np.mean(v), row.of_set[name], rtol=1e-3, atol=1e-6) for row, v in pairs):
                for row, of_photos in zip(self.rows, values, strict=True):
                    row.values[name] = of_photos


class Stability(Collector):
    """The metric ``stability`` over working sizes, :func:`colorization.evaluation.metrics.size_stability`."""

    def __init__(self, rows: Sequence[Row], sizes: Sequence[int]) -> None:
        super().__init__(rows)
        self.sizes = sizes

    def add(self, batch: Scored) -> None:
        for row, of_batch in zip(self.rows, batch.values, strict=True):
            if row.pictures is None:
                of_batch["stability"] = metrics.size_stability(batch.rgb, row.predict, self.sizes)


class Curves(Collector):
    """``row.curve``: ΔE2000 and colorfulness with the chroma of each model times :data:`CHROMA_FACTORS`."""

    def add(self, batch: Scored) -> None:
        for row, prediction in zip(self.rows, batch.predictions, strict=True):
            if row.name not in (GREY, MEAN):
                add_to_curve(row, prediction, batch.lab)


def add_to_curve(row: Row, prediction: torch.Tensor, lab: torch.Tensor) -> None:
    """Fill ``row.curve`` from a batch: the prediction with its chroma times each factor; (B, 3, H, W) Lab both."""
    for factor in CHROMA_FACTORS:
        rgb, shown = color.as_shown(torch.cat((prediction[:, :1], prediction[:, 1:] * factor), 1))
        values = {"delta_e2000": color.delta_e2000(shown, lab).mean((-2, -1)), "colorfulness": color.colorfulness(rgb)}
        for metric, of_batch in values.items():
            row.curve.setdefault(factor, {}).setdefault(metric, []).extend(of_batch.tolist())


class FrechetDistances(Collector):
    """``row.fid``: torchmetrics' FID, or the reason why there is none: its package or its weights are missing."""

    def __init__(self, rows: Sequence[Row], device: str) -> None:
        super().__init__(rows)
        from torchmetrics.image.fid import FrechetInceptionDistance

        self._reason: str | None = None
        try:
            self._distances = [FrechetInceptionDistance(normalize=True).to(device) for _ in rows]
        except (ModuleNotFoundError, URLError, OSError) as error:
            log.warning("FID is not computed: %s", error)
            self._distances, self._reason = [], str(error)

    def add(self, batch: Scored) -> None:
        if not self._distances:
            return
        for distance, prediction in zip(self._distances, batch.predictions, strict=True):
            distance.update(color.lab_to_rgb(prediction), real=False)
            distance.update(color.lab_to_rgb(batch.lab), real=True)

    def finish(self) -> None:
        for row in self.rows:
            row.fid = {"mean": None, "reason": self._reason}
        if not self._distances:
            return
        for row, distance in zip(self.rows, self._distances, strict=True):
            row.fid = {"mean": float(distance.compute())}


class Strips(Collector):
    """``strips/``: each model's result for the first photos, beside input and truth."""

    def __init__(self, rows: Sequence[Row], names: Sequence[str], folder: Path, number: int) -> None:
        super().__init__(rows)
        self.names, self.folder, self.number = names, folder / "strips", number
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, batch: Scored) -> None:
        for row, prediction in zip(self.rows, batch.predictions, strict=True):
            for i, index in enumerate(batch.indices):
                if index < self.number and row.name not in (GREY, MEAN):
                    row.strips.append(f"{index:03d}-{_slug(Path(self.names[index]).stem)}-{_slug(row.name)}.png")
                    picture = figures.strip(prediction[i], batch.lab[i])
                    Image.fromarray(picture).save(self.folder / row.strips[-1])


def _slug(name: str) -> str:
    """A name that every file system takes."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:80]


class Comparison(Collector):
    """``comparison.png``: some photos, spread over the split, with input, all models and truth side by side."""

    def __init__(self, rows: Sequence[Row], photos: int, folder: Path) -> None:
        super().__init__(rows)
        chosen = np.linspace(0, photos - 1, min(COMPARED, photos)).round().astype(int)
        self.chosen, self.file = set(chosen.tolist()), folder / "comparison.png"
        self.titles = ["input", *(r.name for r in rows if r.name not in (GREY, MEAN)), "truth"]
        self.pictures: dict[int, list[torch.Tensor]] = {}  # photo -> a picture for each title, (3, H, W) in [0, 1]

    def add(self, batch: Scored) -> None:
        L, _ = color.split(batch.lab)
        shown = [p for r, p in zip(self.rows, batch.predictions, strict=True) if r.name not in (GREY, MEAN)]
        for i, index in enumerate(batch.indices):
            if index in self.chosen:
                grey = color.grey_of_lightness(L[i]).expand(3, -1, -1)
                self.pictures[index] = [grey, *(color.lab_to_rgb(p[i]) for p in (*shown, batch.lab))]

    def finish(self) -> None:
        figures.comparison(list(self.pictures.values()), self.titles, self.file)


class Uncertainties(Collector):
    """``row.uncertainties``, and ``uncertainty.png`` with the maps of the last model, the ensemble if there is one."""

    def __init__(self, rows: Sequence[Row], comparison: Comparison, folder: Path) -> None:
        super().__init__([row for row in rows if row.uncertainties])
        self._places = [i for i, row in enumerate(rows) if row.uncertainties]
        self.comparison, self.file = comparison, folder / "uncertainty.png"
        self._maps: dict[int, dict[str, np.ndarray]] = {}  # photo -> name of the map -> (H, W), of the last model

    def add(self, batch: Scored) -> None:
        L, _ = color.split(batch.lab)
        for place, row in zip(self._places, self.rows, strict=True):
            maps = score_uncertainty(row, L, batch.predictions[place], batch.lab)
            for i, index in enumerate(batch.indices):
                if row is self.rows[-1] and index in self.comparison.chosen:
                    self._maps[index] = {name: of_batch[i] for name, of_batch in maps.items()}

    def finish(self) -> None:
        if not self._maps:
            return
        name = self.rows[-1].name
        column = self.comparison.titles.index(name)
        lines = []
        for index, maps in self._maps.items():
            pictures = self.comparison.pictures[index]
            lines.append([pictures[0], pictures[column], *map(_as_heat, maps.values()), pictures[-1]])
        shown = [sparsification.MEASURES.get(k, k) for k in next(iter(self._maps.values()))]
        figures.comparison(lines, ["input", name, *shown, "truth"], self.file)


def score_uncertainty(row: Row, L: torch.Tensor, prediction: torch.Tensor, lab: torch.Tensor) -> dict[str, np.ndarray]:
    """Fill ``row.uncertainties`` from a batch.

    Args:
        L: (B, 1, H, W) in [0, 1]; prediction, lab: (B, 3, H, W) Lab, the latter true.

    Returns:
        The maps that have something to see, (B, H, W): ``ΔE2000`` and the model's own uncertainties.
    """

    def answer(L: np.ndarray) -> np.ndarray:
        return row.predict(torch.from_numpy(L).to(lab.device)).float().cpu().numpy()[None]

    error = color.delta_e2000(color.as_shown(prediction)[1], lab).cpu().numpy()
    maps = {"augmentation": color.disagreement(uncertainty.augmented(answer, L.cpu().numpy()))}
    if row.answers:
        maps["members"] = color.disagreement(row.answers(L)).cpu().numpy()
    if "distribution" in row.outputs:
        spread = color.spread(row.network.distribution(L), color.AB_SCALE * row.network.centres)
        enlarged = F.interpolate(spread[:, None], L.shape[-2:], mode="bilinear", align_corners=False)
        maps["distribution"] = enlarged[:, 0].cpu().numpy()
    trivial = {"chroma": prediction[:, 1:].norm(dim=1).cpu().numpy(), "random": np.zeros_like(error)}
    for measure in row.uncertainties:
        for e, u in zip(error, (maps | trivial)[measure.name], strict=True):
            measure.add(e.ravel(), u.ravel())
    return {"ΔE2000": error, **maps}


def _as_heat(values: np.ndarray) -> torch.Tensor:
    """A map (H, W) as a picture (3, H, W) in [0, 1]."""
    return torch.from_numpy(uncertainty.heat_map(values, *values.shape)).permute(2, 0, 1) / 255
