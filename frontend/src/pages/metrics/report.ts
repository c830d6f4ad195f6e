/** Evaluations as the page reads them: metrics, rows, photos, distributions. */
import type { Schemas } from '@/api/client'

export type Evaluation = Schemas['EvaluationOut']
export type Image = Schemas['ImageOut']

export interface Figure {
  mean: number | null
  ci95?: readonly [number, number] | null
  median?: number
  /** Why there is none. */
  reason?: string
}

export type MetricKey = 'delta_e2000' | 'psnr' | 'ssim' | 'lpips' | 'colorfulness' | 'delta_colorfulness'

export interface Metric {
  key: MetricKey
  label: string
  unit?: string
  digits: number
  /** Which way is better; `null`: neither, it is to be compared with the truth's. */
  better: 'higher' | 'lower' | null
  text: string
}

export const METRICS: readonly Metric[] = [
  {
    key: 'delta_e2000',
    label: 'ΔE2000',
    digits: 2,
    better: 'lower',
    text: 'mean perceptual colour difference; 1 is just noticeable',
  },
  {
    key: 'psnr',
    label: 'PSNR',
    unit: 'dB',
    digits: 2,
    better: 'higher',
    text: 'on RGB rebuilt from the true lightness; near-grey photos dominate its mean',
  },
  { key: 'ssim', label: 'SSIM', digits: 3, better: 'higher', text: 'structural similarity' },
  { key: 'lpips', label: 'LPIPS', digits: 3, better: 'lower', text: 'distance as AlexNet sees it' },
  { key: 'colorfulness', label: 'CF', digits: 1, better: null, text: 'colorfulness of Hasler and Süsstrunk' },
  {
    key: 'delta_colorfulness',
    label: 'ΔCF',
    digits: 1,
    better: 'lower',
    text: 'how far the mean colorfulness is from the truth’s: large for timid colours',
  },
]
/** Of the summary cards. */
export const CARDS = METRICS.filter((it) => it.key !== 'colorfulness')
/** Of each photo. */
export const OF_PHOTOS = METRICS.filter((it) => it.key !== 'delta_colorfulness')

export interface Row extends Record<MetricKey, Figure> {
  name: string
  n: number
  beats_grey?: 'yes' | 'no' | 'undecided'
  weights?: string
}

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

/** The rows of models, the one with the best ΔE2000 first to be shown. */
export function bestModel(rows: readonly Row[]): Row | undefined {
  const models = rows.filter((it) => !(it.name in TRIVIAL))
  return [...models].sort((a, b) => (a.delta_e2000.mean ?? Infinity) - (b.delta_e2000.mean ?? Infinity))[0]
}

/** Metric -> names of the rows that are best in it; the trivial answers take part. */
export function bestRows(rows: readonly Row[]): Map<MetricKey, Set<string>> {
  return new Map(
    METRICS.filter((it) => it.better).map(({ key, better }) => {
      const means = rows.map((it) => it[key]?.mean).filter((it) => it != null)
      const best = better === 'higher' ? Math.max(...means) : Math.min(...means)
      return [key, new Set(rows.filter((it) => it[key]?.mean === best).map((it) => it.name))]
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

/** ΔE2000 of a row less that of grey: below 0 it did better than doing nothing. */
export function againstGrey(photo: Photo, model: string): number | null {
  const [it, grey] = [photo.of[model], photo.of.grey]
  return it && grey ? it.delta_e2000 - grey.delta_e2000 : null
}

/** Photos with a strip that show what a model can and cannot: its best, a typical and its worst by ΔE2000. */
export function telling(photos: readonly Photo[], model: string): { photo: Photo; label: string }[] {
  const seen = photos
    .filter((it) => it.of[model]?.strip)
    .sort((a, b) => (a.of[model]?.delta_e2000 ?? 0) - (b.of[model]?.delta_e2000 ?? 0))
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
  metric: MetricKey
  subset: 'all' | 'without_near_grey'
  mean: number | null
  ci95: readonly [number, number] | null
}

/** Which of the two a paired comparison favours; `null` where its interval holds zero, or there is none. */
export function favoured(it: Comparison): string | null {
  const better = METRICS.find((metric) => metric.key === it.metric)?.better
  if (!it.ci95 || !better || (it.ci95[0] <= 0 && it.ci95[1] >= 0)) return null
  return it.ci95[0] > 0 === (better === 'higher') ? it.a : it.b
}

/** The last part of an evaluation's url. */
export const idOf = (url: string) => url.split('/').at(-1) as string
