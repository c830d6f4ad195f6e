import { describe, expect, test } from 'vitest'

import { FACTS } from '@/api/facts.fixture'

import { type Column, likeness, radar } from './comparison'

const column = (name: string, metrics: Partial<NonNullable<Column['metrics']>>): Column =>
  ({
    name,
    metrics: {
      size: 256,
      psnr: 25,
      ssim: 0.8,
      lpips: null,
      lpips_missing: 'no weights',
      delta_e2000: 12.5,
      colorfulness: 15,
      true_colorfulness: 30,
      ...metrics,
    },
  }) as Column

describe('radar', () => {
  test('0 is the worst of a fixed scale and 1 its best, whatever the others are', () => {
    const both = [column('a', {}), column('b', { psnr: 99, delta_e2000: 99 })]
    const { labels, series } = radar(both, (it) => it, FACTS.metrics)
    expect(labels).toEqual(['PSNR', 'SSIM', 'ΔE2000', 'Colorfulness']) // no LPIPS: none has it
    expect(series[0]?.values.map((it) => Number(it.toFixed(3)))).toEqual([0.5, 0.5, 0.5, 0.5])
    expect([series[1]?.values[0], series[1]?.values[2]]).toEqual([1, 0])
    expect(series[0]?.shown).toEqual(['25.00', '0.8000', '12.50', '15.0'])
  })

  test('columns without metrics are left out', () => {
    expect(radar([{ ...column('a', {}), metrics: null }], (it) => it, FACTS.metrics).series).toEqual([])
  })
})

test('too colourful is as far from the truth as too pale', () => {
  expect(likeness(30, 30)).toBe(1)
  expect(likeness(15, 30)).toBe(likeness(45, 30))
  expect(likeness(90, 30)).toBe(0)
  expect(likeness(5, 0)).toBe(0)
})
