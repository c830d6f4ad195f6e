"""Scale a network's colours by the factor with the smallest mean ΔE2000 on the validation photographs.

    python experiments/first-light/calibrate.py WEIGHTS DATA OUTPUT.safetensors

A network that has seen few photographs is wrong more often than its training loss says, so paler colours are nearer to
the truth. The factor goes into the last convolution, ahead of the squashing that bounds ab, which is linear there.
"""

import sys
from pathlib import Path

import torch

from colorization import checkpoint, color
from colorization.data.datamodules import FolderDataModule

weights, data, output = map(Path, sys.argv[1:])
network, description = checkpoint.load_weights(weights)
module = FolderDataModule(test_dir=str(data / "imagenet-sample" / "val"), image_size=128, batch_size=16)
module.setup()
batches = [color.rgb_to_lab(batch["rgb"]) for batch in module.test_dataloader()]
last = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
original = {name: p.detach().clone() for name, p in last.named_parameters()}


@torch.inference_mode()
def scale_by(factor: float) -> float:
    """Scale the colours; returns the mean ΔE2000 on the validation photographs."""
    for name, parameter in last.named_parameters():
        parameter.copy_(factor * original[name])
    distances = []
    for lab in batches:
        L = color.split(lab)[0]
        _, shown = color.as_shown(color.join(L, network(L)))
        distances.append(color.delta_e2000(shown, lab).mean((-2, -1)))
    return float(torch.cat(distances).mean())


found = {factor / 20: scale_by(factor / 20) for factor in range(8, 25)}
for factor, distance in found.items():
    print(f"{factor:.2f}  {distance:.3f}")
best = min(found, key=found.__getitem__)
scale_by(best)
checkpoint.save_weights(output, network, {**description, "stage": f"{description['stage']}, colours x {best:g}"})
