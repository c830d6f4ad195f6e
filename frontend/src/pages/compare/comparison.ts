/** Comparisons as the page reads them: columns, scores, the radar's scales. */
import type { Schemas } from '@/api/client'

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

export interface Score {
  key: 'psnr' | 'ssim' | 'lpips' | 'delta_e2000' | 'colorfulness'
  label: string
  unit?: string
  digits: number
  better: 'higher' | 'lower' | null
  /** What is the centre of the radar and what its edge. Fixed, so that small differences look small. */
  worst: number
  best: number
}

export const SCORES: readonly Score[] = [
  { key: 'delta_e2000', label: 'ΔE2000', digits: 2, better: 'lower', worst: 25, best: 0 },
  { key: 'psnr', label: 'PSNR', unit: 'dB', digits: 2, better: 'higher', worst: 15, best: 35 },
  { key: 'ssim', label: 'SSIM', digits: 3, better: 'higher', worst: 0.6, best: 1 },
  { key: 'lpips', label: 'LPIPS', digits: 3, better: 'lower', worst: 0.5, best: 0 },
]

const clamp = (value: number) => Math.min(Math.max(value, 0), 1)

/** How colourful an answer is beside the truth: 1 as much, 0 not at all or twice as much. */
export function likeness(colorfulness: number, truth: number): number {
  return truth > 0 ? clamp(1 - Math.abs(colorfulness - truth) / truth) : 0
}

/** Axes and series of the radar; metrics that no column has are left out. */
export function radar(columns: readonly Column[], names: (name: string) => string) {
  const scored = columns.filter((it) => it.metrics)
  const axes = SCORES.filter(({ key }) => scored.length > 0 && scored.every((it) => it.metrics?.[key] != null))
  const format = (value: number, digits: number) =>
    value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
  return {
    axes: [...axes.map((it) => it.label), 'Colorfulness'],
    series: scored.map((column) => {
      const metrics = column.metrics as NonNullable<Column['metrics']>
      return {
        name: names(column.name),
        values: [
          ...axes.map(({ key, worst, best }) => clamp(((metrics[key] as number) - worst) / (best - worst))),
          likeness(metrics.colorfulness, metrics.true_colorfulness),
        ],
        shown: [
          ...axes.map(({ key, digits }) => format(metrics[key] as number, digits)),
          format(metrics.colorfulness, 1),
        ],
      }
    }),
  }
}

/** Below this true colorfulness a photo is near grey: there is hardly a truth to measure against. */
export const NEAR_GREY = 15
