/** The form of a training: its defaults, the request that it becomes, and the equal command line. */
import type { Schemas } from '@/api/client'

export type StartIn = Schemas['StartIn']
type Given<Key extends keyof StartIn> = NonNullable<StartIn[Key]>

/** What a model's `defaults` say that the form has a field for. */
export interface Defaults {
  epochs: number
  batch_size: number
  lr: number
  l1_weight: number | null
  image_size: number
  image_sizes: Record<string, number>
  seed: number
  lr_schedule: string | null
  network: { width?: number }
}

/** The fields whose defaults come from the config tree; `null`: this model has no such setting. */
export interface Values {
  epochs: number | null
  batch_size: number | null
  image_size: number | null
  lr: number | null
  l1_weight: number | null
  seed: number | null
  width: number | null
  lr_schedule: string | null
  accelerator: string | null
}

export interface Choice {
  model: Given<'model'>
  datamodule: Given<'datamodule'>
  /** A folder below a data root; empty: all of the first root. */
  data: string
  /** What was changed from the defaults. */
  changed: Partial<Values>
  /** Further settings, separated by spaces or lines. */
  more: string
}

export const DATA: Record<Given<'datamodule'>, { label: string; hint: string }> = {
  sample: {
    label: 'Sample photos',
    hint: 'A few photos that are always there. Shows that all works; little is learnt.',
  },
  folder: {
    label: 'Your photos',
    hint: 'A folder below a data root of the server, split by itself for validation and test.',
  },
  coco: { label: 'COCO val2017', hint: '5,000 photos; `make data` downloads them.' },
  cifar10: { label: 'CIFAR-10', hint: '60,000 tiny pictures of 32 × 32; downloaded at the first run.' },
  'imagenet-sample': {
    label: 'ImageNet sample',
    hint: 'One photo of each of 1,000 classes, in `data/imagenet-sample` of the server.',
  },
  photos: {
    label: 'Photos in three folders',
    hint: '`train`, `val` and `test` in the data folder of the server.',
  },
  shards: {
    label: 'Shards',
    hint: 'A folder below a data root that `python -m colorization.pack to=...` wrote.',
  },
}
export const SCHEDULES = [
  { value: 'linear_decay', label: 'Constant, then falling' },
  { value: 'constant', label: 'Constant' },
  { value: 'cosine', label: 'Cosine' },
]
export const ACCELERATORS: Record<Given<'accelerator'>, string> = {
  auto: 'The best that is there',
  cpu: 'Processor',
  cuda: 'NVIDIA GPU',
  mps: 'Apple GPU',
}
const TAKES_FOLDER = ['folder', 'coco', 'shards']
export const takesFolder = (datamodule: string) => TAKES_FOLDER.includes(datamodule)

/** Field -> key of the config tree, as the server has it; the last two go as overrides. */
const KEYS: Record<keyof Values, string> = {
  epochs: 'trainer.max_epochs',
  batch_size: 'datamodule.batch_size',
  image_size: 'datamodule.image_size',
  lr: 'model.optimizer.lr',
  l1_weight: 'loss.l1_weight',
  seed: 'seed',
  accelerator: 'trainer.accelerator',
  width: 'model.network.width',
  lr_schedule: 'model.lr_schedule',
}
const OVERRIDES: readonly string[] = ['width', 'lr_schedule'] satisfies (keyof Values)[]

/** What the fields hold where nothing was changed. */
export function initial(defaults: Defaults, datamodule: string): Values {
  return {
    epochs: defaults.epochs,
    batch_size: defaults.batch_size,
    image_size: defaults.image_sizes[datamodule] ?? defaults.image_size,
    lr: defaults.lr,
    l1_weight: defaults.l1_weight,
    seed: defaults.seed,
    width: defaults.network.width ?? null,
    lr_schedule: defaults.lr_schedule,
    accelerator: 'auto',
  }
}

/** What was changed and holds: of a field that this model has, with another value than its default. */
export function changes(choice: Choice, values: Values): [keyof Values, string | number][] {
  return (Object.keys(KEYS) as (keyof Values)[]).flatMap((key) => {
    const value = choice.changed[key]
    const holds = value != null && values[key] !== null && value !== values[key]
    return holds ? [[key, value] as [keyof Values, string | number]] : []
  })
}

export const words = (more: string) => more.split(/\s+/).filter(Boolean)

/** The body of `POST /api/training/start`. */
export function request(choice: Choice, values: Values): StartIn {
  const found = changes(choice, values)
  const overrides = [
    ...found.filter(([key]) => OVERRIDES.includes(key)).map(([key, value]) => `${KEYS[key]}=${value}`),
    ...words(choice.more),
  ]
  return {
    model: choice.model,
    datamodule: choice.datamodule,
    ...(takesFolder(choice.datamodule) && choice.data ? { data: choice.data } : {}),
    ...Object.fromEntries(found.filter(([key]) => !OVERRIDES.includes(key))),
    ...(overrides.length ? { overrides } : {}),
  }
}

/** A word for a POSIX shell. */
function quoted(word: string): string {
  return /^[\w.,:=/@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

const COMMAND = 'python -m colorization.train'

/** The words of a command line that trains the same. */
export function command({ model, datamodule, data, overrides = [], resume, ...rest }: StartIn): string[] {
  if (resume) {
    const epochs = rest.epochs ? [`${KEYS.epochs}=${rest.epochs}`] : []
    return [COMMAND, `run_id=${quoted(resume)}`, 'ckpt_path=last', ...epochs]
  }
  const settings = Object.entries(rest).map(([key, value]) => `${KEYS[key as keyof Values]}=${String(value)}`)
  // The data root is a setting of the tree; a name with anything special in it is quoted for Hydra too.
  const folder = data && `\${paths.data_dir}/${data}`
  const named = folder && (/^[\w./${}-]+$/.test(folder) ? folder : `'${folder.replaceAll("'", "\\'")}'`)
  const all = [`model=${model}`, `datamodule=${datamodule}`, ...settings, ...overrides]
  return [COMMAND, ...all, ...(named ? [`datamodule.data_dir=${named}`] : [])].map((word, at) =>
    at ? quoted(word) : word,
  )
}

/** A small run that ends in a minute or two on a processor: to see everything work. */
export const TRIAL: Pick<Choice, 'datamodule' | 'data' | 'changed' | 'more'> = {
  datamodule: 'sample',
  data: '',
  changed: { epochs: 5, batch_size: 8, image_size: 64, width: 16 },
  more: '',
}
