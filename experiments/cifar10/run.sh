#!/bin/sh
# All four stages on all of CIFAR-10, and the ResNet-18 of our own for fusion; see README.md beside this file.
#   experiments/cifar10/run.sh DATA        (DATA holds cifar10-jpeg.tar.xz)
# A run that is finished is left alone, one that was interrupted goes on. SCALE=tiny tries everything in some minutes.
set -eu
data=$1
out=${OUT:-outputs}
python=${PYTHON:-python}
cifar="datamodule.archive=$data/cifar10-jpeg.tar.xz datamodule.data_dir=$out/cache"
tiny=
[ "${SCALE:-full}" = tiny ] && tiny="trainer.max_epochs=2 trainer.limit_train_batches=2 trainer.limit_val_batches=2 trainer.limit_test_batches=2 datamodule.batch_size=8 datamodule.num_workers=0 callbacks.ema.decay=0.5 ${TINY:-}"

train() { # id, then overrides
  id=$1; shift
  grep -qs '"state": "finished"' "$out/runs/$id/status.json" && return
  [ -f "$out/runs/$id/checkpoints/last.ckpt" ] && set -- "$@" ckpt_path=last
  # shellcheck disable=SC2086
  $python -m colorization.train run_id="$id" paths.output_dir="$out" $cifar "$@" $tiny
}

# Three seeds for the two cheapest. A seed splits, too: what is validated on differs, what is tested on does not.
for seed in 42 43 44; do
  train cifar10-unet-$seed experiment=cifar10/unet seed=$seed
  train cifar10-baseline-$seed experiment=cifar10/baseline seed=$seed
done
train cifar10-gan experiment=cifar10/gan init_weights=cifar10-unet-42

train cifar10-resnet18 experiment=cifar10/resnet18
for resnet in trained random; do
  weights=$out/runs/cifar10-resnet18/resnet18.safetensors
  [ $resnet = random ] && weights=null
  train cifar10-fusion-unet-$resnet experiment=cifar10/fusion-unet model.resnet_weights="$weights"
  train cifar10-fusion-$resnet experiment=cifar10/fusion init_weights=cifar10-fusion-unet-$resnet
done

evaluate() { # name of the folder below eval/, weights, then overrides
  name=$1; weights=$2; shift 2
  [ -f "$out/eval/$name/metrics.json" ] && return
  # shellcheck disable=SC2086
  $python -m colorization.eval paths.output_dir="$out" eval_dir="$out/eval/$name" datamodule=cifar10 $cifar \
    datamodule.batch_size=256 weights="[$weights]" strips=64 "$@"
}

runs=cifar10-baseline-42,cifar10-baseline-43,cifar10-baseline-44,cifar10-unet-42,cifar10-unet-43,cifar10-unet-44
fusions=cifar10-fusion-unet-random,cifar10-fusion-unet-trained,cifar10-fusion-random,cifar10-fusion-trained
evaluate cifar10 "$runs,cifar10-gan,$fusions"
evaluate cifar10-ensemble cifar10-unet-42,cifar10-unet-43,cifar10-unet-44,cifar10-gan,cifar10-fusion-trained ensemble=mean

# Whether the epoch that the criterion chose beats the last one, on photos that it has not seen: see metrics.json.
for stage in gan fusion-trained; do
  evaluate cifar10-$stage-best-last "$out/runs/cifar10-$stage/checkpoints/best.ckpt,$out/runs/cifar10-$stage/checkpoints/last.ckpt"
done
