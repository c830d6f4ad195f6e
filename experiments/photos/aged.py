"""What the marks of age cost: colours for aged copies of test photographs against those for the photographs themselves.

python experiments/photos/aged.py DATA/test shipped-classes outputs/runs/mine/weights.safetensors

The colours are judged on the true lightness, so that the marks themselves do not count.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import cv2
import numpy as np

from colorization import Colorizer
from colorization.core import color
from colorization.data.augment import Augment
from colorization.evaluation.statistics import bootstrap
from colorization.files.pictures import read_rgb

EVERY, SIDE = 5, 128  # each fifth photograph, in pixels


def main() -> None:
    """Print one line for each of the weights."""
    folder, *weights = sys.argv[1:]
    files = sorted(f for f in Path(folder).rglob("*") if f.is_file())[::EVERY]
    augment = Augment(SIDE, train=False, damage=1.0)
    assert augment.damage is not None
    photos = []
    for number, file in enumerate(files):
        rgb = augment.cut(np.asarray(read_rgb(file))).transpose(2, 0, 1)
        clean = color.grey_codes(rgb)[0]
        augment.damage.set_random_state(np.random.default_rng(number), random.Random(number))
        photos.append((color.rgb_to_lab(rgb), clean, augment.damage(image=clean)["image"]))
    print(f"| {len(photos)} photographs | ΔE2000 ↓ | aged | aged − as they are, paired | CF | aged |")
    print("|---|---|---|---|---|---|")
    for name in ["grey", *weights]:
        colorizer = None if name == "grey" else Colorizer.load(name)
        errors, chroma = np.zeros((2, 2, len(photos)))
        for number, (truth, *inputs) in enumerate(photos):
            for which, grey in enumerate(inputs):
                ab = np.zeros_like(truth[1:])
                if colorizer is not None:
                    predicted = np.moveaxis(colorizer.predict(grey).ab, 0, 2)
                    ab = np.moveaxis(cv2.resize(predicted, (SIDE, SIDE)), 2, 0) * color.AB_SCALE
                shown = color.lab_to_rgb(np.concatenate((truth[:1], ab)))
                errors[which, number] = color.delta_e2000(color.rgb_to_lab(shown), truth).mean()
                chroma[which, number] = color.colorfulness(shown)
        difference = errors[1] - errors[0]
        low, high = bootstrap(lambda i, d=difference: d[i].mean(1), len(photos), 2000, 42) or (np.nan, np.nan)
        cells = [f"{errors[0].mean():.2f}", f"{errors[1].mean():.2f}"]
        cells += [f"{difference.mean():.2f} [{low:.2f}, {high:.2f}]", *(f"{c.mean():.1f}" for c in chroma)]
        print(f"| `{Path(name).stem}` | " + " | ".join(cells).replace("-", "−") + " |")


if __name__ == "__main__":
    main()
