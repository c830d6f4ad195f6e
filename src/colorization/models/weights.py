"""Which weights file a reference means."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from colorization.core.errors import InputError
from colorization.core.runs import Run

DEFAULT_WEIGHTS = "shipped-classes"


def shipped_weights() -> dict[str, Path]:
    """The weights files of the package, by their names, such as ``shipped-unet``."""
    files = [Path(str(f)) for f in resources.files("colorization.weights").iterdir()]
    return {f"shipped-{f.stem}": f for f in sorted(files) if f.suffix == ".safetensors"}


def resolve_weights(reference: str | Path, output_dir: str | Path = "outputs") -> Path:
    """The file that a reference means: a path, ``shipped-<name>``, or the id or folder of a run below ``output_dir``.

    Of a run: ``weights.safetensors``, else (still running, or killed) its best, else its last checkpoint.

    Raises:
        InputError: neither of these, or a run without weights.
    """
    path = Path(reference)
    if path.is_file():
        return path
    if (shipped := shipped_weights().get(str(reference))) is not None:
        return shipped
    run = Run(path if path.is_dir() else Path(output_dir) / "runs" / str(reference))
    for candidate in (run.weights_file, run.best_checkpoint, run.last_checkpoint, run.previous_checkpoint):
        if candidate.is_file():
            return candidate
    if run.status_file.is_file():
        raise InputError(f"weights={reference}: this run has not saved any weights yet")
    raise InputError(f"weights={reference}: neither a file nor a run in {Path(output_dir) / 'runs'}")
