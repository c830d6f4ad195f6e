"""The report of an evaluation: means with intervals, paired comparisons, tables and curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from colorization import __version__
from colorization.core import color, runs
from colorization.data.plain import AnyDataModule
from colorization.evaluation import metrics, sparsification
from colorization.evaluation.catalog import BY_NAME, KID_FORM, METRICS, Metric
from colorization.evaluation.rows import GREY, Row
from colorization.evaluation.statistics import FEWEST_PHOTOS, bootstrap

if TYPE_CHECKING:
    from colorization.evaluation.judge import Judge

FIGURES = tuple(m.name for m in METRICS)  # in metrics.json for each row, in this order
COLUMNS = tuple(m.name for m in METRICS if m.shown)  # columns of table.md, if there are values
OF_SET = "over all photos at once"
HEADINGS = {m.name: m.heading for m in METRICS}
COMPARISONS = tuple(m.name for m in METRICS if m.paired)


def protocol(datamodule: AnyDataModule, photos: int, cfg: DictConfig) -> dict[str, Any]:
    """The facts needed to compare these figures with others."""
    return {
        **datamodule.protocol(),
        "n": photos,
        "space": "RGB in [0, 1], rebuilt from the true L* and the predicted a*b*, channels clipped",
        **{m.name: m.form for m in METRICS},
        "stability": f"{BY_NAME['stability'].form}; {list(cfg.stability)}" if cfg.stability else None,
        "top1": f"{BY_NAME['top1'].form}; {cfg.judge}" if cfg.judge else None,
        "kid": f"{KID_FORM}; {cfg.judge}" if cfg.judge else None,
        "predictions": "pictures go the photos' way to the crop; a*b* of 8-bit RGB, with the true L*",
        "near_grey": f"true colorfulness below {color.NEAR_GREY:g}",
        "intervals": f"95 %, percentile bootstrap over photos, {cfg.bootstrap} resamples, seed {cfg.seed}",
        "uncertainty": "standard deviation in ab of answers, Lab units, against ΔE2000 of pixels; means over photos",
        "version": __version__,
        "git": runs.git_state(),
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
        for metric in (*FIGURES, *row.of_set):
            if metric == "delta_colorfulness":
                predicted, true = np.array(row.values["colorfulness"])[chosen], truth[chosen]
                mean = abs(predicted.mean() - true.mean()) if len(chosen) else None
                ci = interval(lambda i, p=predicted, t=true: np.abs(p[i].mean(1) - t[i].mean(1)), len(chosen))  # type: ignore[misc]
            elif metric in row.values:
                values = _measured(np.array(row.values[metric])[chosen])
                mean = values.mean() if len(values) else None
                ci = interval(lambda i, v=values: v[i].mean(1), len(values))  # type: ignore[misc]
            elif metric in row.of_set:
                result[metric] = {"mean": None, "ci95": None, "reason": OF_SET}
                if len(chosen) == len(truth) and math.isfinite(row.of_set[metric]):
                    result[metric]["mean"] = row.of_set[metric]
                continue
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
        for m in (*COMPARISONS, *a.of_set)
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
    """Without NaN: photos for which the metric has no value."""
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


def write_per_image(path: Path, rows: list[Row], names: Sequence[str]) -> None:
    """One line for each photo and row; ``strip`` names the file of its strip, if there is one."""
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


def curves(row: Row) -> dict[str, np.ndarray]:
    """The mean sparsification curves of a row, and the oracle's, by the names of the figure."""
    curves = {sparsification.MEASURES[m.name]: np.mean(m.curves, 0) for m in row.uncertainties}
    return {**curves, "error itself": np.mean(row.uncertainties[0].oracles, 0)}


def table(report: dict[str, Any], columns: Sequence[str] | None = None) -> str:
    """The report as Markdown: all photos, then without the near-grey ones if there are any, then the rows that do
    not beat grey. ``columns``: names of metrics; ``None``: those that are shown by default, and the custom ones."""
    custom = {m["name"]: Metric(**m, help=m["form"]) for m in report.get("custom_metrics", ())}
    known = BY_NAME | custom
    columns = columns or (*COLUMNS, *custom)
    columns = [c for c in columns if any(row.get(c, {}).get("mean") is not None for row in report["rows"])]
    p = report["protocol"]
    shape = p.get("shape") or f"{p['size']}x{p['size']}"
    lines = [f"{p['data']}, {p['n']} photos at {shape}, {p['crop']}.", ""]
    for file, n in p["train_photos"].items():
        lines += [f"**Not a fair test: {n} of these photos were trained on by {file}.**", ""]
    lines += _one_table(report["rows"], [known[c] for c in columns])
    coloured = [{"name": r["name"], **r["without_near_grey"]} for r in report["rows"]]
    if coloured[0]["n"] < p["n"]:
        lines += ["", f"Without the near-grey photos (colorfulness < {color.NEAR_GREY:g}), n = {coloured[0]['n']}:", ""]
        lines += _one_table(coloured, [known[c] for c in columns])
    lines += ["", "CF: colorfulness; ΔCF: distance of the mean CF to the truths'."]
    of_truths = {"bleeding": f"; of the truths {report['true_bleeding']:.1f} %"}
    if "top1" in columns:
        share, photos = report["true_top1"], report["judged"]
        of_truths["top1"] = f" ({report['judge']}); of the truths {share:.1f} %, of {photos} photos"
    of_truths |= {c: f", {OF_SET}" for c in custom if report["rows"][0][c].get("reason") == OF_SET}
    further = [known[c] for c in columns if not known[c].trained]
    lines += [f"{m.label}: {m.help}{of_truths.get(m.name, '')}." for m in further]
    if any(row.get("kid") for row in report["rows"]):
        lines.append("KID: distance to the truths in the features of that classifier, not of Inception.")
    if all(r["delta_e2000"]["ci95"] is None for r in report["rows"]):
        lines.append(f"No confidence intervals: at least {FEWEST_PHOTOS} independent photos are needed.")
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


def _one_table(rows: list[dict[str, Any]], columns: Sequence[Metric]) -> list[str]:
    def cell(row: dict[str, Any], metric: Metric) -> str:
        value, digits = row[metric.name], metric.digits
        if value["mean"] is None:
            return "–"
        text = f"{value['mean']:.{digits}f}"
        return text if value["ci95"] is None else text + " [{:.{d}f}, {:.{d}f}]".format(*value["ci95"], d=digits)

    of_sets = {"fid": "FID ↓", "kid": "KID x 1000 ↓"}  # of all photos together
    of_sets = {k: v for k, v in of_sets.items() if any(row.get(k) and row[k]["mean"] is not None for row in rows)}
    head = ["model", *(m.heading for m in columns), "PSNR median", *of_sets.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        median = row["psnr"].get("median")
        cells = [row["name"], *(cell(row, m) for m in columns), "–" if median is None else f"{median:.2f}"]
        lines.append("| " + " | ".join(cells + [f"{row[k]['mean']:.2f}" for k in of_sets]) + " |")
    return lines
