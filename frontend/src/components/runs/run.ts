/** What a run has told: merging its events, naming its measures, comparing its settings. */
import type { Schemas } from '@/api/client'
import { logged, metric, metrics } from '@/api/facts'

export type Run = Schemas['RunOut']

/** [step, epoch, value], by step. */
export type Point = readonly [step: number, epoch: number | null, value: number]
/** By tag, as TensorBoard has them: `train/loss`, `val/psnr`. */
export type Curves = Record<string, Point[]>

export interface Sample {
  name: string
  epoch: number | null
  url: string
}

export interface Line {
  number: number
  text: string
}

export interface Told {
  curves: Curves
  samples: Sample[]
  lines: Line[]
  /** The newest that the stream has told. */
  run: Run | null
  deleted: boolean
}

const MOST = 4000 // points of a curve that are kept: beyond, every second one goes

export function untold(): Told {
  return { curves: {}, samples: [], lines: [], run: null, deleted: false }
}

/** Add one event of the stream. What the stream repeats after a lost connection is in its place already. */
export function take(told: Told, type: string, data: unknown): void {
  if (type === 'metrics') {
    const row = data as { step: number; epoch: number | null; split: string; name: string; value: number | null }
    if (row.value === null) return
    const tag = `${row.split}/${row.name}`
    const points = (told.curves[tag] ??= [])
    const last = points.at(-1)
    // A run that goes on from a checkpoint repeats the steps behind it: the newer ones hold.
    if (last && row.step <= last[0]) {
      const from = points.findIndex(([step]) => step >= row.step)
      points.splice(from)
    }
    points.push([row.step, row.epoch, row.value])
    if (points.length > MOST) told.curves[tag] = points.filter((_, at) => at % 2 === 0 || at === points.length - 1)
  } else if (type === 'sample') {
    const sample = data as Sample
    told.samples = [...told.samples.filter((it) => it.name !== sample.name), sample]
  } else if (type === 'log') {
    told.lines.push({ number: told.lines.length + 1, text: (data as { text: string }).text })
  } else if (type === 'status') told.run = data as Run
  else if (type === 'end') {
    if ((data as { state: string }).state === 'deleted') told.deleted = true
    else told.run = data as Run
  }
}

/** The curves of `/api/history/tensorboard-data`, as the stream's. */
export function curvesOf(tags: Schemas['CurvesOut']['tags']): Curves {
  return Object.fromEntries(
    Object.entries(tags).flatMap(([tag, [curve]]) =>
      curve ? [[tag, curve.steps.map((step, at) => [step, curve.epochs[at] ?? null, curve.values[at] ?? NaN])]] : [],
    ),
  ) as Curves
}

/** x and y of a curve: by step, or the mean of each epoch. */
export function along(points: readonly Point[], by: 'step' | 'epoch'): [number, number][] {
  if (by === 'step') return points.map(([step, , value]) => [step, value])
  const epochs = new Map<number, { sum: number; count: number }>()
  for (const [, epoch, value] of points) {
    if (epoch === null) continue
    const one = epochs.get(epoch) ?? { sum: 0, count: 0 }
    epochs.set(epoch, { sum: one.sum + value, count: one.count + 1 })
  }
  return [...epochs]
    .map(([epoch, { sum, count }]): [number, number] => [epoch + 1, sum / count])
    .sort((a, b) => a[0] - b[0])
}

export interface Measure {
  title: string
  /** Digits after the point. */
  digits: number
  /** What is better; nothing where neither is. */
  better?: 'lower' | 'higher'
  unit?: string
}

/** What a metric, or what else a training logs, is called and how it is written; by the server. */
export function measure(name: string, adversarial = false): Measure {
  if (name === 'loss' && adversarial) return { title: 'Generator loss', digits: measure(name).digits }
  const known = metric(name) ?? logged.value.find((it) => it.name === name)
  if (!known) return { title: name.replaceAll('_', ' '), digits: 3 }
  const { title, digits, better, unit } = known
  return { title, digits, ...(better ? { better } : {}), ...(unit ? { unit } : {}) }
}

const isLoss = (name: string) => name.endsWith('loss')
/** What is shown at once; the rest on demand. */
export const first = (name: string) =>
  metrics.value.some((it) => it.name === name && it.trained && it.of_photos) ||
  logged.value.some((it) => it.name === name && it.first)

/** The names of measures in curves, as they are shown one after the other: losses, metrics, all else. */
export function namesOf(all: readonly Curves[]): string[] {
  const found = new Set(all.flatMap((curves) => Object.keys(curves).map((tag) => tag.split('/').slice(1).join('/'))))
  const others = logged.value.map((it) => it.name)
  const order = [...others.filter(isLoss), ...metrics.value.map((it) => it.name), ...others]
  const place = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length)
  return [...found].sort((a, b) => place(a) - place(b) || a.localeCompare(b))
}

/** A configuration as `key.below` -> value. */
export function flat(config: unknown, above = ''): Record<string, string> {
  if (config === null || typeof config !== 'object' || Array.isArray(config)) {
    return above ? { [above]: JSON.stringify(config) ?? '' } : {}
  }
  const all = Object.entries(config).map(([key, value]) => flat(value, above ? `${above}.${key}` : key))
  return Object.assign({}, ...all) as Record<string, string>
}

export interface Setting {
  key: string
  /** One a run; `null` where it has none of that name. */
  values: (string | null)[]
  differs: boolean
}

/** The settings of runs side by side. */
export function settings(configs: readonly unknown[]): Setting[] {
  const all = configs.map((config) => flat(config))
  const keys = [...new Set(all.flatMap((one) => Object.keys(one)))].sort()
  return keys.map((key) => {
    const values = all.map((one) => one[key] ?? null)
    return { key, values, differs: values.some((value) => value !== values[0]) }
  })
}

/** A text in parts, those that were searched for marked. */
export function marked(text: string, search: string): { text: string; found: boolean }[] {
  if (!search) return [{ text, found: false }]
  const parts: { text: string; found: boolean }[] = []
  const [lower, wanted] = [text.toLowerCase(), search.toLowerCase()]
  let from = 0
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
    if (at > from) parts.push({ text: text.slice(from, at), found: false })
    parts.push({ text: text.slice(at, at + wanted.length), found: true })
    from = at + wanted.length
  }
  if (from < text.length) parts.push({ text: text.slice(from), found: false })
  return parts
}

/** `ΔE2000 13.26` of the value by which the best checkpoint is chosen. */
export function best(run: Run): { title: string; value: number; digits: number } | null {
  const it = run.best as { name?: string; value?: number } | null
  if (!it?.name || it.value == null) return null
  const { title, digits } = measure(it.name.split('/').at(-1) ?? it.name)
  return { title, value: it.value, digits }
}

export const active = (run: { state: string }) => ['queued', 'running'].includes(run.state)
