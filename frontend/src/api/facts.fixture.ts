/** A server's facts for unit tests: a few metrics and settings of the kinds that there are. */
import type { Facts, Metric, Setting } from './facts'

const metric = (name: string, label: string, digits: number, better: Metric['better'], more: Partial<Metric> = {}) => ({
  name,
  label,
  title: label,
  unit: '',
  digits,
  better,
  help: `what ${label} says`,
  form: `how ${label} is defined`,
  axis: null,
  shown: true,
  paired: true,
  trained: true,
  of_photos: true,
  ...more,
})
export const setting = (key: string, kind: Setting['kind'], more: Partial<Setting> = {}): Setting => ({
  key,
  label: key,
  help: '',
  kind,
  default: null,
  per: null,
  defaults: {},
  of_network: '',
  low: null,
  above: null,
  high: null,
  step: null,
  usual: null,
  offered: [],
  choices: [],
  none: '',
  config: '',
  further: false,
  ...more,
})
const choice = (value: string, takes: string[] = []) => ({ value, label: value.toUpperCase(), help: '', takes })
const all = (value: unknown) => ({ gan: value, unet: value })

export const FACTS: Facts = {
  main: 'delta_e2000',
  metrics: [
    metric('psnr', 'PSNR', 2, 'higher', { unit: 'dB', axis: [15, 35] }),
    metric('ssim', 'SSIM', 4, 'higher', { axis: [0.6, 1] }),
    metric('lpips', 'LPIPS', 4, 'lower', { axis: [0.5, 0] }),
    metric('delta_e2000', 'ΔE2000', 2, 'lower', { axis: [25, 0] }),
    metric('colorfulness', 'CF', 1, null, { title: 'Colorfulness', paired: false }),
    metric('delta_colorfulness', 'ΔCF', 1, 'lower', { paired: false, of_photos: false }),
    metric('mae', 'MAE', 2, 'lower', { shown: false, trained: false }),
  ],
  logged: [
    { name: 'loss', title: 'Loss', unit: '', digits: 3, better: 'lower', first: true },
    { name: 'lr', title: 'Learning rate', unit: '', digits: 6, better: null, first: true },
    { name: 'peak_memory_mb', title: 'Memory', unit: 'MB', digits: 0, better: null, first: false },
  ],
  weights: 'shipped-classes',
  forms: {
    training: [
      setting('datamodule', 'choice', {
        default: 'folder',
        choices: [choice('folder', ['data']), choice('sample'), choice('cifar10')],
        config: 'datamodule',
      }),
      setting('image_size', 'integer', {
        per: 'datamodule',
        defaults: { folder: 256, sample: 256, cifar10: 32 },
        config: 'datamodule.image_size',
      }),
      setting('epochs', 'integer', { per: 'model', defaults: all(20), config: 'trainer.max_epochs' }),
      setting('batch_size', 'integer', { per: 'model', defaults: all(4), config: 'datamodule.batch_size' }),
      setting('lr', 'number', { per: 'model', defaults: all(2e-4), config: 'model.optimizer.lr' }),
      setting('l1_weight', 'number', { per: 'model', defaults: { gan: 100 }, config: 'loss.l1_weight' }),
      setting('width', 'integer', { per: 'model', defaults: all(64), config: 'model.network.width', further: true }),
      setting('accelerator', 'choice', { per: 'model', defaults: all('auto'), config: 'trainer.accelerator' }),
    ],
    evaluation: [
      setting('image_size', 'integer', { default: 256 }),
      setting('ensemble', 'choice', { choices: [choice('mean'), choice('median')], none: 'No' }),
      setting('uncertainty', 'flag', { default: false }),
    ],
    comparison: [setting('ensemble', 'choice', { default: 'mean', choices: [choice('mean')], none: 'None' })],
    colorize: [setting('size', 'integer', { offered: [64, 128], none: 'As it was trained' })],
  },
}
