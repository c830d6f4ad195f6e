import { describe, expect, test } from 'vitest'

import { type Job, merged } from './useJob'

const job: Job = {
  id: 'a',
  kind: 'compare',
  state: 'queued',
  created: '2026-01-01T00:00:00Z',
  started: null,
  ended: null,
  done: 0,
  total: 0,
  result: null,
  error: null,
  url: '/api/jobs/a',
  stream: '/api/jobs/a/stream',
}
const event = (type: string, data: unknown) => ({ id: '', type, data })

describe('a job and its events', () => {
  test('the newest state and progress count', () => {
    const now = merged(job, [
      event('state', { state: 'running' }),
      event('progress', { done: 1, total: 3 }),
      event('progress', { done: 2, total: 3 }),
    ])
    expect(now).toMatchObject({ state: 'running', done: 2, total: 3, error: null, id: 'a' })
  })

  test('an item that is told again replaces itself, and they stand in their order', () => {
    const item = (number: number, state: string) => ({
      number,
      name: `${number}.jpg`,
      state,
      error: null,
      result: null,
    })
    const now = merged(job, [
      event('item', item(1, 'done')),
      event('item', item(0, 'failed')),
      event('item', item(0, 'done')),
    ])
    expect(now.items.map((it) => [it.number, it.state])).toEqual([
      [0, 'done'],
      [1, 'done'],
    ])
  })

  test('the end brings the result or the reason', () => {
    expect(merged(job, [event('state', { state: 'finished', result: { url: '/x' } })]).result).toEqual({ url: '/x' })
    expect(merged(job, [event('state', { state: 'failed', error: 'no photos' })])).toMatchObject({
      state: 'failed',
      error: 'no photos',
    })
  })
})
