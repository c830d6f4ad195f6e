"""Weights by id: what a client may name. An id is never a path.

An id is a run's (its weights, while it trains its best so far), or ``shipped-<name>`` of those that come with the
package. A stage's name (``unet``) means the newest finished run of it, else what ships of it.
"""

from __future__ import annotations

from pathlib import Path

from colorization import runs
from colorization.api.problems import invalid
from colorization.inference import shipped_weights

SHIPPED = "shipped-"


def find(id: str, output_dir: Path, field: str = "weights") -> Path:
    """The file of an id.

    Raises:
        Problem: 422, there is none.
    """
    for file in shipped_weights():
        if id == SHIPPED + file.stem:
            return file
    for run in reversed(runs.find_runs(output_dir)):
        if id in (run.id, run.status().get("model")) and run.weights_file.is_file():
            return run.weights_file
    for file in shipped_weights():
        if id == file.stem:
            return file
    raise invalid(field, f"there are no weights {id!r}; GET /api/checkpoints lists them")
