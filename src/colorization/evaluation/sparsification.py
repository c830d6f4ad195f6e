"""How well an uncertainty predicts the error, pixel by pixel within each photo and photo by photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats

from colorization.evaluation.statistics import bootstrap

# The uncertainties that are compared for each model, with their names in tables. The last two cost nothing and know
# nothing of the model's doubts: an uncertainty that does not beat them is useless.
MEASURES = {
    "members": "members' disagreement",
    "distribution": "spread of the distribution",
    "augmentation": "test-time augmentation",
    "chroma": "predicted chroma",
    "random": "random order",
}
LABELS = {"ause": "AUSE ↓", "spearman": "Spearman ↑", "pearson": "Pearson ↑", "photos": "Spearman of photos ↑"}
SHARES = np.linspace(0, 0.99, 100)  # of pixels left out, of the curves in the figure


def correlations(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Pearson's and Spearman's correlation of (N,) values; 0, 0 if either is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, 0.0
    return float(scipy.stats.pearsonr(x, y).statistic), float(scipy.stats.spearmanr(x, y).statistic)


def sparsification(error: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """How the mean error falls as the most uncertain pixels are left out (Ilg et al. 2018, "Uncertainty Estimates and
    Multi-Hypotheses Networks for Optical Flow", section 5.2).

    Args:
        error: (N,), not negative, not all zero.
        uncertainty: (N,); of equal values any is left out first as likely as another, and the mean over all orders
            is taken.

    Returns:
        (N,) float64: at k the mean error without the k most uncertain, as a share of the mean error of all. 1 at 0; 1
        everywhere for a constant and, in the mean, for a random uncertainty.
    """
    _, group = np.unique(uncertainty, return_inverse=True)
    of_group = np.bincount(group, error) / np.bincount(group)
    kept = np.cumsum(of_group[np.sort(group)])[::-1] / np.arange(len(error), 0, -1)
    return kept / kept[0]


def ause(error: np.ndarray, uncertainty: np.ndarray) -> float:
    """The area under the sparsification error (Ilg et al. 2018): between the curves of ``uncertainty`` and of the
    error itself, the oracle's, over the share of pixels left out from 0 to 1. 0 is perfect."""
    return float((sparsification(error, uncertainty) - sparsification(error, error)).mean())


@dataclass
class Measure:
    """One uncertainty of one model: a value a photo, in the order of the photos.

    Attributes:
        model: the row's name.
        name: of :data:`MEASURES`.
        values: ``ause``, ``spearman``, ``pearson``, and the means over the photo's pixels ``error`` and
            ``uncertainty``.
        curves: (:data:`SHARES`,) a photo; ``oracles`` likewise.
    """

    model: str
    name: str
    values: dict[str, list[float]] = field(default_factory=dict)
    curves: list[np.ndarray] = field(default_factory=list)
    oracles: list[np.ndarray] = field(default_factory=list)

    def add(self, error: np.ndarray, uncertainty: np.ndarray) -> None:
        """A photo: (N,) ΔE2000 and uncertainty of its pixels. One without any error is left out."""
        if not error.any():
            return
        curve, oracle = sparsification(error, uncertainty), sparsification(error, error)
        pearson, spearman = correlations(uncertainty, error)
        figures = {"ause": (curve - oracle).mean(), "spearman": spearman, "pearson": pearson}
        figures |= {"error": error.mean(), "uncertainty": uncertainty.mean()}
        for key, value in figures.items():
            self.values.setdefault(key, []).append(float(value))
        at = (SHARES * len(error)).astype(int)
        self.curves.append(curve[at])
        self.oracles.append(oracle[at])

    def summary(self, intervals: bool, resamples: int, seed: int) -> dict[str, Any]:
        """``model``, ``measure``, ``n`` and for each of :data:`LABELS` ``{"mean", "ci95"}``: of the first three means
        over photos, of ``photos`` Spearman's correlation of the photos' mean uncertainties and errors."""
        values = {key: np.array(of_photos) for key, of_photos in self.values.items()}
        n = len(self.curves)

        def of_photos(i: np.ndarray) -> np.ndarray:
            """(R, N) positions to (R,) correlations of ranks; 0 where all are equal."""
            ranks = [scipy.stats.rankdata(values[key][i], axis=1) for key in ("error", "uncertainty")]
            x, y = (r - r.mean(1, keepdims=True) for r in ranks)
            return (x * y).sum(1) / np.maximum(np.sqrt((x * x).sum(1) * (y * y).sum(1)), 1e-9)

        result: dict[str, Any] = {"model": self.model, "measure": self.name, "n": n}
        for key in LABELS:
            statistic = of_photos if key == "photos" else lambda i, v=values[key]: v[i].mean(1)
            ci95 = bootstrap(statistic, n, resamples, seed) if intervals else None
            mean = float(statistic(np.arange(n)[None])[0])
            result[key] = {"mean": mean, "ci95": None if ci95 is None else list(ci95)}
        return result


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The summaries as lines of Markdown."""
    lines = ["| model | uncertainty | " + " | ".join(LABELS.values()) + " |", "|" + "---|" * (len(LABELS) + 2)]
    for row in rows:
        cells = [row["model"], MEASURES[row["measure"]]]
        for key in LABELS:
            ci95 = row[key]["ci95"]
            cells.append(f"{row[key]['mean']:.3f}" + ("" if ci95 is None else f" [{ci95[0]:.3f}, {ci95[1]:.3f}]"))
        lines.append("| " + " | ".join(cells) + " |")
    return lines
