import { expect, it } from 'vitest'

import { formOf, weightsOptions } from '../colorize/options'
import { added, type Item, merged } from './items'

const item = (number: number, state: Item['state'], error: string | null = null): Item => ({
  number,
  name: `${number}.jpg`,
  state,
  error,
  result: null,
})
const told = (type: string, data: unknown) => ({ id: '', type, data })

it('items are as the stream told last', () => {
  const fetched = [item(0, 'waiting'), item(1, 'waiting')]
  const events = [told('state', { state: 'running' }), told('item', item(1, 'done'))]
  expect(merged(fetched, events)).toEqual({ items: [item(0, 'waiting'), item(1, 'done')], state: 'running' })
  expect(merged(fetched, [])).toEqual({ items: fetched, state: undefined })
})

it('what was told before a batch was tried again no longer holds, what was told before a pause does', () => {
  const fetched = [item(0, 'done'), item(1, 'waiting'), item(2, 'failed', 'refused')]
  const first = [told('item', item(0, 'done')), told('item', item(1, 'failed', 'the disk was full'))]
  const again = [...first, told('state', { state: 'finished' }), told('state', { state: 'queued' })]
  expect(merged(fetched, again)).toEqual({ items: fetched, state: 'queued' })
  const paused = [told('item', item(1, 'done')), told('state', { state: 'paused' }), told('state', { state: 'queued' })]
  expect(merged(fetched, paused).items[1]?.state).toBe('done')
})

it('pictures alone are added, each once, as many as the server takes', () => {
  const file = (name: string, size = 10, type = '') => new File([new Uint8Array(size)], name, { type, lastModified: 1 })
  const limits = { batch_files: 3, batch_mb: 1, upload_mb: 0.001 }
  const first = added([], [file('a.jpg'), file('b.TIF'), file('notes.txt'), file('big.png', 2000)], limits)
  expect(first.files.map((it) => it.name)).toEqual(['a.jpg', 'b.TIF'])
  expect(first.left).toHaveLength(2)
  const second = added(first.files, [file('a.jpg'), file('c', 1, 'image/png'), file('d.webp')], limits)
  expect(second.files.map((it) => it.name)).toEqual(['a.jpg', 'b.TIF', 'c'])
  expect(second.left).toEqual([expect.stringContaining('1 file left out: this server takes 3 photos')])
})

it('the form has what was chosen, and leaves to the server what was not', () => {
  const form = formOf({ strength: 0.5, flips: false, vividness: undefined })
  expect(form.get('strength')).toBe('0.5')
  expect([form.get('flips'), form.has('vividness'), form.has('weights')]).toEqual(['false', false, false])
  expect(form.has('size')).toBe(false)
})

it('weights that ship come first, then those of each model', () => {
  const weights = (id: string, kind: string, run: string | null) => ({ id, kind, run })
  const models = [
    { title: 'GAN', weights: [weights('gan-1', 'best', 'gan-1'), weights('gan-1.last', 'last', 'gan-1')] },
    { title: 'U-Net', weights: [weights('shipped-unet', 'shipped', null)] },
  ]
  expect(weightsOptions(models as never).map((it) => `${it.group}: ${it.label}`)).toEqual([
    'Shipped: U-Net, ships with the program',
    'GAN: gan-1, best',
    'GAN: gan-1, newest',
  ])
})
