"""The console script ``colorize``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from colorization import __version__
from colorization.core import trusted
from colorization.core.errors import InputError
from colorization.core.machine import cores, keep_freed_memory, print_all_letters
from colorization.files.locations import is_remote, location
from colorization.models.weights import DEFAULT_WEIGHTS

if TYPE_CHECKING:
    from colorization.colorize.bounded import Bounded
    from colorization.colorize.colorizer import Settings

_DESCRIPTION = """\
Colorize photographs at their full resolution: any size, nothing but colour added.

  colorize photo.jpg -o colour.jpg              one photo
  colorize scans -o colour --recursive          a folder and all below it, as the same tree
  colorize scans -o colour --recursive --dry-run     what that would do
"""
_EPILOG = """\
A folder of results holds a manifest (manifest.jsonl: one line a photo, with hashes, settings, seconds and errors).
If it is stopped or killed, run the same command to resume: finished photos are skipped, new and changed ones are
done, failed ones are tried again. Originals and files that are not in the manifest are never replaced.

Exit code: 0 nothing failed; 1 some photos failed, or the disk is full; 2 nothing could start;
130 or 143 stopped by Ctrl-C or SIGTERM, after the photos that were begun (a second one does not wait for them).
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of this command."""
    from colorization.colorize.bounded import SECONDS
    from colorization.core.color import MERGES, OWN_COLORS
    from colorization.files.photofiles import TYPES
    from colorization.files.writing import Output
    from colorization.models.loading import NAMES

    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="photographs, or folders of them; a folder may be a URL (s3://...)"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a folder, or its URL; for one photo a file"
    )
    parser.add_argument("--version", action="version", version=__version__)

    group = parser.add_argument_group("which photos")
    group.add_argument(
        "-r",
        "--recursive",
        action="store_true",
        help="search subfolders, too; hidden files, files of the system and linked folders are always skipped",
    )
    group.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="GLOB",
        help="only matching names, e.g. '1950*' or, with a slash, paths: '*/prints/*'; may be repeated",
    )
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="GLOB",
        help="skip matching photos and folders, e.g. 'thumbs' or '*-small.jpg'; may be repeated",
    )
    group.add_argument(
        "--any-ending", action="store_true", help="also take pictures whose names have an unusual ending, or none"
    )
    group.add_argument("--limit", type=int, metavar="N", help="only the first N")
    group.add_argument(
        "--skip-colored",
        action="store_true",
        help="skip photos that are already in colour (own colorfulness "
        f"{OWN_COLORS:.0f} or more; toned prints score lower)",
    )
    group.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")

    group = parser.add_argument_group("how they are colorized")
    group.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let weights run the network code of this package; may be repeated",
    )
    group.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        metavar="W",
        help="files, run ids or shipped-<name>, several are merged; default: $COLORIZATION_WEIGHTS, then "
        f"{DEFAULT_WEIGHTS}",
    )
    group.add_argument("--merge", choices=MERGES, default=MERGES[0], help="of several weights; default %(default)s")
    group.add_argument(
        "--size", type=_size, metavar="N", help="model input size: its short side in pixels; default: as trained"
    )
    group.add_argument(
        "--vividness",
        type=float,
        metavar="X",
        help="from 0 (the likeliest colours) to 1 (the boldest), for weights that have it; default: their own",
    )
    group.add_argument("--saturation", type=float, default=1.0, metavar="X", help="factor on the colours; default 1")
    group.add_argument("--strength", type=float, default=1.0, metavar="X", help="from 0 (grey) to 1 (default)")
    group.add_argument("--flips", action="store_true", help="average with the mirror image: steadier, twice the time")

    group = parser.add_argument_group("colours that you know")
    group.add_argument(
        "--hint",
        action="append",
        default=[],
        metavar="X,Y,COLOUR",
        help="the colour at a place of one photo: 120,340,#3b5a8c (pixels from the top left) or 0.4,0.2,navy (shares "
        "of width and height); may be repeated",
    )
    group.add_argument(
        "--hints",
        type=Path,
        metavar="FILE",
        help="colours and settings of an earlier result: the NAME.hints.json that was written beside it; options that "
        "are given win",
    )
    group.add_argument(
        "--palette",
        metavar="COLOURS",
        help="colours that shall be in it, e.g. 'navy,#c8a27a'; for weights that take one",
    )

    group.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="another answer, which the weights draw from what they think possible; each number is one; for weights "
        "that take hints",
    )

    group = parser.add_argument_group("how they are written")
    group.add_argument(
        "--type", choices=("same", *TYPES), help="of the files in a folder; default: same as the original's"
    )
    group.add_argument(
        "--quality", type=int, default=Output().quality, metavar="Q", help="of JPEG and WebP; default %(default)s"
    )
    group.add_argument(
        "--name",
        metavar="TEMPLATE",
        help="in a folder, e.g. '{stem}-colour{suffix}'; {name} is the whole name; default '{stem}{suffix}'",
    )
    group.add_argument(
        "--strip", action="store_true", help="also write NAME-strip.jpg beside each result: before and after"
    )
    group.add_argument(
        "--uncertainty",
        action="store_true",
        help="also write NAME-uncertainty.png beside each result: a heat map of where the colours are guesses",
    )
    group.add_argument(
        "--no-disclosure",
        action="store_true",
        help="leave out the tag that says that software made the colours, and with which weights",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files: results of other settings, and files that this command did not write",
    )

    group.add_argument(
        "--strict",
        action="store_true",
        help="fail photos that are damaged or lose a part (further frames, metadata); default: colorize with a warning",
    )

    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--backend", default="auto", choices=("auto", *NAMES), help="default: auto, the fastest of those measured here"
    )
    group.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    group.add_argument(
        "--engine",
        default="local",
        choices=("local", "ray"),
        help="ray: on the workers of the Ray cluster at $RAY_ADDRESS, which must see the same folders; default: local",
    )
    group.add_argument("--workers", type=int, metavar="N", help="photos at a time; default: one a core")
    group.add_argument(
        "--file-timeout",
        type=float,
        default=SECONDS,
        metavar="S",
        help="seconds after which a photo of a folder fails; default %(default)s; 0: no limit of time or memory",
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the summary, and every skipped or failed photo and every warning, to this text file",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "colorize",
        usage="colorize PHOTO|FOLDER... -o OUT [option ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments(parser)
    return parser


def _size(text: str) -> int | None:
    return None if text == "auto" else int(text)


_SETTINGS = ("size", "saturation", "strength", "flips", "merge", "vividness", "seed")


def _settings(options: argparse.Namespace, photo: Path | None = None) -> Settings:
    """How photos are colorized, as asked; hints are for one ``photo``."""
    from colorization.colorize.colorizer import Settings
    from colorization.colorize.hints import Hint, Sidecar
    from colorization.files.pictures import open_picture

    asked = {name: getattr(options, name) for name in _SETTINGS}
    palette = tuple(filter(None, (options.palette or "").split(",")))
    if photo is None:
        for option in ("hint", "hints"):
            if getattr(options, option):
                raise InputError(f"--{option}: is for one photo, not for folders")
        return Settings(**asked, palette=palette)
    before = Sidecar.read(options.hints) if options.hints else Sidecar(())
    hints = before.hints
    if options.hint:
        with open_picture(photo) as picture:
            width, height = picture.sizes[0]
        hints += tuple(Hint.parse(text, width, height) for text in options.hint)
    usual = Settings()
    given = {name: value for name, value in asked.items() if value != getattr(usual, name)}
    try:
        return Settings(**{**before.settings, **given}, hints=hints, palette=palette or before.palette)
    except TypeError as error:  # the file's settings are somebody else's
        raise InputError(f"--hints {options.hints}: its settings cannot be used ({error})") from error


def _is_folder(options: argparse.Namespace) -> bool:
    """Whether ``-o`` means a folder."""
    photos, output = options.photos, options.output
    folder = len(photos) > 1 or photos[0].is_dir() or output.is_dir() or not output.suffix
    if not folder and (is_remote(photos[0]) or is_remote(output)):
        raise InputError(f"-o {output}: single photos are taken from and left on this machine; give folders")
    if folder and output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file; several photos need a folder")
    return folder


def _colorize_one(options: argparse.Namespace) -> int:
    from colorization.colorize import folder
    from colorization.colorize.colorizer import Colorizer, InColour
    from colorization.colorize.hints import Sidecar
    from colorization.core.errors import shown
    from colorization.files.photofiles import TYPES
    from colorization.files.writing import Output

    (photo,), target = options.photos, options.output
    settings, how = _settings(options, photo), Output(quality=options.quality)
    if not any(target.suffix.lower() in suffixes for suffixes in TYPES.values()):
        raise InputError(f"-o {target}: pictures can be written as {', '.join(TYPES)}")
    for option in ("type", "name"):
        if getattr(options, option):
            raise InputError(f"--{option}: is for a folder; -o {target} says it already")
    naming = folder.Naming(strip=options.strip, uncertainty=options.uncertainty)
    beside = {key: target.parent / name for key, name in naming.beside(target.name).items()}
    sidecar = target.with_suffix(".hints.json") if settings.told else None
    for result in (target, *beside.values(), *([sidecar] if sidecar and sidecar != options.hints else ())):
        if result.exists() and photo.exists() and result.samefile(photo):
            raise InputError(f"-o {shown(target)}: would replace {shown(photo)} itself; choose another name")
        if not options.overwrite and result.exists() and not (result.is_file() and not result.stat().st_size):
            raise InputError(f"-o {shown(target)}: {shown(result)} already exists; --overwrite replaces it")
    colorizer = Colorizer.load(options.weights, options.device, options.backend)
    if options.dry_run:
        print(f"would colorize: {shown(photo)} -> {shown(target)}")
        return 0
    line = shown(photo)
    try:
        facts = colorizer.colorize_file(
            photo,
            target,
            settings,
            how,
            disclose=not options.no_disclosure,
            skip_colored=options.skip_colored,
            strict=options.strict,
            **beside,
        )
    except InColour as reason:
        print(f"skipped: {line}: {reason}", file=sys.stderr)
        return 0
    except (InputError, OSError, MemoryError) as error:
        print(f"failed: {line}: {folder.reason(error, photo)}", file=sys.stderr)
        return 1
    if sidecar:
        Sidecar.of(settings, [one.digest for one in colorizer.loaded]).write(sidecar)
    if facts["warning"]:
        print(f"warning: {line}: {shown(facts['warning'])}", file=sys.stderr)
    print(f"{line} -> {shown(target)} ({facts['width']}x{facts['height']}, {facts['seconds']:.1f} s)")
    return 0


def _colorize_folder(options: argparse.Namespace) -> int:
    for option, least in (("limit", 0), ("workers", 1), ("file_timeout", 0)):
        if (value := getattr(options, option)) is not None and value < least:
            raise InputError(f"--{option.replace('_', '-')} {value:g}: should be {least} or more")
    if not options.file_timeout or options.dry_run or options.engine == "ray":
        return _run_folder(options, None)
    from colorization.colorize.bounded import Bounded

    with closing(Bounded(options.workers or cores(), options.file_timeout)) as bounded:
        return _run_folder(options, bounded)


def _run_folder(options: argparse.Namespace, bounded: Bounded | None) -> int:
    from colorization.colorize import folder
    from colorization.colorize.colorizer import Colorizer
    from colorization.core.errors import shown
    from colorization.files.writing import Output

    output = options.output
    settings = _settings(options)
    how = Output(options.type or "same", options.quality)
    naming = folder.Naming(options.name or "{stem}{suffix}", options.strip, options.uncertainty)
    found = folder.search(options.photos, output, options.recursive, options.exclude, options.any_ending)
    jobs = folder.plan(found.photos, output, naming, how.type, options.filter)[: options.limit]
    if not jobs and not found.failed:
        which = f"no photos in {', '.join(map(str, options.photos))}" + (" that match" * bool(options.filter))
        raise InputError(which + (f" ({found.note})" if found.note else ""))

    before = folder.Manifest(output)
    device, backend = (
        folder.chosen_before(before, key) if asked == "auto" and not options.overwrite else asked
        for key, asked in (("device", options.device), ("backend", options.backend))
    )
    workers = options.workers or cores()
    work: folder.Colorize
    if bounded:
        loaded, work = bounded.load(options.weights, device, backend, settings), bounded
    else:
        colorizer = Colorizer.load(options.weights, device, backend, threads=1, measure=not options.dry_run)
        colorizer.check(settings)
        loaded, work = colorizer.loaded, folder.in_this_process(colorizer)
        if options.engine == "ray" and not options.dry_run:
            from colorization.colorize.cluster import Workers

            work = ray = Workers(options.weights, colorizer, options.workers, options.file_timeout or None)
            workers = ray.count

    def prepare() -> folder.FolderRun:
        return folder.FolderRun(
            loaded,
            work,
            output,
            folder.Manifest(output),
            settings,
            how,
            naming,
            disclose=not options.no_disclosure,
            skip_colored=options.skip_colored,
            overwrite=options.overwrite,
            workers=workers,
            strict=options.strict,
        )

    if options.dry_run:
        run = prepare()
        todo = run.unfinished(jobs)
        for job in todo:
            print(f"would colorize: {shown(job.source)} -> {shown(output / job.target)}")
        for state, odd in (("skip", found.skipped), ("fail", found.failed)):
            for path, reason in odd:
                print(f"would {state}: {shown(path)}: {reason}")
        if found.note:
            print(found.note)
        print(f"{len(todo)} to do, {len(jobs) - len(todo)} finished")
        return 0
    with folder.locked(output):
        summary = prepare().run(jobs, found)  # the manifest is read anew: another process may just have ended
    print(summary)
    if options.report:
        options.report.write_text("\n".join([*summary.lines, str(summary), ""]), encoding="utf-8")
    return summary.exit_code


def colorize(given: Sequence[str] | None = None) -> int:
    """``colorize PHOTO|FOLDER... -o OUT``; for the exit code see the end of ``--help``."""
    print_all_letters()
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # the shell asks at a TAB: see colorization.completion
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options=False)
    options = parser.parse_args(given)
    keep_freed_memory()
    try:
        trusted.trust(options.trust)
        options.photos = [location(photo) for photo in options.photos]
        options.output = location(options.output)
        return _colorize_folder(options) if _is_folder(options) else _colorize_one(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of single photos they are told where they happen
        print(f"error: {error.filename or options.output}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(colorize())
