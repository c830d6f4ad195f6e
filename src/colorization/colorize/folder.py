"""The folder run: every photo below some folders colorized into a folder of its own, which can stop and go on.

The folder of the results holds a manifest, ``manifest.jsonl``: append-only, one JSON object a line, each with a
``schema`` number.

- A line with ``run`` begins each run: program version, time, workers, and the *recipe*, which is all that a result
  depends on besides its photo: SHA-256 of the weights, backend, settings, output, names.
- Any other is about one photo: ``source``, ``target`` (relative to the folder of the results; its key), ``state``
  (done, skipped with its ``reason``, failed with its ``error``), ``input`` and ``outputs`` (SHA-256, bytes, mtime_ns),
  pages, width and height, seconds, ``warning`` (what of it is damaged or was left out), and the recipe.

What makes it go on after SIGKILL at any moment: files in hand lie in ``.colorize/`` beside the manifest and are
renamed to their places after their line is written. A photo is finished if its last line is of the same recipe, and the
photo and all of its results are still what the line says (bytes and mtime; where only the mtime differs, by hash).
Everything else is done again, failures too. A result that no line vouches for, or that somebody has changed since, is
never replaced unless asked. The bytes of a result depend on the photo and the recipe alone, so a run that was stopped
leaves the same results as one that was not; in its manifest only order, times and repeated failures differ.

Imports no torch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any

import cv2
from filelock import Timeout
from tqdm import tqdm

from colorization import __version__
from colorization.colorize.colorizer import IS_RESULT, Colorizer, InColour, Loaded, Settings
from colorization.core import machine
from colorization.core.atomic import sha256
from colorization.core.errors import InputError, shown
from colorization.core.runs import DISK_FULL, utc_now
from colorization.files import locations, photofiles, pictures, writing
from colorization.files.locations import Lease, Location, Version, is_remote
from colorization.files.photofiles import LeftOut
from colorization.files.pixels import Unreadable
from colorization.files.writing import Output

MANIFEST = "manifest.jsonl"
WORK = ".colorize"  # beside the manifest: the lock, and files in hand
SCHEMA = 1
_LOOKED_INTO = 1000  # other files of a folder, to tell how many are pictures: network storage takes its time
_PLAIN_EVERY = 10.0  # seconds between lines of progress where there is no terminal


@dataclass(frozen=True)
class Naming:
    """What a result is called, and what comes beside it.

    Attributes:
        template: with ``{stem}`` and ``{name}`` of the photo and ``{suffix}`` of the result, at its end.
        strip: whether before and after are written side by side, too.
        uncertainty: whether a heat map of where the colours were guessed is written, too.

    Raises:
        InputError: a template that cannot work.
    """

    template: str = "{stem}{suffix}"
    strip: bool = False
    uncertainty: bool = False

    def __post_init__(self) -> None:
        try:
            made = self.template.format(stem="s", name="s.jpg", suffix=".png")
        except (LookupError, ValueError, AttributeError) as error:
            raise InputError(f"name={self.template}: knows {{stem}}, {{suffix}} and {{name}} only") from error
        if not made.endswith(".png") or made == ".png" or Path(made).name != made or "\0" in made:
            raise InputError(f"name={self.template}: should be a file's name that ends in {{suffix}}")

    def target(self, photo: PurePosixPath, type: str, keep_ending: bool = False) -> PurePosixPath:
        """The result's path for a photo's, both relative; ``type`` as in :class:`Output`.

        ``keep_ending``: ``{stem}`` is the whole name.
        """
        suffix, stem = writing.target_suffix(photo, type), photo.name if keep_ending else photo.stem
        return photo.with_name(self.template.format(stem=stem, name=photo.name, suffix=suffix))

    def beside(self, target: str, keep_ending: bool = False) -> dict[str, str]:
        """What else is written for a result: the argument of ``Colorizer.colorize_file`` and its path."""
        stem = target if keep_ending else PurePosixPath(target).with_suffix("")
        names = {"strip": f"{stem}-strip.jpg", "uncertainty": f"{stem}-uncertainty.png"}
        return {key: name for key, name in names.items() if getattr(self, key)}


@dataclass(frozen=True)
class Job:
    """A photo, the path of its result and those of what comes beside it, relative to the folder of the results."""

    source: Location
    target: str
    beside: dict[str, str]


@dataclass
class Found:
    """What a search found: photos with their relative paths; what is none, with the reason; and what was left out."""

    photos: list[tuple[Location, PurePosixPath]] = field(default_factory=list)
    skipped: list[tuple[Location, str]] = field(default_factory=list)
    failed: list[tuple[Location, str]] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    pictures: int = 0  # of the other files (the first thousand), those that are pictures

    @property
    def note(self) -> str:
        """What was left out, for people; empty if nothing was."""
        unusual = f"{self.pictures} of them are pictures with unusual endings: --any-ending takes them"
        if self.pictures == 1:
            unusual = "1 of them is a picture with an unusual ending: --any-ending takes it"
        return "; ".join(filter(None, (str(self.left_out), unusual if self.pictures else "")))


def search(
    given: Sequence[Location],
    output: Location,
    recursive: bool = False,
    exclude: Sequence[str] = (),
    any_ending: bool = False,
) -> Found:
    """The photos among and in what was given, by the rule of :mod:`.photofiles`, always in the same order.

    A folder that is given alone is the root of its results; several keep their names. The folder of the results is left
    out.

    Args:
        exclude: patterns of photos and folders, see :func:`colorization.files.photofiles.matches`.
        any_ending: take pictures whose ending is not one of a photo, too. Their relative path has the ending of their
            type behind their own.

    Raises:
        InputError: ``output`` is one of the folders.
    """
    found = Found()
    for path in given:
        if not path.is_dir():  # one that is named is taken whatever its ending
            ending = None if photofiles.is_photo(path.name) else pictures.ending_of(path)
            found.photos.append((path, PurePosixPath(path.name + (ending or ""))))
            continue
        if locations.same(output, path):
            raise InputError(f"-o {output}: is the folder of the photos; choose another, which may lie in it")
        base = PurePosixPath() if len(given) == 1 else PurePosixPath(path.resolve().name)
        _search_folder(path, base, output, recursive, exclude, any_ending, found)
    return found


def _search_folder(
    root: Location,
    base: PurePosixPath,
    output: Location,
    recursive: bool,
    exclude: Sequence[str],
    any_ending: bool,
    found: Found,
) -> None:
    def unreadable(error: OSError) -> None:
        found.failed.append((Path(error.filename) if error.filename else root, reason(error)))

    def enter(folder: Location) -> bool:
        if locations.same(output, folder):
            return False
        if not recursive:
            found.skipped.append((folder, "a folder; --recursive goes into it"))
        elif photofiles.is_photo(folder.name):
            found.skipped.append((folder, "a folder, not a photo; what is in it is colorized"))
        return recursive

    left_out = LeftOut()
    for folder, below, names in photofiles.walk(root, exclude, left_out, unreadable, enter):
        found.photos += [(folder / name, base / below / name) for name in names]
    found.skipped += [(root / link, "a link to a folder is not followed") for link in left_out.links]
    if any_ending:
        endings = [pictures.ending_of(file) for file in left_out.others]
        for file, ending in zip(left_out.others, endings, strict=True):
            if ending is not None:
                found.photos.append((file, base / photofiles.relative(file.with_name(file.name + ending), root)))
        left_out.others = [file for file, ending in zip(left_out.others, endings, strict=True) if ending is None]
    elif not is_remote(root):
        found.pictures += sum(pictures.ending_of(file) is not None for file in left_out.others[:_LOOKED_INTO])
    found.left_out.add(left_out)


def plan(
    photos: Sequence[tuple[Location, PurePosixPath]],
    output: Location,
    naming: Naming,
    type: str,
    patterns: Sequence[str] = (),
) -> list[Job]:
    """A job for each photo.

    Where the results of several would have one name, the ending of a photo stays in the name of its result, unless it
    is the result's own: ``a.avif`` beside ``a.jpg`` becomes ``a.avif.jpg``. The same goes for what comes beside
    results. It depends on all photos, those that no pattern fits, too.

    Args:
        patterns: if there are any, only photos that one of them fits, see :func:`.photofiles.matches`.

    Raises:
        InputError: two results would still have one name, or a result would replace a photo.
    """
    targets: dict[tuple[Location, PurePosixPath], str] = {}
    wished = Counter(naming.target(name, type) for _, name in dict.fromkeys(photos))  # one may be given twice
    for source, name in photos:
        plain = naming.target(name, type)
        keep_ending = wished[plain] > 1 and plain.suffix != name.suffix
        targets[source, name] = naming.target(name, type, keep_ending).as_posix()
    used = Counter(targets.values())
    used.update(result for target in targets.values() for result in naming.beside(target).values())
    jobs: list[Job] = []
    taken: dict[str, Location] = {}
    sources: dict[str, Location] = {}
    for (source, name), target in targets.items():
        if patterns and not photofiles.matches(name, patterns):
            continue
        beside = naming.beside(target)
        beside = naming.beside(target, keep_ending=any(used[result] > 1 for result in beside.values()))
        for result in (target, *beside.values()):
            if result in taken:
                raise InputError(
                    f"{shown(taken[result])} and {shown(source)} would both become "
                    f'{shown(output / result)}; --name "{{name}}{{suffix}}" would keep them apart, '
                    "and so would separate folders"
                )
            taken[result] = source
        sources[locations.real(source)] = source
        jobs.append(Job(source, target, beside))
    for result in taken:
        if (source := sources.get(locations.real(output / result))) is not None:
            raise InputError(f"-o {output}: would replace {shown(source)} itself; choose another folder")
    return jobs


class Manifest:
    """The manifest of a folder of results. Creating the object reads it and writes nothing.

    Attributes:
        run: the line that began the last run; ``None`` before the first.
        records: the last line that says done or skipped, by target.

    Raises:
        InputError: it is not one of these, or damaged other than by a crash.
    """

    def __init__(self, output: Location) -> None:
        path = output / MANIFEST
        self.run: dict[str, Any] | None = None
        self.records: dict[str, dict[str, Any]] = {}
        self._log = locations.log(path, output / WORK / "manifest")
        for number, line in enumerate(self._log.read().splitlines(), 1):
            try:
                row = json.loads(line)
                if row["schema"] != SCHEMA:
                    raise InputError(f"{path}: written by another version (schema {row['schema']})")
                if "run" in row:
                    self.run = row["run"]
                elif row["state"] != "failed" and row["target"]:
                    self.records[row["target"]] = row
            except (ValueError, LookupError, TypeError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{path}: line {number} is damaged; repair it, or choose another -o") from error

    def begin(self, run: dict[str, Any]) -> None:
        """Write the line that begins a run."""
        self._log.begin()
        self.append(run=run)

    def append(self, **row: Any) -> None:
        """Write a line, whole or not at all; from any thread. Raises ``OSError``."""
        self._log.append(json.dumps({"schema": SCHEMA, **row}, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """At the end of a run."""
        self._log.close()


def chosen_before(manifest: Manifest, key: str) -> str:
    """What ``auto`` meant for ``key`` (``backend`` or ``device``) in the run before: what is best may have changed."""
    meant = set(manifest.run["recipe"][key]) if manifest.run else set()
    return meant.pop() if len(meant) == 1 else "auto"


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What two recipes do not share, each as ``key: before, now``."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {_short(a)}, is {_short(b)}")
    return found


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value))
    return value[:12] if isinstance(value, str) else json.dumps(value)


def _is(path: Location, recorded: dict[str, Any], known: Mapping[Location, Version], later: int = 0) -> bool:
    """Whether a file is the recorded one: by its size and time; where the time differs, by its hash.

    Args:
        known: what :func:`locations.versions` found of files elsewhere.
        later: ns by which its time there may be later.
    """
    try:
        size, modified = known.get(path) or locations.version(path)
        if size != recorded["bytes"]:
            return False
        if is_remote(path) and modified and 0 <= modified - recorded["mtime_ns"] <= later:
            return True
        return (modified and modified == recorded["mtime_ns"]) or sha256(path) == recorded["sha256"]
    except OSError:
        return False


def _traceback(error: Exception) -> str | None:
    """Of a bug; ``None`` for what photos, disks and memories do."""
    return None if isinstance(error, InputError | InColour | OSError | MemoryError) else traceback.format_exc()


def reason(error: BaseException, source: Location | None = None) -> str:
    """Why it did not work, in one line and without the photo's path."""
    if isinstance(error, MemoryError):
        return "not enough memory for it"
    if isinstance(error, OSError) and not error.strerror:
        return shown(str(error))
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename not in (None, str(source)) else ""
        return shown(f"{error.strerror}{where}")
    if isinstance(error, InputError):
        return shown(str(error).removeprefix(f"{shown(source or '')}: "))
    return shown(f"{type(error).__name__}: {error}")


@contextmanager
def locked(output: Location) -> Iterator[None]:
    """Sole use of a folder of results, which is made; what a killed run left there goes.

    Raises:
        InputError: another process has it. (What one that was killed held went with it; elsewhere it takes a while.)
        OSError: it cannot be written.
    """
    work = output / WORK
    locations.make_folder(work)
    with ExitStack() as stack:
        try:
            stack.enter_context(locations.lock(work / "lock"))
        except Timeout as error:
            wait = f"wait (one that was killed counts for {Lease.OVER:.0f} s)" if is_remote(output) else "wait"
            raise InputError(
                f"-o {output}: another process is colorizing into this folder; {wait}, or choose another"
            ) from error
        for left in work.glob("photo-*"):
            locations.remove(left)
        yield


@dataclass
class Summary:
    """How a run ended: counts of photos.

    Attributes:
        done, skipped, failed: in this run; ``finished`` in those before it.
        left: what a stop left to do.
        seconds: wall time.
        stopped: why it stopped early, ``None`` if it did not; ``signum`` if by a signal.
        warned: of those that are done, with a warning.
        lines: one for each that was skipped or failed, or done with a warning.
        note: what was left out.
    """

    done: int = 0
    finished: int = 0
    skipped: int = 0
    failed: int = 0
    warned: int = 0
    left: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    signum: int | None = None
    lines: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def exit_code(self) -> int:
        """0 when nothing failed and nothing is left, 128 + its number after a signal, else 1."""
        if self.signum is not None:
            return 128 + self.signum
        return 1 if self.failed or self.stopped else 0

    def __str__(self) -> str:
        before = f" ({self.finished} more were finished before)" if self.finished else ""
        rate = f"{self.done / self.seconds:.1f} images/s, " if self.done else ""
        done = f"done {self.done}" + (f" ({self.warned} with a warning)" if self.warned else "") + before
        text = f"{done}, skipped {self.skipped}, failed {self.failed}; {rate}{self.seconds:.0f} s"
        if self.note:
            text += f"\n{self.note}"
        if self.stopped:
            text += f"\n{self.stopped}; {self.left} photos are left: run the same command to resume"
        return text


@dataclass(frozen=True)
class Outcome:
    """What came of a photo.

    Attributes:
        facts: for its line in the manifest.
        error: why there is no result; ``traceback`` if that is a bug.
    """

    facts: dict[str, Any]
    error: Exception | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Work:
    """What is done to each photo, by whichever process.

    Attributes:
        settings, how, disclose, skip_colored, strict: see :meth:`Colorizer.colorize_file`.
    """

    settings: Settings
    how: Output
    disclose: bool = True
    skip_colored: bool = False
    strict: bool = False

    def __call__(self, colorizer: Colorizer, source: Location, parts: dict[str, Location]) -> Outcome:
        """Colorize a photo into ``parts``: ``target``, and what comes beside it."""
        facts: dict[str, Any] = {}
        source, parts = (
            locations.own_connection(source),
            {key: locations.own_connection(part) for key, part in parts.items()},
        )
        try:
            if not source.is_file() and source.exists():  # reading a pipe would wait forever
                raise Unreadable("not a file")
            before = locations.version(source)
            with locations.local_copy(source) as photo, locations.local_targets(parts) as made:
                facts["input"] = locations.identity(photo, before)
                facts |= colorizer.colorize_file(
                    photo,
                    settings=self.settings,
                    output=self.how,
                    disclose=self.disclose,
                    skip_colored=self.skip_colored,
                    skip_results=True,
                    strict=self.strict,
                    **made,
                )
                if locations.version(source) != before:
                    raise Unreadable("changed while it was read")
                outputs = {key: locations.identity(part) for key, part in made.items()}
            for key, part in parts.items():
                outputs[key]["mtime_ns"] = locations.version(part)[1]
            return Outcome(facts | {"outputs": outputs})
        except Exception as error:  # noqa: BLE001 (one photo that finds a bug must not cost the other 39,999)
            return Outcome(facts, error, _traceback(error))


Colorize = Callable[[Work, Location, dict[str, Location]], Outcome]  # by any number of threads at a time


def in_this_process(colorizer: Colorizer) -> Colorize:
    """Does work without limits. The colorizer's backends should use one thread each."""
    return lambda work, source, parts: work(colorizer, source, parts)


class FolderRun:
    """Colorizes the photos of a plan into a folder of results.

    Args:
        loaded: the weights, part of the recipe.
        colorize: does the :class:`Work` on a photo.
        output: the folder of results, :func:`locked` unless nothing is run.
        manifest: of that folder.
        settings, how, naming, disclose: the rest of the recipe.
        skip_colored: leave photos alone that are in colour, see :func:`colorization.core.color.own_colors`.
        overwrite: go on with another recipe than the manifest's, and replace files that it does not vouch for.
        workers: photos that are done at a time; default one a core.
        strict: fail photos that would be done with a warning, those of former runs, too.

    Raises:
        InputError: the manifest's recipe is another one, and shall not be overwritten.
    """

    _MOVED = 120 * 10**9  # ns that a result may be younger than its line says, where moving it makes it anew

    def __init__(
        self,
        loaded: Sequence[Loaded],
        colorize: Colorize,
        output: Location,
        manifest: Manifest,
        settings: Settings,
        how: Output,
        naming: Naming,
        disclose: bool = True,
        skip_colored: bool = False,
        overwrite: bool = False,
        workers: int | None = None,
        strict: bool = False,
    ) -> None:
        self.output, self.manifest = output, manifest
        self.skip_colored, self.overwrite, self.workers = skip_colored, overwrite, workers or machine.cores()
        self.strict = strict
        self._work = partial(colorize, Work(settings, how, disclose, skip_colored, strict))
        self.recipe = {
            "weights": [each.digest for each in loaded],
            "backend": [each.name for each in loaded],
            "device": [each.device for each in loaded],
            "settings": settings.recipe(),
            "output": asdict(how),
            "naming": asdict(naming),
            "disclose": disclose,
        }
        if manifest.run and not overwrite and (other := differences(manifest.run["recipe"], self.recipe)):
            raise InputError(
                f"-o {output}: its results were made with other settings ({'; '.join(other)}); give "
                "the same settings, choose another -o, or reprocess everything with --overwrite"
            )
        self._stop = threading.Event()
        self._versions: dict[Location, Version] = {}

    def finished(self, job: Job) -> bool:
        """Whether the manifest vouches for a job, and the files are still what it says."""
        record = self.manifest.records.get(job.target)
        if record is None or not _is(job.source, record["input"], self._versions):
            return False
        if record["state"] == "skipped":
            return self.skip_colored or record["reason"] == IS_RESULT
        if self.strict and record.get("warning"):
            return False
        return record["recipe"] == self.recipe and all(
            self._is_result(self.output / o["name"], o) for o in record["outputs"]
        )

    def _is_result(self, path: Location, recorded: dict[str, Any]) -> bool:
        return _is(path, recorded, self._versions, self._MOVED)

    def unfinished(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that are not :meth:`finished`."""
        self._versions = locations.versions(path for job in jobs for path in self._recorded(job))
        with ThreadPoolExecutor(self.workers) as pool:
            return [job for job, done in zip(jobs, pool.map(self.finished, jobs), strict=True) if not done]

    def _recorded(self, job: Job) -> Iterator[Location]:
        if (record := self.manifest.records.get(job.target)) is not None:
            yield job.source
            yield from (self.output / o["name"] for o in record.get("outputs", ()))

    def run(self, jobs: Sequence[Job], found: Found | None = None) -> Summary:
        """Do what is not finished, and tell the rest of ``found``, too.

        SIGINT and SIGTERM finish the photos in hand (a second one does not); a full disk ends the run.
        """
        start, summary = time.perf_counter(), Summary(note=found.note if found else "")
        version = {"version": __version__, "started": utc_now(), "workers": self.workers}
        self.manifest.begin({"recipe": self.recipe, **version})
        for path, why in found.skipped if found else ():
            self._tell(summary, {"source": str(path), "target": None, "state": "skipped", "reason": why})
        for path, why in found.failed if found else ():
            line = {"source": str(path), "target": None, "state": "failed", "error": why}
            self.manifest.append(**line)
            self._tell(summary, line)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the photos are what is done in parallel
        try:
            with _stopping(self._stop, summary), ThreadPoolExecutor(self.workers) as pool:
                todo = self.unfinished(jobs)
                summary.finished, summary.left = len(jobs) - len(todo), len(todo)
                with _progress(len(todo)) as advance:
                    for future in as_completed([pool.submit(self._attempt, job) for job in todo]):
                        if (row := future.result()) is None:
                            continue
                        if isinstance(row, OSError):
                            summary.stopped = f"stopped: {reason(row)}"
                            continue
                        summary.left -= 1
                        self._tell(summary, row)
                        advance()
        finally:
            cv2.setNumThreads(threads)
        try:
            self.manifest.close()
        except OSError as error:
            summary.stopped = summary.stopped or f"stopped: {reason(error)}"
        summary.seconds = time.perf_counter() - start
        return summary

    def _tell(self, summary: Summary, row: dict[str, Any]) -> None:
        """Count it, and write a line about what was not done, or not wholly."""
        state, warning = row["state"], row.get("warning")
        setattr(summary, state, getattr(summary, state) + 1)
        if state == "done" and warning:
            summary.warned += 1
            state = "warning"
        if state != "done":
            line = f"{state}: {shown(row['source'])}: {row.get('error') or row.get('reason') or shown(warning)}"
            summary.lines.append(line)
            tqdm.write(line, file=sys.stderr)

    def _attempt(self, job: Job) -> dict[str, Any] | OSError | None:
        """The line of a job; ``None`` where the run stops before it, the error if it has to stop here."""
        if self._stop.is_set():
            return None
        row: dict[str, Any] = {"source": str(job.source), "target": job.target}
        try:
            return self._colorize(job, row)
        except InColour as colours:
            row |= {"state": "skipped", "reason": str(colours)}
        except Exception as error:  # noqa: BLE001 (nor a bug of ours here)
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                self._stop.set()
                return error
            row |= {"state": "failed", "error": reason(error, job.source)}
            if "traceback" not in row and (trace := _traceback(error)):
                row["traceback"] = trace
        try:
            self.manifest.append(**row, recipe=self.recipe)
        except OSError as error:
            self._stop.set()
            return error
        return row

    def _colorize(self, job: Job, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        names = {"target": job.target, **job.beside}
        for name in names.values():
            self._check_free(name, job)
        output = locations.own_connection(self.output)
        locations.make_folder((output / job.target).parent)
        with locations.scratch(output / WORK, "photo-") as folder:
            parts = {key: folder / f"{key}{PurePosixPath(name).suffix}" for key, name in names.items()}
            outcome = self._work(job.source, parts)
            row |= outcome.facts
            if outcome.error is not None:
                if outcome.traceback:
                    row["traceback"] = outcome.traceback
                raise outcome.error
            outputs = [{"name": names[key], **identity} for key, identity in row["outputs"].items()]
            row |= {"state": "done", "outputs": outputs, "seconds": round(time.perf_counter() - start, 3)}
            # The line comes first: a result is then never without one, and the rest is seen to be missing.
            self.manifest.append(**row, recipe=self.recipe)
            for key, part in parts.items():
                locations.move(part, output / names[key])
        return row

    def _check_free(self, name: str, job: Job) -> None:
        path = locations.own_connection(self.output / name)
        if self.overwrite or not path.exists() or (path.is_file() and not locations.version(path)[0]):
            return
        for recorded in self.manifest.records.get(job.target, {}).get("outputs", ()):
            if recorded["name"] == name and self._is_result(path, recorded):
                return
        raise InputError(f"{path} already exists, and not as this program left it; --overwrite replaces it")


@contextmanager
def _stopping(stop: threading.Event, summary: Summary) -> Iterator[None]:
    """Within this context SIGINT and SIGTERM set ``stop`` and are told to ``summary``; a second one ends it all."""

    def handle(signum: int, frame: FrameType | None) -> None:
        if summary.signum is not None:
            os._exit(128 + signum)
        summary.signum, summary.stopped = signum, f"stopped by {signal.Signals(signum).name}"
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar with rate and time left on a terminal, else now and then a line; the value is called once a photo."""
    terminal = sys.stderr.isatty()
    start = last = time.monotonic()
    with tqdm(total=total, unit=" images", file=sys.stderr, disable=not terminal, dynamic_ncols=True) as bar:
        done = 0

        def advance() -> None:
            nonlocal done, last
            done += 1
            bar.update()
            now = time.monotonic()
            if not terminal and now - last >= _PLAIN_EVERY:
                last, rate = now, done / (now - start)
                left = tqdm.format_interval((total - done) / rate)
                print(f"{done} of {total} ({rate:.1f} images/s, {left} left)", file=sys.stderr, flush=True)

        yield advance
