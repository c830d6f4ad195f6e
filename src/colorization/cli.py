"""The console script ``colorize``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from colorization.errors import InputError
from colorization.memory import keep_freed_memory


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "colorize",
        description="Colorize photographs at their full resolution.",
        epilog="Exit code 0: every photo is done.",
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="photographs, grey or colour")
    parser.add_argument("-o", "--output", required=True, type=Path, help="a file, or a folder (for several photos)")
    parser.add_argument(
        "--weights", help="weights file or run id; default: $COLORIZATION_WEIGHTS, else those that ship"
    )
    parser.add_argument(
        "--size", type=int, help="working size of the network, short side in pixels; default: as trained"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    return parser


def output_paths(photos: Sequence[Path], output: Path) -> list[Path]:
    """Where each result goes: ``output`` itself for a single photo unless it is a folder, else a file of the photo's
    name in it.

    Raises:
        InputError: two results would have one name, or a result would replace its photo.
    """
    from PIL import Image

    as_folder = len(photos) > 1 or output.is_dir() or not output.suffix
    if as_folder and output.is_file():
        raise InputError(f"-o {output}: is a file; several photos need a folder")
    targets = [output / photo.name if as_folder else output for photo in photos]
    taken: dict[Path, Path] = {}
    for photo, target in zip(photos, targets, strict=True):
        if target.suffix.lower() not in Image.registered_extensions():
            raise InputError(
                f"-o {target}: pictures cannot be written as {target.suffix or 'a file without an ending'}"
            )
        if target in taken:
            raise InputError(
                f"{photo} and {taken[target]} would both become {target}; colorize them into separate folders"
            )
        if target.exists() and photo.exists() and target.samefile(photo):
            raise InputError(f"-o {output}: would replace {photo} itself; choose another folder")
        taken[target] = photo
    return targets


def colorize(arguments: Sequence[str] | None = None) -> int:
    """``colorize PHOTO... -o OUT``: 0 when every photo is done, 1 when some failed, 2 when nothing could start."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    from colorization.inference import Colorizer, Settings
    from colorization.pictures import Unreadable

    try:
        settings = Settings(options.size)
        targets = output_paths(options.photos, options.output)
        colorizer = Colorizer.load(options.weights, options.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = 0
    for photo, target in zip(options.photos, targets, strict=True):
        try:
            facts = colorizer.colorize_file(photo, target, settings)
        except (Unreadable, OSError) as error:
            print(f"failed: {photo}: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{photo} -> {target} ({facts['width']}x{facts['height']}, {facts['seconds']:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(colorize())
