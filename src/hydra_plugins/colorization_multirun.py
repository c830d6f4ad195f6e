"""What ``-m`` uses of our own. Hydra takes plugins from this namespace package alone, and imports all that is in it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import Timeout
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger(__name__)


class RunSweeper(BasicSweeper):
    """Hydra's sweeper over a grid, which names the trials' runs and lists them in ``sweeps/<name>/trials.json``."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's, after the sweep has got a name if it has none: the launcher's folders are named by it."""
        from colorization.core.runs import new_run_id

        self._named_here = config.sweep is None
        if self._named_here:
            config.sweep = new_run_id("sweep")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all trials; then raises what the first failed one raised.

        Raises:
            InputError: the sweep of this name has other trials, or none; its runs are to be named otherwise.
        """
        from colorization.core.errors import InputError

        assert self.config is not None and self.hydra_context is not None
        if self._named_here:
            arguments = [*arguments, f"sweep={self.config.sweep}"]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (trials,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        if not trials:
            raise InputError("-m: these settings have no combination")
        if any(o.startswith(("run_id=", "+run_id=")) for o in trials[0]):
            raise InputError("run_id: the runs of a multirun (-m) are named by sweep=<name>")
        file = Path(self.config.hydra.sweep.dir) / "trials.json"
        known = [t["overrides"] for t in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else trials
        if [sorted(t) for t in known] != [sorted(t) for t in trials]:
            raise InputError(f"sweep={self.config.sweep}: these are not the trials in {file}; choose another name")
        self._list(file, trials)
        try:
            return super().sweep(arguments)
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("submitit", "joblib"):  # no trial's own
                raise InputError(f"the launcher gave up: {' '.join(str(error).split())[:300]}") from error
            raise
        finally:
            self._report(self._list(file, trials))

    def _list(self, file: Path, trials: list[list[str]]) -> list[dict[str, Any]]:
        """Write what has become of the trials."""
        from colorization.core.atomic import write_json
        from colorization.core.runs import Run, trial_id

        assert self.config is not None
        rows = []
        for number, overrides in enumerate(trials):
            run = Run(Path(self.config.paths.output_dir) / "runs" / trial_id(self.config.sweep, number))
            status = run.status()
            state, error = status.get("state", "not started"), status.get("error")
            if state == "running":
                with suppress(Timeout), run.lock(timeout=0):
                    state = "its process died"
            rows.append({"run": run.id, "state": state, "error": error, "overrides": overrides})
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, rows, indent=1)
        return rows

    def _report(self, rows: list[dict[str, Any]]) -> None:
        assert self.config is not None
        common = set.intersection(*(set(row["overrides"]) for row in rows))
        unfinished = [row for row in rows if row["state"] != "finished"]
        for row in unfinished:
            own = " ".join(o for o in row["overrides"] if o not in common)
            log.error("%s (%s): %s%s", row["run"], own, row["state"], f": {row['error']}" if row["error"] else "")
        log.info("sweep=%s: %d of %d trials have finished", self.config.sweep, len(rows) - len(unfinished), len(rows))
        if unfinished:
            log.info("run the same command with sweep=%s to resume the others", self.config.sweep)


class RayLauncher(Launcher):
    """Every trial is a task of a Ray cluster, whose machines share the folders that the configuration names.

    Hydra's own launcher is not used: its release (hydra-ray-launcher 1.2.1) needs cloudpickle 2, which today's joblib
    excludes, its successor needs pre-releases of Hydra 1.4, and in both a trial whose process dies takes all others
    with it.

    Args:
        init: of ``ray.init``.
        remote: options of the task, as ``num_cpus``, ``num_gpus``, ``max_retries``.
    """

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        self.init, self.remote = init, remote

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the trials; one whose process dies is a failed one.

        Raises:
            InputError: there is no Ray.
        """
        from colorization.colorize.cluster import connect
        from colorization.core.errors import InputError

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        ray = connect("hydra/launcher=ray", **OmegaConf.to_container(self.init, resolve=True))  # type: ignore[arg-type]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as without Ray, whose handler is another
        run = ray.remote(_run).options(**OmegaConf.to_container(self.remote, resolve=True))  # type: ignore[arg-type]
        running = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            log.info("#%d: %s", number, " ".join(filter_overrides(overrides)))
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            running.append(run.remote(self.context, config, self.task, Singleton.get_state(), str(Path.cwd())))
        returns = []
        for trial, overrides in zip(running, job_overrides, strict=True):
            try:
                returns.append(ray.get(trial))
            except ray.exceptions.RayError as error:
                died = InputError(f"a trial's process died ({type(error).__name__})")
                reason = error.cause if isinstance(error, ray.exceptions.RayTaskError) else died
                returns.append(JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=reason))
        return returns


def _run(
    context: HydraContext, config: DictConfig, task: TaskFunction, state: dict[Any, Any], folder: str
) -> JobReturn:
    """In a process of Ray's."""
    setup_globals()
    Singleton.set_state(state)
    os.chdir(folder)  # a cluster's processes start where the cluster did
    return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
