#!/bin/sh
# Installs the wheel without any extra, so without torch, and colorizes a photograph there: the same picture as
# PyTorch's in the development environment. Called by `make archive`; VENV_BIN is that environment's bin folder.
set -eu
. "$(dirname "$0")/build_wheel.sh"
"$VENV_BIN/uv" pip install --quiet --python "$work/venv/bin/python" --compile-bytecode --constraint "$root/constraints.txt" "$work"/dist/*.whl
cd "$work"
export COLORIZATION_CACHE="$work/cache"
if "$work/venv/bin/python" -c 'import torch' 2>/dev/null; then echo "torch is there"; exit 1; fi
photo=$("$VENV_BIN/python" -c 'import skimage; print(skimage.__path__[0])')/data/coffee.png
"$work/venv/bin/colorize" "$photo" -o archive.png
"$work/venv/bin/colorization" doctor
if "$work/venv/bin/colorization" train 2>said; then echo "trained without torch"; exit 1; fi
grep -q '^error: colorization train needs .*lab-colorization\[train\]' said || { cat said; exit 1; }
test "$(wc -l <said)" = 1
"$VENV_BIN/python" - "$photo" <<'PYTHON'
import sys

import numpy as np
from PIL import Image

from colorization import Colorizer

eager = np.asarray(Colorizer.load(device="cpu", backend="torch").colorize(Image.open(sys.argv[1]))).astype(int)
archive = np.asarray(Image.open("archive.png").convert("RGB")).astype(int)
assert eager.shape == archive.shape, (eager.shape, archive.shape)
assert abs(eager - archive).max() <= 1, f"differs by {abs(eager - archive).max()} of 255"
assert np.ptp(archive, axis=2).max() > 10, "the picture is grey"
PYTHON
echo "archive: 1 passed, 0 failed ($(du -sm "$work/venv" | cut -f1) MB installed)"
