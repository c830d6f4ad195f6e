/** Evaluations as the page reads them: metrics, rows, photos, distributions. */
import type { Schemas } from '@/api/client'
import type { Metric } from '@/api/facts'

export type Evaluation = Schemas['EvaluationOut']
export type Image = Schemas['ImageOut']
/** A figure of a photo; `null` where it was not measured. */
export const valueOf = (image: Image | undefined, name: string) =>
  (image as unknown as Record<string, number | undefined> | undefined)?.[name] ?? null

export interface Figure {
  mean: number | null
  ci95?: readonly [number, number] | null
  median?: number
  /** Why there is none. */
  reason?: string
}

/** Metrics that some row has, as far as tables show them. */
export const measured = (metrics: readonly Metric[], rows: readonly Row[]) =>
  metrics.filter((it) => it.shown && rows.some((row) => figureOf(row, it.name)))

export interface Row {
  name: string
  n: number
  beats_grey?: 'yes' | 'no' | 'undecided'
  weights?: string
  /** Its figures, by the names of the metrics. */
  [metric: string]: unknown
}
export const figureOf = (row: Row | undefined, name: string) => row?.[name] as Figure | undefined
export const meanOf = (row: Row | undefined, name: string) => figureOf(row, name)?.mean ?? null

export const TRIVIAL: Readonly<Record<string, string>> = {
  grey: 'no colour at all',
  'mean colour': 'one colour for all',
}

/** @param coloured only the photos that are not near grey. */
export function rowsOf(evaluation: Pick<Evaluation, 'rows'>, coloured = false): Row[] {
  return evaluation.rows.map((row) => {
    if (!coloured) return row as unknown as Row
    return { ...row, ...(row.without_near_grey as object) } as unknown as Row
  })
}

/** Of the models the row that is best in this metric, of which less is better: the first to be shown. */
export function bestModel(rows: readonly Row[], main: string): Row | undefined {
  const models = rows.filter((it) => !(it.name in TRIVIAL))
  return models.sort((a, b) => (meanOf(a, main) ?? Infinity) - (meanOf(b, main) ?? Infinity))[0]
}

/** Metric -> names of the rows that are best in it; the trivial answers take part. */
export function bestRows(rows: readonly Row[], metrics: readonly Metric[]): Map<string, Set<string>> {
  return new Map(
    metrics
      .filter((it) => it.better)
      .map(({ name, better }) => {
        const means = rows.map((it) => meanOf(it, name)).filter((it) => it !== null)
        const best = better === 'higher' ? Math.max(...means) : Math.min(...means)
        return [name, new Set(rows.filter((it) => meanOf(it, name) === best).map((it) => it.name))]
      }),
  )
}

/** What the paired comparison with grey says of a row, in a sentence. */
export function verdict(row: Row): string {
  if (row.beats_grey === 'yes') return `${row.name} is closer to the true colours than grey, photo by photo.`
  if (row.beats_grey === 'no') return `${row.name} is further from the true colours than grey, photo by photo.`
  return `The difference between ${row.name} and grey is not significant on these photos.`
}

export interface Photo {
  name: string
  trueColorfulness: number
  of: Readonly<Record<string, Image>>
}

/** The figures of each photo under each row, photo by photo, in the order of the evaluation. */
export function photosOf(images: readonly Image[]): Photo[] {
  const photos = new Map<string, Photo & { of: Record<string, Image> }>()
  for (const image of images) {
    let photo = photos.get(image.photo)
    if (!photo)
      photos.set(image.photo, (photo = { name: image.photo, trueColorfulness: image.true_colorfulness, of: {} }))
    photo.of[image.model] = image
  }
  return [...photos.values()]
}

/** A figure of a row less that of grey: of one that should be small, below 0 it did better than doing nothing. */
export function againstGrey(photo: Photo, model: string, name: string): number | null {
  const [it, grey] = [valueOf(photo.of[model], name), valueOf(photo.of.grey, name)]
  return it !== null && grey !== null ? it - grey : null
}

/** Photos with a strip that show what a model can and cannot: its best, a typical and its worst by a figure. */
export function telling(photos: readonly Photo[], model: string, name: string): { photo: Photo; label: string }[] {
  const seen = photos
    .filter((it) => it.of[model]?.strip)
    .sort((a, b) => (valueOf(a.of[model], name) ?? 0) - (valueOf(b.of[model], name) ?? 0))
  const picks = [
    { at: 0, label: 'Closest' },
    { at: Math.floor((seen.length - 1) / 2), label: 'Typical' },
    { at: seen.length - 1, label: 'Furthest' },
  ]
  if (seen.length < picks.length) return seen.map((photo) => ({ photo, label: '' }))
  return picks.map(({ at, label }) => ({ photo: seen[at] as Photo, label }))
}

/** The share of photos, in percent, in each of equal bins over the range of all series: [middle of the bin, share]. */
export function histograms(
  series: readonly { name: string; values: readonly number[] }[],
  bins = 24,
): { name: string; points: [number, number][] }[] {
  let [low, high] = [Infinity, -Infinity]
  for (const { values } of series) {
    for (const it of values) {
      low = Math.min(low, it)
      high = Math.max(high, it)
    }
  }
  if (low > high) return series.map(({ name }) => ({ name, points: [] }))
  const width = (high - low) / bins || 1
  return series.map(({ name, values }) => {
    const counts = new Array<number>(bins).fill(0)
    for (const it of values) {
      const at = Math.min(Math.floor((it - low) / width), bins - 1)
      counts[at] = (counts[at] ?? 0) + 1
    }
    return {
      name,
      points: counts.map((n, at) => [
        Number((low + (at + 0.5) * width).toPrecision(4)),
        values.length ? (100 * n) / values.length : 0,
      ]),
    }
  })
}

export interface Comparison {
  a: string
  b: string
  metric: string
  subset: 'all' | 'without_near_grey'
  mean: number | null
  ci95: readonly [number, number] | null
}

/** Which of the two a paired comparison favours; `null` where its interval holds zero, or there is none. */
export function favoured(it: Comparison, metrics: readonly Metric[]): string | null {
  const better = metrics.find(({ name }) => name === it.metric)?.better
  if (!it.ci95 || !better || (it.ci95[0] <= 0 && it.ci95[1] >= 0)) return null
  return it.ci95[0] > 0 === (better === 'higher') ? it.a : it.b
}

/** `ΔE2000 and LPIPS`, of those of which less, or more, is better. */
export function namesOf(metrics: readonly Metric[], better: 'lower' | 'higher'): string {
  const names = metrics.filter((it) => it.better === better).map((it) => it.label)
  return new Intl.ListFormat('en').format(names)
}

/** The last part of an evaluation's url. */
export const idOf = (url: string) => url.split('/').at(-1) as string
