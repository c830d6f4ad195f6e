"""Memory: what tensors take in an optimizer step of a stage, eight photos at 512x512, in each way to save it.

    python benchmarks/bench_memory.py [--stage gan] [--size 512] [--photos_a_step 8] [--device cpu] [--save]

The weights, their gradients and Adam's state are counted, so that the ratio is that of a real run. No timing: the
figures do not depend on what else the machine does. Takes about ten minutes on two idle cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench_train import Ours, Peak, Watch, quiet
from common import arguments, photos

CHECKPOINTING = "accelerator.activation_checkpointing=true"


def step(stage: str, folder: Path, size: int, device: str, batch: int, batches: int, overrides: list[str]) -> float:
    """MB of an optimizer step of ``batches`` batches of ``batch`` photos: the second, which finds Adam's state."""
    split = [f"datamodule.batch_size={batch}", f"trainer.accumulate_grad_batches={batches}"]
    ours = Ours(stage, folder, size, device, [*split, "datamodule.num_workers=0", *overrides])
    weights = sum(p.nbytes for p in ours.stage.parameters()) / 2**20
    with Peak(ours.device) as peak:
        ours.fit(2 * batches, Watch())
    return weights + peak.mb


def bench(stage: str = "gan", size: int = 512, photos_a_step: int = 8, device: str = "cpu") -> dict[str, Any]:
    """Peak memory of a step, MB, and its share of that of one plain batch."""
    quiet()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = photos(Path(scratch), 2 * photos_a_step)
        for batch, overrides in ((photos_a_step, []), (photos_a_step, [CHECKPOINTING]), (1, []), (1, [CHECKPOINTING])):
            mb = step(stage, folder, size, device, batch, photos_a_step // batch, overrides)
            rows.append(
                {
                    "photos a batch": batch,
                    "accumulated": photos_a_step // batch,
                    "checkpointing": "yes" if overrides else "no",
                    "peak MB": mb,
                    "ratio": mb / (rows[0]["peak MB"] if rows else mb),
                }
            )
    return {"rows": rows, "stage": stage, "size": size}


if __name__ == "__main__":
    arguments(bench)
