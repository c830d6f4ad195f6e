/** How photos are colorized: what a person chooses, and the form that the server gets. */
import type { Schemas } from '@/api/client'
import type { Option } from '@/components/ui/Select.vue'

type Result = Schemas['ResultOut']
/** What `POST /api/colorize` answers, with its nulls as they are. */
export type Answer = Omit<Schemas['ColorizeOut'], 'uncertainty' | 'truth' | 'metrics'> & {
  uncertainty: Result | null
  truth: Result | null
  metrics: Schemas['ScoresOut'] | null
}

export type Mode = 'grey' | 'color'

export interface Options {
  weights: string
  /** Short side of what the network sees; `null`: as it was trained. */
  size: number | null
  strength: number
  saturation: number
  /** From the likeliest colours (0) to the boldest (1); `null`: the weights' own. */
  vividness: number | null
  flips: boolean
  uncertainty: boolean
  mode: Mode
  format: string
}

export const defaults = (): Options => ({
  weights: 'shipped-classes',
  size: null,
  strength: 1,
  saturation: 1,
  vividness: null,
  flips: false,
  uncertainty: false,
  mode: 'grey',
  format: 'same',
})

/** The form, without the files. */
export function formOf(options: Options): FormData {
  const form = new FormData()
  for (const [name, value] of Object.entries(options)) if (value !== null) form.append(name, String(value))
  return form
}

export const SIZES: Option<number | null>[] = [
  { value: null, label: 'As it was trained' },
  ...[64, 128, 192, 256, 384, 512].map((size) => ({ value: size, label: `${size} px` })),
]

export const FORMATS: Option<string>[] = [
  { value: 'same', label: 'As the photo' },
  { value: 'jpeg', label: 'JPEG' },
  { value: 'png', label: 'PNG, lossless' },
  { value: 'tiff', label: 'TIFF, lossless' },
  { value: 'webp', label: 'WebP' },
]

/** All weights, under their models; those that ship first. */
export function weightsOptions(models: readonly Schemas['ModelOut'][]): Option<string>[] {
  const all = models.flatMap((model) =>
    model.weights.map((it) => ({
      value: it.id,
      label: it.kind === 'shipped' ? `${model.title}, ships with the program` : weightsLabel(it),
      group: it.kind === 'shipped' ? 'Shipped' : model.title,
    })),
  )
  return [...all.filter((it) => it.group === 'Shipped'), ...all.filter((it) => it.group !== 'Shipped')]
}

function weightsLabel(it: Schemas['WeightsOut']): string {
  const which = ({ best: 'best', last: 'newest' } as Partial<Record<string, string>>)[it.kind]
  return which && it.run ? `${it.run}, ${which}` : it.id
}
