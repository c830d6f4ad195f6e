import { beforeEach, expect, it } from 'vitest'

import { append, bodyOf, figure, form, main, metrics, setFacts, valueOf, withUnit } from './facts'
import { FACTS, setting } from './facts.fixture'

beforeEach(() => void setFacts(FACTS))

it('the main metric comes first, the others as the server has them', () => {
  expect(main.value).toBe('delta_e2000')
  expect(metrics.value.slice(0, 3).map((it) => it.name)).toEqual(['delta_e2000', 'psnr', 'ssim'])
})

it('a figure has the digits of its metric, a difference one more', () => {
  expect(figure('ssim', 0.94111)).toBe('0.9411')
  expect(figure('psnr', 23.6)).toBe('23.60')
  expect(figure('psnr', 0.1234, 1)).toBe('0.123')
  expect(figure('psnr', null)).toBe('–')
  expect([withUnit('PSNR', 'dB'), withUnit('SSIM', '')]).toEqual(['PSNR, dB', 'SSIM'])
})

it('what was not given is the default, and what has none is left out', () => {
  const [size, ensemble, uncertainty] = form('evaluation')
  expect([size, ensemble, uncertainty].map((it) => valueOf(it!, undefined))).toEqual([256, 'none', false])
  expect(valueOf(size!, 64)).toBe(64)
  expect(bodyOf(form('evaluation'), { image_size: 64 })).toEqual({ image_size: 64, ensemble: null, uncertainty: false })
  const sent = new FormData()
  append(sent, [...form('evaluation'), setting('size', 'integer', { none: 'As it was trained' })], {
    uncertainty: true,
  })
  expect([...sent.entries()]).toEqual([
    ['image_size', '256'],
    ['ensemble', 'none'],
    ['uncertainty', 'true'],
  ])
})
