"""Pictures for people: strips, grids, and the figure of the distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colorization.core import color


def to_uint8(rgb: torch.Tensor) -> np.ndarray:
    """(3, H, W) float in [0, 1] to (H, W, 3) uint8."""
    return (rgb.detach().float().cpu().numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)


def strip(lab: torch.Tensor, true_lab: torch.Tensor, grey: torch.Tensor | None = None) -> np.ndarray:
    """The three panels [grey | prediction | truth] side by side.

    Args:
        lab, true_lab: (3, H, W) Lab.
        grey: (1, H, W) in [0, 1], the network's input ``L``; default the truth's.

    Returns:
        (H, 3 * W, 3) uint8.
    """
    L = color.split(true_lab)[0] if grey is None else grey
    panels = [color.grey_of_lightness(L).expand(3, -1, -1), color.lab_to_rgb(lab), color.lab_to_rgb(true_lab)]
    return np.concatenate([to_uint8(p) for p in panels], axis=1)


def grid(strips: Sequence[np.ndarray], columns: int = 2) -> np.ndarray:
    """Strips of one size, ``columns`` side by side, on white; (H, W, 3) uint8."""
    height, width, _ = strips[0].shape
    gap = max(2, height // 32)
    rows = -(-len(strips) // columns)
    columns = min(columns, len(strips))
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, s in enumerate(strips):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[y : y + height, x : x + width] = s
    return canvas


def comparison(rows: Sequence[Sequence[torch.Tensor]], titles: Sequence[str], path: Path) -> None:
    """Photos below each other, with the results for each side by side.

    Args:
        rows: for each photo one (3, H, W) picture in [0, 1] a column, all of one size.
        titles: of the columns.
        path: the PNG to write.
    """
    side = 1.6  # inches
    figure = _figure(side * len(titles), side * len(rows) + 0.3)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for i, row in enumerate(rows):
        for ax, picture in zip(axes[i], row, strict=True):
            ax.imshow(to_uint8(picture), interpolation="nearest")
            ax.axis("off")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> Any:
    """A matplotlib figure of this size in inches, without pyplot: no window system, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def distributions(values: Mapping[str, Mapping[str, Sequence[float]]], labels: Mapping[str, str], path: Path) -> None:
    """Box plots of per-image metrics, one panel a metric, one box a row of the table.

    Args:
        values: metric -> row name -> one value an image.
        labels: metric -> axis label.
        path: the PNG to write.
    """
    names = list(next(iter(values.values())))
    figure = _figure(3.2 * len(values), 1.2 + 0.45 * len(names))
    axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for ax, (metric, rows) in zip(axes, values.items(), strict=True):
        ax.boxplot(
            [rows[n] for n in names], orientation="horizontal", widths=0.6, showmeans=True, flierprops={"markersize": 3}
        )
        ax.set_xlabel(labels[metric])
        ax.set_yticks(range(1, len(names) + 1), names)
        ax.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def importance(shares: Mapping[str, float], path: Path) -> None:
    """Bars of how much of a sweep's differences each setting explains, the largest at the top; ``path``: the PNG."""
    figure = _figure(5, 0.8 + 0.35 * len(shares))
    ax = figure.subplots()
    names = sorted(shares, key=lambda name: shares[name])
    ax.barh(names, [shares[name] for name in names])
    ax.set_xlabel("share of the variance (fANOVA)")
    ax.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)


def sparsification(
    curves: Mapping[str, Mapping[str, np.ndarray]], shares: np.ndarray, limits: Sequence[str], path: Path
) -> None:
    """Sparsification curves, one panel a model.

    Args:
        curves: model -> uncertainty -> (N,) mean error of the remaining pixels, as a share of the error of all.
        shares: (N,) of the pixels that are left out.
        limits: the curves that are drawn in grey.
        path: the PNG to write.
    """
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = _figure(3.4 * columns, 2.8 * rows)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for ax in axes[len(curves) :]:
        ax.axis("off")
    for ax, (model, of_model) in zip(axes[: len(curves)], curves.items(), strict=True):
        for name, curve in of_model.items():
            style = {"color": "grey", "linestyle": "--"} if name in limits else {}
            ax.plot(shares, curve, label=name, linewidth=1.5, **style)
        ax.set_title(model, fontsize=9)
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    axes[0].set_ylabel("ΔE2000 of the rest / of all")
    for ax in axes[-columns:]:
        ax.set_xlabel("share of pixels left out")
    figure.savefig(path, dpi=120)


def chroma_curve(points: Sequence[Mapping[str, Any]], grey: float, truth: float, path: Path) -> None:
    """ΔE2000 against colorfulness, a line a model; a ring marks its colours as they are (factor 1).

    Args:
        points: of :func:`colorization.evaluation.report.curve`.
        grey: ΔE2000 of no colour at all.
        truth: mean colorfulness of the truths.
        path: the PNG to write.
    """
    figure = _figure(5.5, 4)
    ax = figure.subplots()
    for name in dict.fromkeys(p["model"] for p in points):
        of_model = [p for p in points if p["model"] == name]
        (line,) = ax.plot(*([p[k] for p in of_model] for k in ("colorfulness", "delta_e2000")), marker=".", label=name)
        asis = next(p for p in of_model if p["factor"] == 1)
        ax.plot(asis["colorfulness"], asis["delta_e2000"], "o", color=line.get_color(), fillstyle="none", markersize=9)
    ax.axhline(grey, color="grey", linestyle="--", linewidth=1, label="grey")
    ax.axvline(truth, color="grey", linestyle=":", linewidth=1, label="truth")
    ax.set_xlabel("colorfulness")
    ax.set_ylabel("ΔE2000")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def differences(rows: Mapping[str, Mapping[str, tuple[float, float, float]]], label: str, path: Path) -> None:
    """Paired differences with their intervals around zero, a line a row of the table, the first at the top.

    Args:
        rows: row name -> subset -> mean, lower and upper end of the interval.
        label: of the axis.
        path: the PNG to write.
    """
    figure = _figure(6, 0.9 + 0.4 * len(rows))
    ax = figure.subplots()
    subsets = list(next(iter(rows.values())))
    for i, subset in enumerate(subsets):
        mean, low, high = np.array([of_row[subset] for of_row in rows.values()]).T
        y = np.arange(len(rows)) + 0.2 * (i - (len(subsets) - 1) / 2)
        ax.errorbar(mean, y, xerr=(mean - low, high - mean), fmt="o", markersize=4, capsize=2, label=subset)
    ax.axvline(0, color="grey", linewidth=1)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def learning_curves(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], label: str, path: Path) -> None:
    """A figure against epochs, a line a run.

    Args:
        runs: run -> epochs and values.
        label: of the value.
        path: the PNG to write.
    """
    many = len(runs) > 10  # their names would hide the lines
    figure = _figure(9 if many else 6, 4)
    ax = figure.subplots()
    for i, (name, (epochs, values)) in enumerate(runs.items()):
        style = ("-", "--", ":")[i // 10 % 3]  # there are ten colours
        ax.plot(epochs, values, style, marker=".", label=name)
    ax.set_xlabel("epochs")
    ax.set_ylabel(label)
    ax.grid(alpha=0.3)
    figure.legend(fontsize=7, loc="outside right upper") if many else ax.legend(fontsize=7)
    figure.savefig(path, dpi=120)
