#!/bin/sh
# Classes of ab on an ImageNet encoder, trained on 48,705 photographs at 128x128; see README.md.
#   experiments/photos/run.sh DATA        (DATA holds train, val and test, each with a folder for every source)
# shellcheck disable=SC2086
set -eu
. "$(dirname "$0")/../common.sh"

photos="paths.data_dir=$data"
train photos-classes experiment=photos/classes $photos
train photos-classes-more experiment=photos/classes-more init_weights=photos-classes $photos

# Vividness, temperature and working size are chosen on the validation photographs.
shipped=$out/shipped/classes.safetensors
$python -m colorization.export weights=photos-classes format=float16 output="$shipped" vividness=0.5 temperature=0.38 \
  size=160 paths.output_dir="$out"
evaluate validation "{classes: '$shipped'}" datamodule=folder datamodule.name=validation datamodule.test_dir="$data/val" \
  datamodule.image_size=128 strips=0 vividness="[0,0.25,0.5,0.75,1]"

rows="unet of 810 photographs: shipped-unet, classes: '$shipped'"
evaluate test "{$rows}" datamodule=photos $photos strips=0
for source in imagenette intel idenprof corel pets houses flowers weather; do
  evaluate test-$source "{$rows}" datamodule=photos $photos datamodule.test_dir="$data/test/$source" strips=0
done
# Data of another origin, if it is there.
[ ! -d "$data/imagenet-sample" ] || evaluate imagenet-sample "{$rows}" datamodule=imagenet-sample $photos strips=0 vividness="[0,0.5]"
[ -n "$tiny" ] || gzip -9nc "$out/eval/photos/test/per_image.csv" > "$study/test/per_image.csv.gz"
conclude photos-classes
