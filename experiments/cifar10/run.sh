#!/bin/sh
# All four stages on all of CIFAR-10, and the ResNet-18 of our own for fusion; see README.md beside this file.
#   experiments/cifar10/run.sh DATA        (DATA holds cifar10-jpeg.tar.xz)
# shellcheck disable=SC2086
set -eu
. "$(dirname "$0")/../common.sh"

# Three seeds for the two cheapest. A seed splits, too: what is validated on differs, what is tested on does not.
for seed in 42 43 44; do
  train cifar10-unet-$seed experiment=cifar10/unet seed=$seed $cifar
  train cifar10-baseline-$seed experiment=cifar10/baseline seed=$seed $cifar
done
train cifar10-gan experiment=cifar10/gan init_weights=cifar10-unet-42 $cifar
train cifar10-gan-100 experiment=cifar10/gan init_weights=cifar10-unet-42 loss.l1_weight=100 $cifar

train cifar10-resnet18 experiment=cifar10/resnet18 $cifar
for resnet in trained random; do
  weights=$out/runs/cifar10-resnet18/resnet18.safetensors
  [ $resnet = random ] && weights=null
  train cifar10-fusion-unet-$resnet experiment=cifar10/fusion-unet model.resnet_weights="$weights" $cifar
  train cifar10-fusion-$resnet experiment=cifar10/fusion init_weights=cifar10-fusion-unet-$resnet $cifar
done

# A ResNet that sees the photographs enlarged, and what that gives to fusion.
train cifar10-resnet18-64 experiment=cifar10/resnet18 model.network.size=64 init_weights=cifar10-resnet18 trainer.max_epochs=6 \
  $cifar
train cifar10-fusion-unet-64 experiment=cifar10/fusion-unet model.network.resnet_size=64 \
  model.resnet_weights="$out/runs/cifar10-resnet18-64/resnet18.safetensors" $cifar

rows() { # name: run, of each seed or ResNet
  _comma=
  for row in "$@"; do
    printf '%s%s: cifar10-%s' "$_comma" "$(echo "$row" | tr - ' ')" "$row"
    _comma=', '
  done
}
on_test="datamodule=cifar10 $cifar datamodule.batch_size=256"
shown="columns=[psnr,ssim,delta_e2000,colorfulness,delta_colorfulness,bleeding,mae,accuracy_2,accuracy_5]"
stages="baseline: cifar10-baseline-42, unet: cifar10-unet-42, gan: cifar10-gan, gan of l1 100: cifar10-gan-100"
stages="$stages, fusion unet: cifar10-fusion-unet-trained, fusion: cifar10-fusion-trained"
evaluate stages "{$stages}" $on_test $shown strips=64 curve=true
evaluate ensemble "[cifar10-unet-42,cifar10-unet-43,cifar10-unet-44,cifar10-fusion-unet-trained]" $on_test $shown \
  ensemble=mean
evaluate resnets "{$(rows fusion-unet-trained fusion-unet-random fusion-trained fusion-random)}" $on_test $shown
evaluate fusions "{$(rows unet-42 fusion-unet-trained fusion-unet-64)}" $on_test $shown ensemble=mean
evaluate seeds "{$(rows baseline-42 baseline-43 baseline-44 unet-42 unet-43 unet-44)}" $on_test $shown
conclude $(cd "$out/runs" && ls -d cifar10-*)
