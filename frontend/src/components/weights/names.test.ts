import { expect, test } from 'vitest'

import { usualWeights, type Weights, weightsFacts, weightsName } from './names'

const weights = (given: Partial<Weights>): Weights => ({
  id: 'unet-1',
  model: 'unet',
  run: 'unet-1',
  state: 'finished',
  kind: 'weights',
  created: '2026-01-02T03:04:05Z',
  bytes: 1,
  training_data: {},
  metrics: {},
  network: {},
  pretrained: {},
  ...given,
})

test('the usual weights are the newest finished run of each stage, and what ships', () => {
  const all = [
    weights({ id: 'unet-3', state: 'running', kind: 'best' }),
    weights({ id: 'unet-2' }),
    weights({ id: 'gan-1', model: 'gan' }),
    weights({ id: 'unet-1' }),
    weights({ id: 'file-merged', model: 'ensemble', kind: 'file', run: null, state: null }),
    weights({ id: 'shipped-unet', kind: 'shipped', run: null, state: null }),
  ]
  expect(usualWeights(all)).toEqual(['unet-2', 'gan-1', 'shipped-unet'])
})

test('names tell weights of one stage apart', () => {
  const names = [
    weights({}),
    weights({ created: '2026-01-03T03:04:05Z' }),
    weights({ kind: 'last' }),
    weights({ kind: 'shipped' }),
    weights({ kind: 'file', id: 'file-merged' }),
  ].map((it) => weightsName(it, (iso) => iso.slice(0, 10)))
  expect(names).toEqual([
    'unet of 2026-01-02',
    'unet of 2026-01-03',
    'unet of 2026-01-02, last',
    'unet, shipped',
    'merged',
  ])
  expect(weightsFacts(weights({ kind: 'shipped', training_data: { photos: 1810, image_size: 128 } }))).toBe(
    'ships with the app · trained on 1,810 photos · at 128 px',
  )
})
