/** Comparisons as the page reads them: columns, scores, the radar's scales. */
import type { Schemas } from '@/api/client'
import type { Metric } from '@/api/facts'
import { number } from '@/format'

export type Column = Schemas['ColorizeOut'] & { name: string }
export type File = Schemas['ResultOut']

/** What a finished job `compare` answers with. */
export interface Comparison {
  photo: File
  columns: Column[]
  failed: { name: string; error: string }[]
  /** Metric -> name of the best column. */
  best: Record<string, string>
}

type Scores = NonNullable<Column['metrics']>
export const scoreOf = (scores: Scores | null | undefined, name: string) =>
  (scores as unknown as Record<string, number | null> | null | undefined)?.[name] ?? null

const clamp = (value: number) => Math.min(Math.max(value, 0), 1)

/** How colourful an answer is beside the truth: 1 as much, 0 not at all or twice as much. */
export function likeness(colorfulness: number, truth: number): number {
  return truth > 0 ? clamp(1 - Math.abs(colorfulness - truth) / truth) : 0
}

/** Axes and series of the radar, on fixed scales; metrics that have none, or that no column has, are left out. */
export function radar(columns: readonly Column[], names: (name: string) => string, metrics: readonly Metric[]) {
  const scored = columns.filter((it) => it.metrics)
  const axes = metrics.filter(
    ({ axis, name }) => axis && scored.length > 0 && scored.every((it) => scoreOf(it.metrics, name) !== null),
  )
  const colorfulness = metrics.find((it) => it.name === 'colorfulness')
  return {
    axes,
    labels: [...axes.map((it) => it.label), colorfulness?.title ?? ''],
    series: scored.map((column) => {
      const scores = column.metrics as Scores
      return {
        name: names(column.name),
        values: [
          ...axes.map(({ name, axis }) => {
            const [worst = 0, best = 1] = axis ?? []
            return clamp(((scoreOf(scores, name) ?? NaN) - worst) / (best - worst))
          }),
          likeness(scores.colorfulness ?? 0, scores.true_colorfulness),
        ],
        shown: [
          ...axes.map(({ name, digits }) => number(scoreOf(scores, name), digits)),
          number(scores.colorfulness, colorfulness?.digits),
        ],
      }
    }),
  }
}

/** Below this true colorfulness a photo is near grey: there is hardly a truth to measure against. */
export const NEAR_GREY = 15
