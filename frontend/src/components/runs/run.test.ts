import { describe, expect, it } from 'vitest'

import { setFacts } from '@/api/facts'
import { FACTS } from '@/api/facts.fixture'

import { along, curvesOf, first, marked, measure, namesOf, settings, take, untold } from './run'

const metric = (step: number, value: number | null, name = 'loss', split = 'train', epoch = 0) => ({
  step,
  epoch,
  split,
  name,
  value,
})

describe('what the stream tells', () => {
  it('becomes curves, samples, lines and the state', () => {
    const told = untold()
    take(told, 'metrics', metric(0, 3))
    take(told, 'metrics', metric(1, 2))
    take(told, 'metrics', metric(1, null, 'lpips'))
    take(told, 'metrics', metric(1, 20, 'psnr', 'val'))
    take(told, 'sample', { name: 'epoch_0000.png', epoch: 0, url: '/a' })
    take(told, 'sample', { name: 'epoch_0000.png', epoch: 0, url: '/a' })
    take(told, 'log', { text: 'one' })
    take(told, 'log', { text: 'two' })
    take(told, 'status', { id: 'x', state: 'running' })
    expect(told.curves).toEqual({
      'train/loss': [
        [0, 0, 3],
        [1, 0, 2],
      ],
      'val/psnr': [[1, 0, 20]],
    })
    expect(told.samples).toHaveLength(1)
    expect(told.lines.map(({ number, text }) => [number, text])).toEqual([
      [1, 'one'],
      [2, 'two'],
    ])
    take(told, 'end', { id: 'x', state: 'stopped' })
    expect(told.run?.state).toBe('stopped')
    take(told, 'end', { id: 'x', state: 'deleted' })
    expect(told.deleted).toBe(true)
  })

  it('of a run that went back to its checkpoint holds the newer steps', () => {
    const told = untold()
    for (const [step, value] of [
      [0, 9],
      [10, 8],
      [20, 7],
      [10, 5],
      [20, 4],
    ] as const)
      take(told, 'metrics', metric(step, value))
    expect(told.curves['train/loss']).toEqual([
      [0, 0, 9],
      [10, 0, 5],
      [20, 0, 4],
    ])
  })

  it('is thinned where it is long; the newest is always there', () => {
    const told = untold()
    for (let step = 0; step < 10_001; step += 1) take(told, 'metrics', metric(step, step))
    const points = told.curves['train/loss'] ?? []
    expect(points.length).toBeLessThanOrEqual(4000)
    expect(points[0]?.[0]).toBe(0)
    expect(points.at(-1)?.[0]).toBe(10_000)
    expect(points.every(([step], at) => at === 0 || step > (points[at - 1]?.[0] ?? 0))).toBe(true)
  })
})

it('curves of the history are those of the stream', () => {
  const curve = { run_id: 'x', steps: [0, 5], epochs: [0, null], values: [2, 1] }
  expect(curvesOf({ 'train/loss': [curve], 'val/psnr': [] })).toEqual({
    'train/loss': [
      [0, 0, 2],
      [5, null, 1],
    ],
  })
})

it('a curve by epoch is the mean of each, from 1', () => {
  expect(
    along(
      [
        [0, 0, 1],
        [1, 0, 3],
        [2, 1, 5],
        [3, null, 99],
      ],
      'epoch',
    ),
  ).toEqual([
    [1, 2],
    [2, 5],
  ])
})

it('losses come first, unknown measures last', () => {
  setFacts(FACTS)
  expect(measure('peak_memory_mb')).toEqual({ title: 'Memory', digits: 0, unit: 'MB' })
  expect(measure('loss', true)).toEqual({ title: 'Generator loss', digits: 3 })
  expect(measure('ssim').digits).toBe(4)
  expect(['loss', 'psnr', 'delta_colorfulness', 'lr', 'peak_memory_mb', 'mae'].filter(first)).toEqual([
    'loss',
    'psnr',
    'lr',
  ])
  expect(namesOf([{ 'train/lr': [], 'val/psnr': [], 'val/delta_e2000': [], 'train/loss': [] }])).toEqual([
    'loss',
    'delta_e2000',
    'psnr',
    'lr',
  ])
  expect(namesOf([{ 'train/zebra': [], 'val/psnr': [], 'train/psnr': [] }, { 'train/loss': [] }])).toEqual([
    'loss',
    'psnr',
    'zebra',
  ])
})

it('settings are laid side by side', () => {
  const [a, b] = [
    { model: { name: 'unet', width: 64 }, seed: 1, crop: [0.5, 1] },
    { model: { name: 'gan', width: 64 }, seed: 1, crop: [0.5, 1], extra: null },
  ]
  expect(settings([a, b])).toEqual([
    { key: 'crop', values: ['[0.5,1]', '[0.5,1]'], differs: false },
    { key: 'extra', values: [null, 'null'], differs: true },
    { key: 'model.name', values: ['"unet"', '"gan"'], differs: true },
    { key: 'model.width', values: ['64', '64'], differs: false },
    { key: 'seed', values: ['1', '1'], differs: false },
  ])
})

it('what was searched for is marked, in any case', () => {
  expect(marked('Epoch 1, epoch 2', 'epoch')).toEqual([
    { text: 'Epoch', found: true },
    { text: ' 1, ', found: false },
    { text: 'epoch', found: true },
    { text: ' 2', found: false },
  ])
  expect(marked('line', '')).toEqual([{ text: 'line', found: false }])
})
