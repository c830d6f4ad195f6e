#!/bin/sh
# bfloat16 against float32: the same short training of a small U-Net on CIFAR-10 with three seeds; see README.md.
#   experiments/precision/run.sh DATA        (DATA holds cifar10-jpeg.tar.xz)
# A finished run is left alone, an interrupted one goes on.
set -eu
data=$1
out=${OUT:-outputs}
python=${PYTHON:-python}

for seed in 1 2 3; do
  for precision in 32-true bf16-mixed; do
    id=precision-$precision-$seed
    grep -qs '"state": "finished"' "$out/runs/$id/status.json" && continue
    last=; [ -f "$out/runs/$id/checkpoints/last.ckpt" ] && last=ckpt_path=last
    $python -m colorization.train run_id="$id" paths.output_dir="$out" seed="$seed" trainer.precision="$precision" $last \
      model=unet loss=huber model.network.width=16 model.network.depth=5 model.network.dropout=0 \
      model.network.upsampling=nearest model.optimizer.lr=2e-3 model.lr_schedule=cosine model.lr_warmup=0.1 \
      datamodule=cifar10 datamodule.archive="$data/cifar10-jpeg.tar.xz" datamodule.data_dir="$out/cache" \
      datamodule.batch_size=64 trainer.max_epochs=1 trainer.limit_train_batches=200 trainer.limit_val_batches=32 test=false
  done
done
$python experiments/precision/table.py "$out"
