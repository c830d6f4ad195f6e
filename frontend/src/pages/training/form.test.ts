import { describe, expect, it } from 'vitest'

import { FACTS } from '@/api/facts.fixture'

import { type Choice, command, initial, request } from './form'

const SETTINGS = FACTS.forms.training
const setting = (key: string) => SETTINGS.find((it) => it.key === key)!
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
    expect(request(choice(), SETTINGS)).toEqual({ model: 'gan', datamodule: 'sample' })
    expect(request(choice({ changed: { epochs: 5, lr: 2e-4, l1_weight: 10 } }), SETTINGS)).toEqual({
      model: 'gan',
      datamodule: 'sample',
      epochs: 5,
      l1_weight: 10,
    })
  })

  it('follows model and data', () => {
    expect(initial(setting('image_size'), choice({ datamodule: 'cifar10' }))).toBe(32)
    expect(initial(setting('l1_weight'), choice())).toBe(100)
    expect(initial(setting('l1_weight'), choice({ model: 'unet' }))).toBeNull()
    const changed = { l1_weight: 10 }
    expect(request(choice({ model: 'unet', changed }), SETTINGS)).not.toHaveProperty('l1_weight')
    expect(request(choice({ datamodule: 'sample', data: 'photos' }), SETTINGS)).not.toHaveProperty('data')
    expect(request(choice({ datamodule: 'folder', data: 'photos' }), SETTINGS).data).toBe('photos')
  })

  it('sends settings that no form has as overrides', () => {
    const asked = request(choice({ changed: { width: 16 }, more: ' callbacks=ema\n test=false ' }), SETTINGS)
    expect(asked.overrides).toEqual(['callbacks=ema', 'test=false'])
    expect(asked.width).toBe(16)
  })
})

describe('the equal command line', () => {
  it('names the keys of the config tree', () => {
    expect(
      command(
        {
          model: 'gan',
          datamodule: 'sample',
          epochs: 5,
          lr: 1e-5,
          l1_weight: 10,
          image_size: 64,
          batch_size: 8,
          accelerator: 'cpu',
          overrides: ['callbacks=ema', 'datamodule.crop_scale=[0.3,1.0]'],
        },
        SETTINGS,
      ).join(' '),
    ).toBe(
      'python -m colorization.train model=gan datamodule=sample trainer.max_epochs=5 model.optimizer.lr=0.00001 ' +
        'loss.l1_weight=10 datamodule.image_size=64 datamodule.batch_size=8 trainer.accelerator=cpu ' +
        "callbacks=ema 'datamodule.crop_scale=[0.3,1.0]'",
    )
  })

  it('names a folder below the data root, whatever is in its name', () => {
    const last = (data: string) => command({ model: 'unet', datamodule: 'folder', data }, SETTINGS).at(-1)
    expect(last('coco/val2017')).toBe("'datamodule.data_dir=${paths.data_dir}/coco/val2017'")
    expect(last('my photos')).toBe(`'datamodule.data_dir='\\''\${paths.data_dir}/my photos'\\'''`)
  })

  it('goes on with a run', () => {
    expect(command({ resume: 'unet-1', epochs: 40 }, SETTINGS).join(' ')).toBe(
      'python -m colorization.train run_id=unet-1 ckpt_path=last trainer.max_epochs=40',
    )
    expect(command({ resume: 'unet-1' }, SETTINGS).join(' ')).toBe(
      'python -m colorization.train run_id=unet-1 ckpt_path=last',
    )
  })
})
