"""Evaluate weights side by side: ``python -m colorization.eval weights=[a,b] datamodule.test_dir=photos``.

One protocol for all rows, the trivial answers (no colour, the mean colour) always among them, every figure with a
bootstrap interval over the photos, and every figure once more without the near-grey photos.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig

from colorization.core import atomic, devices, hydra_main, signals
from colorization.core.errors import InputError
from colorization.data import plain
from colorization.evaluation import custom_metrics, figures, hinting, metrics, scoring, sparsification
from colorization.evaluation.report import (
    FIGURES,
    HEADINGS,
    curve,
    curves,
    judged,
    protocol,
    summarize,
    table,
    write_curve,
    write_per_image,
)
from colorization.evaluation.rows import (
    at_hints,
    at_vividness,
    disambiguate,
    ensemble_row,
    find_weights,
    model_row,
    picture_rows,
    trivial_rows,
)
from colorization.evaluation.scoring import Progress
from colorization.evaluation.sparsification import Measure
from colorization.evaluation.splits import check_unseen, take_split

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate as configured; writes the folder ``cfg.eval_dir`` and returns the content of its ``metrics.json``.

    Raises:
        InputError: no weights, no photos, or something in the config cannot work.
        signals.StopRequested: SIGTERM or Ctrl-C.
    """
    progress = Progress(Path(cfg.eval_dir))
    with signals.StopSignals(), metrics.lpips_wanted(cfg.lpips):
        try:
            report = _evaluate(cfg, progress)
        except signals.StopRequested:
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
    custom = custom_metrics.configured(cfg.metrics, cfg.datamodule.get("image_size") or 256)
    check(cfg, [metric.entry.name for metric in custom])
    files = find_weights(cfg)
    models = [model_row(f, device) for f in files]
    if isinstance(cfg.weights, DictConfig):
        for row, name in zip(models, cfg.weights, strict=True):
            row.name = str(name)
    else:
        disambiguate(models)
    models = [row for model in models for row in at_vividness(model, cfg.vividness or ())]
    models = [row for model in models for row in at_hints(model, cfg.hints or ())]
    if cfg.ensemble is not None:
        models = [*models, ensemble_row(models, cfg.ensemble)]
    datamodule = plain.configured(cfg.datamodule, cfg.seed)
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
    folder = Path(cfg.eval_dir)
    names = datamodule.names("test")
    judge = None
    collectors: list[scoring.Collector] = []
    if cfg.judge is not None:
        from colorization.evaluation.judge import Judge, Judged  # (with timm, which nothing else here needs)

        judge = Judge(cfg.judge, device)
        collectors.append(Judged(rows, judge, names))
    if cfg.stability:
        collectors.append(scoring.Stability(rows, cfg.stability))
    if cfg.curve:
        collectors.append(scoring.Curves(rows))
    if cfg.fid:
        collectors.append(scoring.FrechetDistances(rows, device))
    comparison = scoring.Comparison(rows, len(names), folder)
    collectors += [scoring.Strips(rows, names, folder, cfg.strips), comparison]
    if cfg.uncertainty:
        for row in models:
            absent = {"members": not row.answers, "distribution": "distribution" not in row.outputs}
            row.uncertainties = [Measure(row.name, m) for m in sparsification.MEASURES if not absent.get(m)]
        collectors.append(scoring.Uncertainties(rows, comparison, folder))
    with closing(datamodule):
        scoring.score(rows, loader, device, progress, collectors, custom)
    names = names[: len(rows[0].values["psnr"])]  # a loader may leave out the last ones

    report = {
        "schema": 1,
        "protocol": protocol(datamodule, len(rows[0].values["psnr"]), cfg) | {"train_photos": train_photos},
        **summarize(rows, datamodule.intervals, cfg.bootstrap, cfg.seed),
        "custom_metrics": [
            {k: getattr(metric.entry, k) for k in ("name", "label", "digits", "better", "form")} for metric in custom
        ],
        "true_bleeding": float(np.mean(rows[0].values["true_bleeding"])),
        **(judged(rows[0], judge) if judge else {}),
        "uncertainty": [
            m.summary(datamodule.intervals, cfg.bootstrap, cfg.seed) for row in models for m in row.uncertainties
        ],
    }
    atomic.write_json(folder / "metrics.json", report, indent=1)
    write_per_image(folder / "per_image.csv", rows, names)
    shown = {m: {r.name: r.values[m] for r in rows} for m in ("delta_e2000", "psnr")}
    figures.distributions(shown, HEADINGS, folder / "distributions.png")
    if cfg.curve:
        points = curve(rows, datamodule.intervals, cfg.bootstrap, cfg.seed)
        write_curve(folder / "curve.csv", points)
        grey, truth = report["rows"][0]["delta_e2000"]["mean"], float(np.mean(rows[0].values["true_colorfulness"]))
        figures.chroma_curve(points, grey, truth, folder / "curve.png")
    if cfg.uncertainty and models:
        figures.sparsification(
            {r.name: curves(r) for r in models},
            sparsification.SHARES,
            ("error itself", "random order"),
            folder / "sparsification.png",
        )
    text = table(report, cfg.columns)
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)
    log.info("table, strips, per-image figures: %s", folder)
    return report


def check(cfg: DictConfig, custom: Sequence[str]) -> None:
    """Refuse settings that would fail only at the end; ``custom``: names of further metrics. Raises ``InputError``."""
    figures = (*FIGURES, *custom)
    if unknown := [c for c in cfg.columns or () if c not in figures]:
        raise InputError(f"columns={list(cfg.columns)}: {unknown[0]} is none of {', '.join(figures)}")
    if not all(isinstance(v, int | float) and 0 <= v <= 1 for v in cfg.vividness or ()):
        raise InputError(f"vividness={cfg.vividness}: should be null or a list of numbers from 0 to 1")
    numbers = cfg.hints
    if numbers is not None:
        counts = isinstance(numbers, ListConfig) and len(numbers) == len(set(numbers))
        if not counts or not all(isinstance(n, int) and 0 <= n <= hinting.MOST for n in numbers):
            raise InputError(f"hints={numbers}: should be null or a list of numbers of points, 0 to {hinting.MOST}")
        if cfg.stability or cfg.uncertainty or cfg.ensemble:
            raise InputError(f"hints={numbers}: goes without stability, uncertainty and ensemble")
    sizes = cfg.stability
    if sizes is not None and not (
        isinstance(sizes, ListConfig) and len(set(sizes)) > 1 and all(isinstance(s, int) and s >= 32 for s in sizes)
    ):
        raise InputError(f"stability={sizes}: should be null or two sizes or more, 32 pixels or more each")


def main() -> None:
    """The command."""

    def task(cfg: DictConfig) -> None:
        try:
            evaluate(cfg)
        except signals.StopRequested as request:
            log.info("%s", request)
            sys.exit(143 if request.signum == signal.SIGTERM else 130)

    hydra_main.run(task, "eval")


if __name__ == "__main__":
    main()
