"""A callback for the processes of a distributed run: each tells at the end what it holds."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist


class Probe(pl.Callback):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        digests: dict[str, Any] = {"hashes": {}}
        for name, network in pl_module.named_children():
            digest = hashlib.sha256()
            for tensor in network.state_dict().values():
                digest.update(tensor.cpu().numpy().tobytes())
            digests["hashes"][name] = digest.hexdigest()
        digests["steps"] = [int(next(iter(o.state.values()))["step"]) for o in trainer.optimizers]
        rank = dist.get_rank() if dist.is_initialized() else 0
        (self.folder / f"rank{rank}.json").write_text(json.dumps(digests))
