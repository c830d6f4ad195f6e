# Sourced: builds the wheel of the checkout $root into $work/dist, beside a clean environment $work/venv; all of $work goes
# at the end. VENV_BIN is the bin folder of the development environment.
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$VENV_BIN/python" -m build --wheel --installer uv --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$VENV_BIN/uv" venv --quiet --python "$VENV_BIN/python" "$work/venv"
