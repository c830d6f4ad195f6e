"""Search settings: ``python -m colorization.sweep name=first "overrides=['experiment=cifar10/sweep']"``.

Optuna proposes, Hydra composes, :func:`colorization.train.train` trains; each trial is an ordinary run. Hydra's own
plugin for Optuna is not used: its release (hydra-optuna-sweeper 1.3) holds Optuna at 2.10, which predates SQLAlchemy 2,
its successor needs pre-releases of Hydra 1.4, and in neither does a killed sweep resume its current trial.
The space is written as for that plugin, in Hydra's grammar of sweeps, and the rest of Optuna's work is its ``ask`` and
``tell``; the study lies in a journal file, so no database is needed.

A trial that a signal or a crash interrupts resumes from its last checkpoint when the sweep is started again. Each
proposal follows from the seed and the trials before it: an interrupted sweep proposes what an uninterrupted one does.
"""

from __future__ import annotations

import csv
import json
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Quote, QuotedString, RangeSweep
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from colorization.core import hydra_main, signals
from colorization.core.atomic import atomic_path
from colorization.core.errors import InputError
from colorization.core.runs import Run
from colorization.evaluation import figures
from colorization.train import train

log = logging.getLogger(__name__)


def distribution(key: str, text: str) -> BaseDistribution:
    """Optuna's distribution of a setting.

    Args:
        key: as in an override, for messages.
        text: a sweep in Hydra's grammar: ``interval(0, 1)``, ``int(interval(1, 9))``, ``range(8, 65, step=8)``,
            ``choice(a, b)``; ``tag(log, interval(1e-4, 1e-2))`` is drawn on a logarithmic scale.
    """
    sweep = OverridesParser.create().parse_override(f"{key}={text}").value()
    try:
        if isinstance(sweep, ChoiceSweep):
            return CategoricalDistribution([v.text if isinstance(v, QuotedString) else v for v in sweep.list])  # type: ignore[misc]
        if isinstance(sweep, IntervalSweep):
            whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
            return (IntDistribution if whole else FloatDistribution)(sweep.start, sweep.end, log="log" in sweep.tags)  # type: ignore[arg-type]
        if isinstance(sweep, RangeSweep):
            values = [float(v) for v in sweep.range()]
            if all(v.is_integer() for v in values):
                return IntDistribution(int(values[0]), int(values[-1]), step=int(sweep.step))
            return FloatDistribution(values[0], values[-1], step=float(sweep.step))
    except (ValueError, IndexError) as error:
        raise InputError(f"space: {key}={text}: {error}") from error
    raise InputError(
        f"space: {key}={text}: should be interval(...), range(...) or choice(...), perhaps in tag(log, ...)"
    )


def sweep(cfg: DictConfig) -> optuna.Study:
    """Run or resume the sweep; writes ``trials.csv``, ``importance.csv`` and ``importance.png`` after each trial.

    Raises:
        InputError: the space cannot work, or no trial did.
        signals.StopRequested: SIGTERM or Ctrl-C; started again, the current trial resumes.
    """
    folder = Path(cfg.paths.output_dir) / "sweeps" / cfg.name
    folder.mkdir(parents=True, exist_ok=True)
    space = {str(k): distribution(str(k), str(v)) for k, v in cfg.space.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone(folder), signals.StopSignals():
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        study = optuna.create_study(storage=storage, study_name=cfg.name, direction="minimize", load_if_exists=True)
        asked = {"space": {str(k): str(v) for k, v in cfg.space.items()}, "overrides": list(cfg.overrides)}
        for key, now in asked.items():
            if study.user_attrs.setdefault(key, now) != now:
                raise InputError(
                    f"name={cfg.name}: this sweep has another {key}: {study.user_attrs[key]}; choose another"
                )
            study.set_user_attr(key, now)
        while (found := next_trial(study, space, cfg)) is not None:
            trial, interrupted = found
            name = run_id(study.study_name, trial.number)
            log.info("trial %s, %d of %d: %s", name, trial.number + 1, cfg.trials, trial.params)
            try:
                value = train_once(cfg, trial, interrupted)
            except Exception as error:  # noqa: BLE001 (a sweep continues with its other trials; the run has the error)
                log.error("trial %s failed: %s", name, hydra_main.sentence(error))
                study.tell(trial.number, state=TrialState.FAIL)
            else:
                study.tell(trial.number, value)
            report(study, folder)
    if all(t.state != TrialState.COMPLETE for t in study.trials):
        raise InputError(f"name={cfg.name}: no trial of this sweep has finished; see {folder / 'sweep.log'}")
    best = study.best_trial
    log.info("best: trial %s, %.5g with %s", run_id(study.study_name, best.number), study.best_value, best.params)
    return study


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock", timeout=10)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"name={folder.name}: another process is running this sweep; wait or stop it") from error
    with lock:
        yield


def next_trial(
    study: optuna.Study, space: Mapping[str, BaseDistribution], cfg: DictConfig
) -> tuple[FrozenTrial, bool] | None:
    """The trial that was interrupted (and true), else a new one, else (``cfg.trials`` are done) ``None``."""
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.RUNNING and trial.params.keys() == space.keys():
            return trial, True
        if trial.state == TrialState.RUNNING:  # killed while it was proposed
            study.tell(trial.number, state=TrialState.FAIL)
    if len(trials) >= cfg.trials:
        return None
    # Anew for each trial, else its random numbers would depend on whether the sweep was interrupted.
    seed = cfg.seed + len(trials)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=cfg.startup_trials, multivariate=True, seed=seed)
    number = study.ask(dict(space)).number
    return study.get_trials(deepcopy=False)[number], False


def run_id(sweep: str, number: int) -> str:
    """The run of a sweep's trial."""
    return f"{sweep}-{number:03d}"


def train_once(cfg: DictConfig, trial: FrozenTrial, interrupted: bool) -> float:
    """Train a trial, or resume an interrupted one; the best epoch's ``optimized_metric``."""
    paths = {key: str(cfg.paths[key]) for key in ("output_dir", "data_dir")}
    run = Run(Path(paths["output_dir"]) / "runs" / run_id(cfg.name, trial.number))
    overrides = [
        *cfg.overrides,
        *(f"paths.{key}={_written(value)}" for key, value in paths.items()),
        *(f"{key}={_written(value)}" for key, value in trial.params.items()),
        f"run_id={run.id}",
    ]
    going_on = ["ckpt_path=last"] if interrupted and run.status() else []
    config = compose("train", overrides=[*overrides, *going_on])
    metrics = train(config, overrides)
    if config.optimized_metric not in metrics:
        raise InputError(f"optimized_metric={config.optimized_metric}: should be one of {', '.join(metrics)}")
    return metrics[config.optimized_metric]


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    return json.dumps(value)


def report(study: optuna.Study, folder: Path) -> None:
    """Write ``trials.csv`` and, as soon as they can be computed, the settings' importances (fANOVA, shares of one)."""
    trials = study.get_trials(deepcopy=False)
    keys = list(dict.fromkeys(k for t in trials for k in t.params))
    rows = [
        [
            t.number,
            run_id(study.study_name, t.number),
            t.state.name.lower(),
            t.value,
            *(t.params.get(k) for k in keys),
        ]
        for t in trials
    ]
    _write(folder / "trials.csv", ["trial", "run", "state", "value", *keys], rows)
    values = {t.value for t in trials if t.state == TrialState.COMPLETE}
    if len(values) < 2:
        return
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    _write(folder / "importance.csv", ["setting", "importance"], [[k, v] for k, v in importances.items()])
    figures.importance(importances, folder / "importance.png")


def _write(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def main() -> None:
    """The command."""

    def task(cfg: DictConfig) -> None:
        try:
            sweep(cfg)
        except signals.StopRequested as request:
            sys.exit(143 if request.signum == signal.SIGTERM else 130)

    hydra_main.run(task, "sweep")


if __name__ == "__main__":
    main()
