#!/bin/sh
# U-Nets that differ in their seed from the first weight on, their ensembles, and how well disagreement tells error; see README.md.
#   experiments/uncertainty/run.sh DATA        (as imagenet-sample/run.sh; OUT the runs of that and of cifar10/run.sh)
# shellcheck disable=SC2086
set -eu
. "$(dirname "$0")/../common.sh"

rows="seed 42: imagenet-128-unet"
members=imagenet-128-unet
for seed in 43 44; do
  id=imagenet-128-unet-$seed
  train $id experiment=imagenet-sample/unet seed=$seed init_weights=cifar10-unet-$seed $imagenet test=false
  rows="$rows, seed $seed: $id"
  members="$members,$id"
done
for merge in fit median; do
  [ -f "$out/$merge.safetensors" ] || $python -m colorization.ensemble weights="[$members]" merge=$merge \
    output="$out/$merge.safetensors" paths.output_dir="$out" datamodule.val_dir="$data/imagenet-sample/val"
  rows="$rows, $merge: '$out/$merge.safetensors'"
done
evaluate test "{$rows}" datamodule=imagenet-sample $imagenet strips=99 ensemble=mean uncertainty=true
$python experiments/figures.py "$study"
