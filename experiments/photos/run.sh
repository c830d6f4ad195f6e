#!/bin/sh
# Classes of ab on an ImageNet encoder beside the baseline, the U-Net and the GAN, trained on 48,705 photographs at 128x128;
# see README.md.
#   experiments/photos/run.sh DATA        (DATA holds train, val and test, each with a folder for every source)
# shellcheck disable=SC2086
set -eu
. "$(dirname "$0")/../common.sh"

photos="paths.data_dir=$data"
train photos-baseline experiment=photos/baseline $photos
train photos-unet experiment=photos/unet $photos
train photos-gan experiment=photos/gan init_weights=photos-unet $photos
train photos-classes experiment=photos/classes $photos
train photos-classes-more experiment=photos/classes-more init_weights=photos-classes $photos

# Of the last epoch; vividness, temperature, the factor on the colours and the working size are chosen on validation photographs.
shipped=$out/shipped/classes.safetensors
$python -m colorization.export weights="$out/runs/photos-classes-more/checkpoints/last.ckpt" format=float16 output="$shipped" \
  vividness=0.2 temperature=0.55 chroma=1.25 size=160 paths.output_dir="$out"
evaluate validation "{classes: '$shipped'}" datamodule=folder datamodule.name=validation datamodule.test_dir="$data/val" \
  datamodule.image_size=128 strips=0 lpips=false vividness="[0,0.2,0.4,0.6,0.8,1]"

# The same classes with hints, and what a number of points of the truth is worth.
train photos-hinted experiment=photos/hinted init_weights=photos-classes-more $photos
hinted=$out/shipped/hinted.safetensors
$python -m colorization.export weights="$out/runs/photos-hinted/checkpoints/last.ckpt" format=float16 output="$hinted" size=160 paths.output_dir="$out"
evaluate hints "{classes: '$shipped', hinted: '$hinted'}" datamodule=folder datamodule.name=validation datamodule.test_dir="$data/val" \
  datamodule.image_size=128 strips=0 lpips=false hints="[0,1,2,5,10,50,100]"

unet=$out/shipped/unet.safetensors
for stage in baseline unet gan; do
  $python -m colorization.export weights=photos-$stage format=float16 output="$out/shipped/$stage.safetensors" paths.output_dir="$out"
done
rows="unet: '$unet', classes: '$shipped'"
evaluate test "{baseline: '$out/shipped/baseline.safetensors', gan: '$out/shipped/gan.safetensors', $rows}" datamodule=photos $photos strips=0 lpips=false
# Data of another origin, if it is there, and what a classifier that is not the encoder sees in them.
[ ! -d "$data/imagenet-sample" ] || evaluate imagenet-sample "{$rows}" datamodule=imagenet-sample $photos strips=0 \
  judge=tf_efficientnet_lite2 vividness="[0,0.2]" uncertainty=true
# How much colour paper gets, and what the marks of age cost.
[ -n "$tiny" ] || $python "$study/mounts.py" "$data/test" "$unet" "$shipped" > "$study/mounts.md"
[ -n "$tiny" ] || $python "$study/aged.py" "$data/test" "$unet" "$shipped" > "$study/aged.md"
[ -n "$tiny" ] || $python "$study/sources.py" "$out/eval/photos/test/per_image.csv" > "$study/sources.md"
[ -n "$tiny" ] || gzip -9nc "$out/eval/photos/test/per_image.csv" > "$study/test/per_image.csv.gz"
conclude photos-baseline photos-unet photos-gan photos-classes photos-classes-more photos-hinted
