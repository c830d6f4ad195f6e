import { describe, expect, it } from 'vitest'

import { type Choice, command, type Defaults, initial, request } from './form'

const GAN: Defaults = {
  epochs: 20,
  batch_size: 4,
  lr: 2e-4,
  l1_weight: 100,
  image_size: 256,
  image_sizes: { cifar10: 32, folder: 256, sample: 256 },
  seed: 42,
  lr_schedule: 'linear_decay',
  network: { width: 64 },
}
const UNET: Defaults = { ...GAN, l1_weight: null }
const choice = (given: Partial<Choice> = {}): Choice => ({
  model: 'gan',
  datamodule: 'sample',
  data: '',
  changed: {},
  more: '',
  ...given,
})

describe('the form of a training', () => {
  it('asks for nothing but what was changed', () => {
    const values = initial(GAN, 'sample')
    expect(request(choice(), values)).toEqual({ model: 'gan', datamodule: 'sample' })
    expect(request(choice({ changed: { epochs: 5, lr: 2e-4, l1_weight: 10 } }), values)).toEqual({
      model: 'gan',
      datamodule: 'sample',
      epochs: 5,
      l1_weight: 10,
    })
  })

  it('follows model and data', () => {
    expect(initial(GAN, 'cifar10').image_size).toBe(32)
    const changed = { l1_weight: 10 }
    expect(request(choice({ model: 'unet', changed }), initial(UNET, 'sample'))).not.toHaveProperty('l1_weight')
    expect(request(choice({ datamodule: 'sample', data: 'photos' }), initial(GAN, 'sample'))).not.toHaveProperty('data')
    expect(request(choice({ datamodule: 'folder', data: 'photos' }), initial(GAN, 'folder')).data).toBe('photos')
  })

  it('sends settings without a field of their own as overrides', () => {
    const asked = request(
      choice({ changed: { width: 16 }, more: ' callbacks=ema\n test=false ' }),
      initial(GAN, 'sample'),
    )
    expect(asked.overrides).toEqual(['model.network.width=16', 'callbacks=ema', 'test=false'])
  })
})

describe('the equal command line', () => {
  it('names the keys of the config tree', () => {
    expect(
      command({
        model: 'gan',
        datamodule: 'sample',
        epochs: 5,
        lr: 1e-5,
        l1_weight: 10,
        image_size: 64,
        batch_size: 8,
        seed: 1,
        accelerator: 'cpu',
        overrides: ['callbacks=ema', 'datamodule.crop_scale=[0.3,1.0]'],
      }).join(' '),
    ).toBe(
      'python -m colorization.train model=gan datamodule=sample trainer.max_epochs=5 model.optimizer.lr=0.00001 ' +
        'loss.l1_weight=10 datamodule.image_size=64 datamodule.batch_size=8 seed=1 trainer.accelerator=cpu ' +
        "callbacks=ema 'datamodule.crop_scale=[0.3,1.0]'",
    )
  })

  it('names a folder below the data root, whatever is in its name', () => {
    const last = (data: string) => command({ model: 'unet', datamodule: 'folder', data }).at(-1)
    expect(last('coco/val2017')).toBe("'datamodule.data_dir=${paths.data_dir}/coco/val2017'")
    expect(last('my photos')).toBe(`'datamodule.data_dir='\\''\${paths.data_dir}/my photos'\\'''`)
  })

  it('goes on with a run', () => {
    expect(command({ resume: 'unet-1', epochs: 40 }).join(' ')).toBe(
      'python -m colorization.train run_id=unet-1 ckpt_path=last trainer.max_epochs=40',
    )
    expect(command({ resume: 'unet-1' }).join(' ')).toBe('python -m colorization.train run_id=unet-1 ckpt_path=last')
  })
})
