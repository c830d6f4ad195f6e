"""How much colour weights give to paper: the mean chroma on the borders and mounts of framed test photographs.

python experiments/photos/mounts.py DATA/test shipped-classes outputs/runs/mine/weights.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from colorization import Colorizer
from colorization.core import color
from colorization.data.augment import Augment, framed
from colorization.files.pictures import read_rgb

EVERY, SIDE = 5, 256  # each fifth photograph, in pixels


def main() -> None:
    """Print one line for each of the weights."""
    folder, *weights = sys.argv[1:]
    files = sorted(f for f in Path(folder).rglob("*") if f.is_file())[::EVERY]
    cut = Augment(SIDE, train=False).cut
    pairs = []
    for number, file in enumerate(files):
        photo = cut(np.asarray(read_rgb(file)))
        pairs.append((photo, framed(photo, np.random.default_rng(number))))
    print(f"| {len(files)} photographs | chroma of paper | above 1 in | chroma of the pictures |")
    print("|---|---|---|---|")
    for name in weights:
        colorizer = Colorizer.load(name)
        paper, picture = [], []
        for photo, mounted in pairs:
            grey = color.grey_codes(mounted.transpose(2, 0, 1))[0]
            result = np.asarray(colorizer.colorize(Image.fromarray(grey))).transpose(2, 0, 1)
            chroma = np.hypot(*color.rgb_to_lab(result)[1:])
            covered = (photo != mounted).any(2)
            if covered.any() and not covered.all():
                paper.append(chroma[covered].mean())
                picture.append(chroma[~covered].mean())
        above = np.mean(np.array(paper) > 1)
        print(f"| `{Path(name).stem}` | {np.mean(paper):.2f} | {above:.0%} | {np.mean(picture):.1f} |")


if __name__ == "__main__":
    main()
