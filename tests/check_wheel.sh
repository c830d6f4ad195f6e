#!/bin/sh
# Builds the wheel, installs it in a clean environment and runs it from another folder.
# Called by `make wheel`; VENV_BIN is the bin folder of the development environment.
set -eu
. "$(dirname "$0")/build_wheel.sh"
"$VENV_BIN/uv" pip install --quiet --python "$work/venv/bin/python" --compile-bytecode --constraint "$root/constraints.txt" "$(echo "$work"/dist/*.whl)[train]"
cd "$work"
python=$work/venv/bin/python
where=$("$python" -c 'import colorization; print(colorization.__file__)')
case "$where" in "$work"/*) ;; *) echo "the checkout was imported, not the wheel: $where"; exit 1 ;; esac
if [ -e "$root/src/colorization/web/index.html" ]; then # the web app is served from the wheel
  test -s "$(dirname "$where")/web/index.html" && test -n "$(ls "$(dirname "$where")/web/assets")"
fi
"$python" -m colorization.train model=baseline model.network.width=8 datamodule=sample datamodule.image_size=32 trainer.max_epochs=1 run_id=wheel
"$python" -m colorization.eval weights=wheel datamodule=sample datamodule.image_size=32 eval_dir=eval
test -s outputs/runs/wheel/weights.safetensors
test -s eval/table.md
"$work/venv/bin/colorize" "$("$python" -c 'import skimage; print(skimage.__path__[0])')/data/coffee.png" -o coffee.png
test -s coffee.png
echo "wheel: 1 passed, 0 failed"
