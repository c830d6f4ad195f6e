import { describe, expect, test } from 'vitest'

import { FACTS } from '@/api/facts.fixture'

import {
  againstGrey,
  bestModel,
  bestRows,
  favoured,
  histograms,
  type Image,
  measured,
  namesOf,
  photosOf,
  type Row,
  telling,
  verdict,
} from './report'

const row = (name: string, delta: number, psnr: number): Row => {
  const none = { mean: null }
  return {
    name,
    n: 12,
    delta_e2000: { mean: delta },
    psnr: { mean: psnr },
    ssim: { mean: 0.9 },
    lpips: none,
    colorfulness: { mean: 3 },
    delta_colorfulness: { mean: 5 },
  }
}
const image = (photo: string, model: string, delta_e2000: number, strip: string | null = null): Image => ({
  photo,
  model,
  delta_e2000,
  psnr: 20,
  ssim: 0.9,
  colorfulness: 1,
  true_colorfulness: 30,
  strip,
})

describe('rows', () => {
  const rows = [row('grey', 9, 25), row('unet', 10, 24), row('gan', 8, 23)]

  test('grey can be the best of all, and is no model', () => {
    expect(bestRows(rows, FACTS.metrics).get('psnr')).toEqual(new Set(['grey']))
    expect(bestRows(rows, FACTS.metrics).get('delta_e2000')).toEqual(new Set(['gan']))
    expect(bestRows(rows, FACTS.metrics).get('lpips')).toEqual(new Set())
    expect(bestModel(rows, FACTS.main)?.name).toBe('gan')
    expect(bestModel(rows.slice(0, 1), FACTS.main)).toBeUndefined()
  })

  test('columns are the metrics that were measured, also those that could not be', () => {
    const names = measured(FACTS.metrics, rows).map((it) => it.name)
    expect(names).toEqual(['psnr', 'ssim', 'lpips', 'delta_e2000', 'colorfulness', 'delta_colorfulness'])
    expect(measured(FACTS.metrics, [{ name: 'grey', n: 1, mae: { mean: 1 } }])).toEqual([]) // which tables do not show
    expect(namesOf(FACTS.metrics.slice(0, 4), 'lower')).toBe('LPIPS and ΔE2000')
  })

  test('equal rows are best together', () => {
    expect(bestRows(rows, FACTS.metrics).get('ssim')?.size).toBe(3)
  })

  test('the verdict claims nothing that was not shown', () => {
    expect(verdict({ ...rows[1]!, beats_grey: 'no' })).toMatch(/further/)
    expect(verdict({ ...rows[1]!, beats_grey: 'undecided' })).toMatch(/not significant on these photos/)
    expect(verdict(rows[1]!)).toMatch(/not significant on these photos/)
  })
})

describe('photos', () => {
  const images = ['a', 'b', 'c', 'd', 'e'].flatMap((photo, at) => [
    image(photo, 'grey', 10),
    image(photo, 'unet', [12, 3, 9, 30, 8][at]!, photo === 'd' ? null : `/strips/${photo}`),
  ])
  const photos = photosOf(images)

  test('each has its figures under each row', () => {
    expect(photos.map((it) => it.name)).toEqual(['a', 'b', 'c', 'd', 'e'])
    expect(againstGrey(photos[0]!, 'unet', 'delta_e2000')).toBe(2)
    expect(againstGrey(photos[0]!, 'gan', 'delta_e2000')).toBeNull()
  })

  test('the closest, a typical and the furthest, of those with a strip', () => {
    expect(telling(photos, 'unet', 'delta_e2000').map((it) => `${it.label} ${it.photo.name}`)).toEqual([
      'Closest b',
      'Typical e',
      'Furthest a',
    ])
    expect(telling(photos.slice(0, 2), 'unet', 'delta_e2000').map((it) => it.photo.name)).toEqual(['b', 'a'])
    expect(telling(photos, 'grey', 'delta_e2000')).toEqual([])
  })
})

describe('distributions', () => {
  test('every photo is in one bin, and shares add up to all', () => {
    const [a, b] = histograms(
      [
        { name: 'a', values: [0, 1, 2, 3, 10] },
        { name: 'b', values: [10] },
      ],
      5,
    )
    expect(a?.points.map(([x]) => x)).toEqual([1, 3, 5, 7, 9])
    expect(a?.points.map(([, y]) => y)).toEqual([40, 40, 0, 0, 20])
    expect(b?.points.reduce((sum, [, y]) => sum + y, 0)).toBe(100)
  })

  test('one value alone, and none', () => {
    expect(histograms([{ name: 'a', values: [7, 7] }], 4)[0]?.points.reduce((sum, [, y]) => sum + y, 0)).toBe(100)
    expect(histograms([{ name: 'a', values: [] }])).toEqual([{ name: 'a', points: [] }])
  })
})

test('a comparison favours nobody while its interval holds zero', () => {
  const it = { a: 'gan', b: 'grey', metric: 'delta_e2000', subset: 'all', mean: -1, ci95: [-2, -0.1] } as const
  expect(favoured(it, FACTS.metrics)).toBe('gan')
  expect(favoured({ ...it, metric: 'psnr' }, FACTS.metrics)).toBe('grey')
  expect(favoured({ ...it, ci95: [-2, 0.1] }, FACTS.metrics)).toBeNull()
  expect(favoured({ ...it, ci95: null }, FACTS.metrics)).toBeNull()
})
