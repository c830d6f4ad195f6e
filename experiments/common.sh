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

train() { # id, then overrides: a run that is finished is left alone, one that was interrupted goes on
  id=$1; shift
  grep -qs '"state": "finished"' "$out/runs/$id/status.json" && return
  [ -f "$out/runs/$id/checkpoints/last.ckpt" ] && set -- "$@" ckpt_path=last
  # shellcheck disable=SC2086
  $python -m colorization.train run_id="$id" paths.output_dir="$out" "$@" $tiny
}

evaluate() { # name, weights, then overrides: one that is there is left alone; its tables come to the study's folder
  name=$1; weights=$2; shift 2
  folder=$out/eval/$(basename "$study")/$name
  [ -f "$folder/metrics.json" ] && return
  $python -m colorization.eval paths.output_dir="$out" eval_dir="$folder" weights="$weights" "$@"
  [ -n "$tiny" ] && return
  mkdir -p "$study/$name"
  cp "$folder/table.md" "$folder/metrics.json" "$study/$name"
  [ ! -f "$folder/curve.csv" ] || cp "$folder/curve.csv" "$study/$name"
}

conclude() { # runs: how they learnt, and the figures of all tables
  [ -n "$tiny" ] && return
  $python -m colorization.summarize --output-dir "$out" --csv "$study/runs.csv" --epochs "$study/epochs.csv" "$@"
  $python experiments/figures.py "$study"
}
