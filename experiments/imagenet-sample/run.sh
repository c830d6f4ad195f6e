#!/bin/sh
# All four stages on 810 photographs at 128x128 and 256x256, and what each part of the U-Net's recipe buys; see README.md.
#   experiments/imagenet-sample/run.sh DATA        (DATA holds imagenet-sample/{train,val,test}; OUT the runs of cifar10/run.sh)
# shellcheck disable=SC2086
set -eu
. "$(dirname "$0")/../common.sh"

for size in 128 256; do
  at="$imagenet datamodule.image_size=$size"
  id=imagenet-$size
  train $id-baseline experiment=imagenet-sample/baseline init_weights=cifar10-baseline-42 $at
  train $id-unet experiment=imagenet-sample/unet init_weights=cifar10-unet-42 $at
  train $id-gan experiment=imagenet-sample/gan init_weights=$id-unet $at
  train $id-fusion-unet experiment=imagenet-sample/fusion-unet init_weights=cifar10-fusion-unet-trained $at
  train $id-fusion experiment=imagenet-sample/fusion init_weights=$id-fusion-unet $at
  rows="baseline: $id-baseline, unet: $id-unet, gan: $id-gan, fusion unet: $id-fusion-unet, fusion: $id-fusion"
  evaluate test-$size "{$rows}" datamodule=imagenet-sample $at strips=99 curve=true stability="[128,256,512]" ensemble=mean
done

# The U-Net at 128x128 with one part of its recipe changed, all else the same.
vary() { # name, then overrides
  name=$1; shift
  train imagenet-128-unet-$name experiment=imagenet-sample/unet $imagenet test=false "$@"
  variants="$variants, $name: imagenet-128-unet-$name"
}
variants="recipe: imagenet-128-unet"
pretrained=init_weights=cifar10-unet-42
vary untrained model.optimizer.lr=2e-3
vary no-ema $pretrained callbacks=default
vary no-augmentation $pretrained datamodule.crop_scale="[1,1]" datamodule.flip=0
vary no-near-grey $pretrained datamodule.min_colorfulness=15
vary l2 $pretrained loss=mse
vary huber-0.05 $pretrained loss.delta=0.05
vary delta-e94 $pretrained loss=delta_e94
vary colorfulness $pretrained loss.colorfulness=0.1
evaluate ablation "{$variants}" datamodule=imagenet-sample $imagenet strips=0

# The GAN without the L1 phase before it: as many epochs in all.
train imagenet-128-gan-cold experiment=imagenet-sample/gan $pretrained trainer.max_epochs=12 $imagenet
evaluate gan-warm-up "{after L1: imagenet-128-gan, at once: imagenet-128-gan-cold}" datamodule=imagenet-sample $imagenet strips=0

# Whether the epoch that the criterion chose beats the last one, on photos that it has not seen: where the learning rate
# falls to zero, and where it stays.
train imagenet-128-gan-constant experiment=imagenet-sample/gan init_weights=imagenet-128-unet trainer.max_epochs=12 \
  model.lr_schedule=constant $imagenet test=false
for run in gan-cold gan-constant; do
  checkpoints=$out/runs/imagenet-128-$run/checkpoints
  evaluate best-last-$run "{best: '$checkpoints/best.ckpt', last: '$checkpoints/last.ckpt'}" datamodule=imagenet-sample \
    $imagenet strips=0
done

# What ships. How colourful is chosen on the validation photographs: of the factors on the colours the one with the lowest
# ΔE2000, for the GAN, which is for those who want colour, none. (Fusion's ResNet alone is larger than all of these.)
evaluate validation-128 "{baseline: imagenet-128-baseline, unet: imagenet-128-unet, gan: imagenet-128-gan}" datamodule=folder \
  datamodule.name=validation datamodule.test_dir="$data/imagenet-sample/val" datamodule.image_size=128 strips=0 curve=true
ship() { # name, run, factor
  $python -m colorization.export weights=$2 format=float16 chroma=$3 output="$out/shipped/$1.safetensors" paths.output_dir="$out"
}
ship baseline imagenet-128-baseline 0.8
ship unet imagenet-128-unet 0.8
ship gan imagenet-256-gan 1
rows="baseline: '$out/shipped/baseline.safetensors', unet: '$out/shipped/unet.safetensors', gan: '$out/shipped/gan.safetensors'"
evaluate shipped "{$rows}" datamodule=imagenet-sample $imagenet strips=99 curve=true
conclude $(cd "$out/runs" && ls -d imagenet-*)
