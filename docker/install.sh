#!/bin/sh
# Installs the project into an environment of its own: install.sh SOURCE ENVIRONMENT [INDEX OF TORCH]
set -eu
source=$1 environment=$2 index=${3:-}
python3 -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check uv
# torch of that index has a longer version (2.9.0+cpu), which is preferred; the other packages come from PyPI.
"$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --compile-bytecode \
  --constraint "$source/constraints.txt" ${index:+--index "$index" --index-strategy unsafe-best-match} "$source[tune,serve]"
"$environment/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check uv
