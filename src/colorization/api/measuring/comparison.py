"""Comparisons: one photo through several weights and all of them merged, with the photo's own colours as the truth."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from werkzeug.datastructures import FileStorage

from colorization.api import forms
from colorization.api.colorizing import weights
from colorization.api.colorizing.colorize import Colorize
from colorization.api.http.problems import Problem
from colorization.api.http.redact import without_paths
from colorization.api.storage import uploads
from colorization.api.storage.database import Job, JobItem
from colorization.api.storage.jobs import Context, new_id
from colorization.api.storage.uploads import Upload
from colorization.core.errors import InputError
from colorization.evaluation.catalog import HIGHER_IS_BETTER

ENSEMBLE = "ensemble"


class Comparisons:
    """The kind of job ``compare``: each of its items is one column, weights or the ensemble."""

    def __init__(self, colorize: Colorize) -> None:
        self.colorize = colorize
        self.jobs_folder = colorize.settings.state_dir / "jobs"
        self.output_dir = Path(colorize.settings.output_dir)

    def submit(self, given: FileStorage, ids: Sequence[str], options: Mapping[str, Any]) -> Job:
        """Store the photo and start the job.

        Args:
            given: the photo.
            ids: of weights.
            options: of :data:`colorization.api.forms.COMPARISON`.

        Raises:
            Problem: 413, 415 or 422 for the photo, 422 for the ids.
        """
        for id in ids:
            weights.find(id, self.output_dir)
        job_id = new_id()
        folder = self.jobs_folder / job_id
        try:
            stored = uploads.store(given, folder, self.colorize.settings)
        except Problem:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        columns = [*ids, ENSEMBLE] if options["ensemble"] != forms.NONE and len(ids) > 1 else ids
        request = {**options, "weights": list(ids), "name": stored.name}
        return self.colorize.jobs.submit("compare", request, [(c, stored.path.name) for c in columns], job_id)

    def run(self, context: Context) -> dict[str, Any]:
        """The job: computes its waiting columns.

        Returns:
            ``photo`` (the truth), ``columns`` (each as ``POST /api/colorize`` answers, with ``name``), ``best``: metric
            -> name of the column that is best in it.

        Raises:
            InputError: no column could be made.
        """
        self.colorize.forget_untold(context)
        for item in context.items("waiting"):
            context.check()
            try:
                context.finish_item(item.number, self._column(context, item))
            except (Problem, InputError) as error:  # of the weights or of the photo
                said = str(error.message if isinstance(error, Problem) else error)
                context.finish_item(item.number, error=without_paths(said, self.output_dir))
        columns = [{"name": item.name, **(item.facts or {})} for item in context.items("done")]
        failed = [{"name": item.name, "error": item.error} for item in context.items("failed")]
        if not columns:
            raise InputError(failed[0]["error"] or "no column could be made")
        shutil.rmtree(self.jobs_folder / context.id, ignore_errors=True)
        photo = next(c["truth"] for c in columns if c["truth"])
        shown = [{k: v for k, v in c.items() if k != "truth"} for c in columns]
        return {"photo": photo, "columns": shown, "failed": failed, "best": best(shown)}

    def _column(self, context: Context, item: JobItem) -> dict[str, Any]:
        asked = context.request
        source = self.jobs_folder / context.id / item.upload
        copy = source.with_name(f"{new_id()}{source.suffix}")  # becomes a result
        shutil.copyfile(source, copy)
        options = {
            **forms.defaults(forms.COLORIZE),
            **{s.key: asked[s.key] for s in forms.COMPARISON},
            "mode": "color",
            "weights": asked["weights"] if item.name == ENSEMBLE else [item.name],
            "ensemble": asked["ensemble"] if item.name == ENSEMBLE else forms.defaults(forms.COLORIZE)["ensemble"],
        }
        try:
            answer = self.colorize.file(Upload(asked["name"], copy), options, context.id)
        finally:
            copy.unlink(missing_ok=True)
        if any(i.facts and i.facts["truth"] for i in context.items("done")):  # the same photo once is enough
            again = answer["truth"]["id"]
            self.colorize.results.remove([r for r in self.colorize.results.of_job(context.id) if r.id == again])
            answer["truth"] = None
        return answer


def best(columns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Metric -> name of the column that is best in it; metrics that could not be had are left out."""
    found = {}
    for metric, higher in HIGHER_IS_BETTER.items():
        scored = [(c["metrics"][metric], c["name"]) for c in columns if c["metrics"][metric] is not None]
        if scored:
            found[metric] = (max if higher else min)(scored, key=lambda s: s[0])[1]
    return found
