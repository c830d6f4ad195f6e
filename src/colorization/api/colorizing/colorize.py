"""Colorizing for clients: one stored upload into results (:meth:`Colorize.file`), and batches of them."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from werkzeug.datastructures import FileStorage

from colorization.api import forms
from colorization.api.colorizing import weights
from colorization.api.colorizing.colorizers import Colorizers
from colorization.api.colorizing.previews import preview
from colorization.api.http.problems import Problem, invalid
from colorization.api.settings import Settings
from colorization.api.storage import uploads
from colorization.api.storage.database import Database, Job, JobItem
from colorization.api.storage.jobs import Cancelled, Context, Jobs, new_id
from colorization.api.storage.results import Results
from colorization.api.storage.uploads import Upload
from colorization.colorize.colorizer import Colorizer
from colorization.colorize.colorizer import Settings as Colours
from colorization.colorize.hints import Hint, in_centre
from colorization.core import runs
from colorization.core.errors import InputError, about, told_elsewhere
from colorization.files import pictures, writing
from colorization.files.writing import Output
from colorization.models.weights import DEFAULT_WEIGHTS

log = logging.getLogger(__name__)

_importing = threading.Lock()


class Colorize:
    """Colorizes uploads; options as in ``POST /api/colorize``, as plain JSON."""

    def __init__(
        self, settings: Settings, database: Database, jobs: Jobs, colorizers: Colorizers, results: Results
    ) -> None:
        self.settings, self.database, self.jobs = settings, database, jobs
        self.colorizers, self.results = colorizers, results

    def weights(self, options: Mapping[str, Any]) -> dict[str, Path]:
        """The weights that are asked for, by their ids. Raises ``Problem`` 422."""
        output_dir = Path(self.settings.output_dir)
        asked = dict.fromkeys(options.get("weights", ()), "weights")
        asked |= {options["model"]: "model"} if "model" in options else {}
        return {
            id: weights.find(id, output_dir, field) for id, field in (asked or {DEFAULT_WEIGHTS: "weights"}).items()
        }

    def upload(self, given: FileStorage, options: Mapping[str, Any]) -> dict[str, Any]:
        """Colorize an upload, and answer.

        Raises:
            Problem: 413, 415 or 422 for the file, 422 for the options, 503 when too many wait or the disk is full.
        """
        folder = self.settings.state_dir / "uploads" / new_id()
        try:
            return self.file(uploads.store(given, folder, self.settings), options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def file(self, upload: Upload, options: Mapping[str, Any], job_id: str | None = None) -> dict[str, Any]:
        """Colorize a stored upload into results, and answer; of a job, with patience. Raises as :meth:`upload`."""
        used = self.weights(options)
        if options["mode"] == "color":
            _metrics()  # takes seconds once; nobody should wait for a turn meanwhile
        source, stem = upload.path, Path(upload.name).stem
        suffix = writing.target_suffix(source, options["format"])
        target, heat, truth = (
            source.with_name(f"{source.stem}-{name}")
            for name in (f"result{suffix}", "uncertainty.png", f"truth{source.suffix}")
        )

        def result(path: Path, name: str, kind: str, given: Any = None) -> dict[str, Any] | None:
            if not path.is_file():
                return None
            media_type = uploads.MEDIA_TYPES[path.suffix]
            return self.results.answer(self.results.add(path, name, media_type, job_id, kind, given))

        try:
            done = self.colorizers.run(
                [*used.values()], lambda c: _colorize(c, upload, target, heat, options), patient=job_id is not None
            )
            if options["mode"] == "color":
                shutil.copyfile(source, truth)  # the upload stays until the batch has recorded its end
            given = {key: done[key] for key in ("hints", "palette")}
            return {
                "result": result(target, f"{stem}-colorized{suffix}", "result", given),
                "uncertainty": result(heat, f"{stem}-uncertainty.png", "uncertainty"),
                "truth": result(truth, f"{stem}{source.suffix}", "truth"),
                **done,
                "weights": [{"id": id, **facts} for id, facts in zip(used, done["weights"], strict=True)],
            }
        except InputError as error:  # of loading the weights
            reason = str(error)
            for id, path in used.items():
                reason = reason.replace(str(path), id)
            raise invalid("weights", reason) from error
        except OSError as error:
            if error.errno not in runs.DISK_FULL:
                raise
            reason = f"{upload.name}: the result cannot be stored ({error.strerror})"
            raise Problem(503, reason, retry_after=60) from error

    def preview(self, given: FileStorage, side: int | None) -> bytes:
        """An upload as :func:`~colorization.api.colorizing.previews.preview` shows it; nothing of it is kept."""
        folder = self.settings.state_dir / "uploads" / new_id()
        try:
            return preview(uploads.store(given, folder, self.settings), side)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # Batches

    def submit(self, given: Sequence[FileStorage], options: Mapping[str, Any]) -> Job:
        """Store uploads and start the job that colorizes them; a bad one fails alone."""
        self.weights(options)
        id = new_id()
        folder = self._folder(id)
        items, refused = [], {}
        for number, file in enumerate(given):
            try:
                stored = uploads.store(file, folder, self.settings)
                items.append((stored.name, stored.path.name))
            except Problem as error:
                refused[number] = str(error.message)
                items.append((uploads.safe_name(file.filename), ""))
        return self.jobs.submit("batch", dict(options), items, id, refused)

    def batch(self, context: Context) -> dict[str, Any]:
        """The kind of job ``batch``: colorizes its waiting files."""
        try:
            self.weights(context.request)
        except Problem as error:
            raise InputError(str(error.message)) from error
        self.forget_untold(context)
        self._each(context, self._item)
        items = {state: context.items(state) for state in ("done", "failed")}
        again = {item.upload for item in items["failed"]}
        for path in self._folder(context.id).glob("*"):
            if path.name not in again:
                path.unlink()
        return {**{state: len(found) for state, found in items.items()}, "archive": f"/api/jobs/{context.id}/archive"}

    def forget_untold(self, context: Context) -> None:
        """Remove the results of a job that a killed server made and did not come to tell."""
        answers = [item.facts for item in context.items("done") if item.facts]
        told = {answer[k]["id"] for answer in answers for k in ("result", "uncertainty", "truth") if answer[k]}
        self.results.remove([r for r in self.results.of_job(context.id) if r.id not in told])

    def _each(self, context: Context, function: Callable[[Context, JobItem], None]) -> None:
        slots = self.colorizers.turns.slots
        with ThreadPoolExecutor(slots, "batch") as pool:
            futures = [pool.submit(function, context, item) for item in context.items("waiting")]
            try:
                for future in as_completed(futures):
                    future.result()
            except Cancelled:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _item(self, context: Context, item: JobItem) -> None:
        context.check()
        upload = Upload(item.name, self._folder(context.id) / item.upload)
        try:
            if not upload.path.is_file():
                raise Problem(422, f"{item.name}: the upload has expired; send it again")
            answer = self.file(upload, context.request, context.id)
        except Problem as error:
            context.finish_item(item.number, error=str(error.message))
        except Exception:
            log.exception("batch %s, file %d", context.id, item.number)
            context.finish_item(item.number, error="something went wrong in the server; its log has it")
        else:
            context.finish_item(item.number, answer)
            upload.path.unlink(missing_ok=True)

    def _folder(self, job_id: str) -> Path:
        return self.settings.state_dir / "jobs" / job_id

    def delete(self, job_id: str) -> None:
        """Remove an ended job with its results and uploads."""
        self.results.remove(self.results.of_job(job_id))
        shutil.rmtree(self._folder(job_id), ignore_errors=True)
        self.jobs.delete(job_id)


def _colorize(
    colorizer: Colorizer, upload: Upload, target: Path, heat: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the requested results, and return their facts."""
    colours = Colours(
        **forms.given_to(Colours, forms.COLORIZE, options),
        hints=tuple(Hint(**hint) for hint in options.get("hints", ())),  # comparisons and older jobs have none
        palette=options.get("palette", ()),
    )
    output = Output(**forms.given_to(Output, forms.COLORIZE, options))
    uncertainty = heat if options["uncertainty"] else None
    try:
        colorizer.check(colours)
    except InputError as error:
        field, _, reason = str(error).partition(": ")
        raise invalid(field, reason) from error
    try:
        facts = colorizer.colorize_file(upload.path, target, colours, output, uncertainty=uncertainty)
        scores = _metrics()(colorizer, upload.path, colours) if options["mode"] == "color" else None
    except InputError as error:
        raise uploads.problem(error, upload) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise uploads.problem(error, upload) from error  # the type cannot hold this picture
    used = [{"stage": b.description["stage"], "sha256": b.digest} for b in colorizer.backends]
    given = {"hints": [asdict(hint) for hint in colours.hints], "palette": list(colours.palette)}
    return {**facts, **given, "weights": used, "metrics": scores}


def _metrics() -> Callable[[Colorizer, Path, Colours], dict[str, Any]]:
    """:func:`_scores` in one thread, after its imports and with LPIPS loaded."""
    with _importing:
        threads = cv2.getNumThreads()
        import colorization.data.augment  # noqa: F401
        from colorization.evaluation import metrics

        cv2.setNumThreads(threads)  # which augmentation sets to one for the sake of its many workers
        metrics.lpips_network()
    return _scores


def _scores(colorizer: Colorizer, file: Path, colours: Colours) -> dict[str, Any]:
    """How the colours of a colour photo are met: the evaluation's metrics on its own preparation of the photo.

    ``lpips`` is ``None`` where its weights are missing, and ``lpips_missing`` then says so.
    """
    import torch

    from colorization.data.augment import Augment
    from colorization.evaluation import metrics

    size = forms.defaults(forms.EVALUATION)["image_size"]
    with about(file, told_elsewhere):  # it was colorized
        photo = pictures.read_rgb(file)
    rgb = Augment(size, train=False).batch([photo], [0])["rgb"]
    colours = replace(colours, hints=in_centre(colours.hints, *photo.shape[:2]))  # which is what is measured

    def predict(L: torch.Tensor) -> torch.Tensor:
        ab = colorizer.answer(np.ascontiguousarray(L.numpy()), colours).ab * (colours.saturation * colours.strength)
        return torch.from_numpy(ab.astype(np.float32))[None]

    with torch.inference_mode():
        _, _, (values,) = metrics.score(rgb, [predict])
    missing = None if "lpips" in values else "AlexNet's weights are not in torch's hub folder of the server"
    return {"size": size, "lpips": None, **{k: float(v) for k, v in values.items()}, "lpips_missing": missing}
