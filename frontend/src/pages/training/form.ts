/** The form of a training: its defaults, the request that it becomes, and the equal command line. */
import type { Schemas } from '@/api/client'
import type { Setting, Value, Values } from '@/api/facts'

export type StartIn = Schemas['StartIn']

export interface Choice {
  model: string
  datamodule: string
  /** A folder below a data root; empty: all of the first root. */
  data: string
  /** What was changed from the defaults. */
  changed: Values
  /** Further settings, separated by spaces or lines. */
  more: string
}

/** The default of a setting, which follows model or data; `null`: they have no such setting. */
export function initial(setting: Setting, { model, datamodule }: Pick<Choice, 'model' | 'datamodule'>): Value {
  const own = setting.per && { model, datamodule }[setting.per]
  return ((own === null ? setting.default : setting.defaults[own]) ?? null) as Value
}

/** What was changed and holds: of a setting that this model has, with another value than its default. */
export function changes(choice: Choice, settings: readonly Setting[]): [string, Value][] {
  return settings.flatMap((it) => {
    const [value, before] = [choice.changed[it.key] ?? null, initial(it, choice)]
    return value !== null && before !== null && value !== before ? [[it.key, value] as [string, Value]] : []
  })
}

/** Whether this kind of data has a field of the form besides the settings: `data`, a folder. */
export const takes = (datamodule: Setting | undefined, value: string, field: string) =>
  datamodule?.choices.find((it) => it.value === value)?.takes.includes(field) ?? false

export const words = (more: string) => more.split(/\s+/).filter(Boolean)

/** The body of `POST /api/training/start`. */
export function request(choice: Choice, settings: readonly Setting[]): StartIn {
  const overrides = words(choice.more)
  const photos = settings.find((it) => it.key === 'datamodule')
  return {
    model: choice.model,
    datamodule: choice.datamodule as StartIn['datamodule'],
    ...(takes(photos, choice.datamodule, 'data') && choice.data ? { data: choice.data } : {}),
    ...Object.fromEntries(changes(choice, settings)),
    ...(overrides.length ? { overrides } : {}),
  }
}

/** A word for a POSIX shell. */
function quoted(word: string): string {
  return /^[\w.,:=/@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

const COMMAND = 'python -m colorization.train'

/** The words of a command line that trains the same. */
export function command(
  { model, datamodule, data, overrides = [], resume, ...rest }: StartIn,
  forms: readonly Setting[],
): string[] {
  const key = (field: string) => forms.find((it) => it.key === field)?.config ?? field
  if (resume) {
    const epochs = rest.epochs ? [`${key('epochs')}=${rest.epochs}`] : []
    return [COMMAND, `run_id=${quoted(resume)}`, 'ckpt_path=last', ...epochs]
  }
  const settings = Object.entries(rest).map(([field, value]) => `${key(field)}=${String(value)}`)
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
