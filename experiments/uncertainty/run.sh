#!/bin/sh
# Members that differ in seed, length and size of training, the ensembles of them, and how well disagreement tells error; see README.md.
#   experiments/uncertainty/run.sh DATA        (as experiments/first-light/run.sh, whose CIFAR-10 run they start from)
set -eu
data=$1
out=${OUT:-outputs}
python=${PYTHON:-python}

train() { # seed, epochs, size
  [ -f "$out/runs/member-$1/weights.safetensors" ] || $python -m colorization.train run_id="member-$1" seed="$1" \
    experiment=first-light model=unet trainer.max_epochs="$2" datamodule.image_size="$3" test=false \
    init_weights=first-light-cifar10 model.network.width=32 model.network.depth=5 model.network.dropout=0 \
    model.network.upsampling=nearest model.optimizer._target_=torch.optim.AdamW \
    +model.optimizer.weight_decay=0.01 model.optimizer.lr=1e-3 model.lr_schedule=cosine model.lr_warmup=0.1 \
    callbacks=ema callbacks.ema.decay=0.99 paths.data_dir="$data" paths.output_dir="$out"
}

train 1 5 128
train 2 2 96
train 3 2 96

members="first-light-unet,member-1,member-2,member-3"
for merge in fit median; do
  $python -m colorization.ensemble weights="[$members]" merge=$merge output="$out/$merge.safetensors" \
    paths.output_dir="$out" datamodule.val_dir="$data/imagenet-sample/val" datamodule.batch_size=8
done

$python -m colorization.eval paths.output_dir="$out" eval_dir="$out/eval/uncertainty" datamodule.batch_size=8 strips=0 \
  weights="[$members,'$out/fit.safetensors']" ensemble=mean uncertainty=true \
  datamodule.test_dir="$data/imagenet-sample/test" datamodule.name=imagenet-sample datamodule.image_size=128
