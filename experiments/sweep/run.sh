#!/bin/sh
# Five knobs of the U-Net on CIFAR-10, 24 trials of four half epochs; see README.md beside this file.
#   experiments/sweep/run.sh DATA [override ...]        (DATA holds cifar10-jpeg.tar.xz)
# Interrupted, the same command resumes the current trial.
set -eu
data=$1; shift
out=${OUT:-outputs}
python=${PYTHON:-python}
trial="'experiment=cifar10/sweep','datamodule.archive=$data/cifar10-jpeg.tar.xz','datamodule.data_dir=$out/cache'"
$python -m colorization.sweep name=unet-knobs trials=24 paths.output_dir="$out" overrides="[$trial]" "$@"
cp "$out/sweeps/unet-knobs/trials.csv" "$out/sweeps/unet-knobs/importance.csv" "$out/sweeps/unet-knobs/importance.png" "$(dirname "$0")"
