/** How photos are colorized: what a person chooses, and the form that the server gets. */
import type { Schemas } from '@/api/client'
import type { Value } from '@/api/facts'
import type { Option } from '@/components/ui/Select.vue'

type Result = Schemas['ResultOut']
/** What `POST /api/colorize` answers, with its nulls as they are. */
export type Answer = Omit<Schemas['ColorizeOut'], 'uncertainty' | 'truth' | 'metrics'> & {
  uncertainty: Result | null
  truth: Result | null
  metrics: Schemas['ScoresOut'] | null
}

/** What a person has chosen of the settings; what is not there is as the server has it where nothing is asked. */
export interface Options {
  weights?: string
  mode?: 'grey' | 'color'
  uncertainty?: boolean
  [key: string]: Value | undefined
}

/** The form, without the files. */
export function formOf(options: Options): FormData {
  const form = new FormData()
  for (const [name, value] of Object.entries(options)) if (value != null) form.append(name, String(value))
  return form
}

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
