# What the studies share. DATA is the first argument, OUT holds runs and evaluations, SCALE=tiny tries every step with two
# batches an epoch and keeps nothing here.
study=$(dirname "$0")
data=$1
out=${OUT:-outputs}
python=${PYTHON:-python}
tiny=
[ "${SCALE:-full}" = tiny ] && tiny="trainer.max_epochs=2 trainer.limit_train_batches=2 trainer.limit_val_batches=2 trainer.limit_test_batches=2 datamodule.batch_size=8 datamodule.num_workers=0 ${TINY:-}"

# Where the photographs are, as overrides.
cifar="datamodule.archive=$data/cifar10-jpeg.tar.xz datamodule.data_dir=$out/cache"
imagenet="paths.data_dir=$data"

# (Variables of these functions are the scripts', too: hence the underscores.)
train() { # id, then overrides: a run that is finished is left alone, one that was interrupted goes on
  _run=$1; shift
  grep -qs '"state": "finished"' "$out/runs/$_run/status.json" && return
  [ -f "$out/runs/$_run/status.json" ] && set -- "$@" ckpt_path=last
  # shellcheck disable=SC2086
  $python -m colorization.train run_id="$_run" paths.output_dir="$out" "$@" $tiny
}

evaluate() { # name, weights, then overrides: one that is there is left alone; its tables come to the study's folder
  _name=$1; _weights=$2; shift 2
  _folder=$out/eval/$(basename "$study")/$_name
  [ -f "$_folder/metrics.json" ] && return
  $python -m colorization.eval paths.output_dir="$out" eval_dir="$_folder" weights="$_weights" "$@"
  [ -n "$tiny" ] && return
  mkdir -p "$study/$_name"
  cp "$_folder/table.md" "$_folder/metrics.json" "$study/$_name"
  for _file in curve.csv sparsification.png; do [ ! -f "$_folder/$_file" ] || cp "$_folder/$_file" "$study/$_name"; done
}

conclude() { # runs: how they learnt, and the figures of all tables
  [ -n "$tiny" ] && return
  $python -m colorization.summarize --output-dir "$out" --csv "$study/runs.csv" --epochs "$study/epochs.csv" "$@"
  $python experiments/figures.py "$study"
}
