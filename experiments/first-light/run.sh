#!/bin/sh
# First light: four stages on 810 photographs at 128x128, on two CPU cores; see README.md beside this file.
#   experiments/first-light/run.sh DATA        (DATA holds imagenet-sample/{train,val,test} and cifar10-jpeg.tar.xz)
# A stage whose run is finished is left alone, one that was interrupted goes on.
set -eu
data=$1
out=${OUT:-outputs}
python=${PYTHON:-python}

done_to() { # epochs to which a run is finished, 0 if it is not
  $python -c "import sys; from pathlib import Path; from colorization.runs import Run; s = Run(Path(sys.argv[1])).status(); print(s['max_epochs'] if s.get('state') == 'finished' else 0)" "$out/runs/$1"
}

train() { # id, epochs, then overrides
  id=$1; epochs=$2; shift 2
  [ "$(done_to "$id")" -ge "$epochs" ] && return
  [ -f "$out/runs/$id/checkpoints/last.ckpt" ] && set -- "$@" ckpt_path=last
  $python -m colorization.train run_id="$id" trainer.max_epochs="$epochs" paths.data_dir="$data" paths.output_dir="$out" "$@"
}

unet="model.network.width=32 model.network.depth=5 model.network.dropout=0 model.network.upsampling=nearest"
adamw="model.optimizer._target_=torch.optim.AdamW +model.optimizer.weight_decay=0.01"
ema="callbacks=ema callbacks.ema.decay=0.99"
cosine="model.lr_schedule=cosine model.lr_warmup=0.1"

# The U-Net learns its first colours from CIFAR-10's small photographs and the GAN starts from the U-Net. Fusion, whose
# network is another, starts from nothing; its ResNet is random.
train first-light-cifar10 8 model=unet loss=huber $unet $adamw $cosine model.optimizer.lr=2e-3 \
  datamodule=cifar10 datamodule.archive="$data/cifar10-jpeg.tar.xz" datamodule.data_dir="$out/cache" \
  datamodule.batch_size=128 datamodule.min_colorfulness=0

train first-light-unet 8 experiment=first-light model=unet $unet $adamw $cosine $ema \
  model.optimizer.lr=5e-4 init_weights=first-light-cifar10

train first-light-baseline 8 experiment=first-light model=baseline model.network.width=16 $adamw $cosine $ema \
  model.optimizer.lr=2e-3

monitor=callbacks.best.monitor=val/delta_e2000
train first-light-gan 4 experiment=first-light model=gan $monitor $unet model.discriminator.width=32 $ema \
  init_weights=first-light-unet model.d_lr_factor=0.5

train first-light-fusion 6 experiment=first-light model=fusion $monitor $unet model.discriminator.width=32 $ema \
  model.resnet_weights=null model.network.resnet_size=128 model.warmup_epochs=2

pale=$out/runs/first-light-unet/pale.safetensors
$python experiments/first-light/calibrate.py "$out/runs/first-light-unet/weights.safetensors" "$data" "$pale"

$python -m colorization.eval paths.output_dir="$out" eval_dir="$out/eval/first-light" datamodule.batch_size=8 \
  weights="[first-light-baseline,first-light-unet,'$pale',first-light-gan,first-light-fusion]" \
  datamodule.test_dir="$data/imagenet-sample/test" datamodule.name=imagenet-sample datamodule.image_size=128 strips=99
