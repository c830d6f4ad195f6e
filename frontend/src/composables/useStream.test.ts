import { type EffectScope, effectScope, nextTick, ref } from 'vue'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

import { useStream } from './useStream'

/** The browser's EventSource as its specification has it, with the wire in the test's hands. */
class FakeEventSource extends EventTarget {
  static CONNECTING = 0
  static OPEN = 1
  static CLOSED = 2
  static all: FakeEventSource[] = []
  readyState = 0
  onopen?: () => void
  onerror?: () => void
  url: URL
  constructor(url: string | URL) {
    super()
    this.url = new URL(url)
    FakeEventSource.all.push(this)
  }
  close() {
    this.readyState = 2
  }
  open() {
    this.readyState = 1
    this.onopen?.()
  }
  send(id: string, type: string, data: unknown) {
    this.dispatchEvent(new MessageEvent(type, { lastEventId: id, data: JSON.stringify(data) }))
  }
  /** The connection drops and the browser tries again by itself. */
  drop() {
    this.readyState = 0
    this.onerror?.()
  }
  /** An answer that is no stream: the browser gives up. */
  refuse() {
    this.readyState = 2
    this.onerror?.()
  }
}

const newest = () => FakeEventSource.all.at(-1) as FakeEventSource
let scope: EffectScope

beforeEach(() => {
  scope = effectScope()
  vi.useFakeTimers()
  FakeEventSource.all = []
  vi.stubGlobal('EventSource', FakeEventSource)
})
afterEach(() => {
  scope.stop()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

function answer(status: number, body = '') {
  vi.stubGlobal(
    'fetch',
    vi.fn(async () => new Response(status === 204 ? null : body, { status })),
  )
}

describe('useStream', () => {
  it('shows events once, in order, whatever is sent again after a lost connection', async () => {
    const told: string[] = []
    const stream = scope.run(() => useStream('/api/x', { onEvent: (event) => told.push(event.id) }))!
    expect(stream.state.value).toBe('connecting')
    newest().open()
    expect(stream.state.value).toBe('live')
    newest().send('1', 'progress', { done: 1 })
    newest().send('2', 'progress', { done: 2 })
    newest().drop()
    expect(stream.state.value).toBe('lost')
    newest().open()
    newest().send('2', 'progress', { done: 2 })
    newest().send('3', 'progress', { done: 3 })
    await vi.advanceTimersByTimeAsync(100)
    expect(stream.events.value.map((event) => event.id)).toEqual(['1', '2', '3'])
    expect(told).toEqual(['1', '2', '3'])
    expect(FakeEventSource.all).toHaveLength(1)
  })

  it('takes the stream up again behind the last event where the browser gave up', async () => {
    answer(502)
    const stream = scope.run(() => useStream('/api/x'))!
    newest().open()
    newest().send('41-7', 'log', { text: 'a' })
    newest().refuse()
    await vi.advanceTimersByTimeAsync(1100)
    expect(FakeEventSource.all).toHaveLength(2)
    expect(newest().url.searchParams.get('last_event_id')).toBe('41-7')
    newest().refuse()
    await vi.advanceTimersByTimeAsync(1100)
    expect(FakeEventSource.all).toHaveLength(2) // it waits longer each time
    await vi.advanceTimersByTimeAsync(1000)
    expect(FakeEventSource.all).toHaveLength(3)
    newest().open()
    expect(stream.state.value).toBe('live')
  })

  it('ends with the last event, and does not ask again', async () => {
    const stream = scope.run(() => useStream('/api/x'))!
    newest().open()
    newest().send('1', 'state', { state: 'running' })
    newest().send('2', 'state', { state: 'finished' })
    expect(stream.state.value).toBe('ended')
    expect(stream.events.value).toHaveLength(2)
    expect(newest().readyState).toBe(2)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(FakeEventSource.all).toHaveLength(1)
  })

  it('has no connection while its tab is hidden, and goes on behind the last event in sight', async () => {
    const hidden = vi.spyOn(document, 'hidden', 'get')
    const turn = (is: boolean) => (hidden.mockReturnValue(is), document.dispatchEvent(new Event('visibilitychange')))
    turn(true)
    const stream = scope.run(() => useStream('/api/x'))!
    expect(FakeEventSource.all).toHaveLength(0)
    turn(false)
    newest().open()
    newest().send('7', 'log', { text: 'a' })
    turn(true)
    expect(newest().readyState).toBe(2)
    await vi.advanceTimersByTimeAsync(60_000)
    expect(FakeEventSource.all).toHaveLength(1)
    turn(false)
    expect(newest().url.searchParams.get('last_event_id')).toBe('7')
    newest().open()
    expect(stream.state.value).toBe('live')
  })

  it('says why the server refuses, and stops', async () => {
    answer(404, JSON.stringify({ status: 404, title: 'Not Found', detail: 'there is no such run' }))
    const stream = scope.run(() => useStream('/api/x'))!
    newest().refuse()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(stream.state.value).toBe('failed')
    expect(stream.problem.value?.detail).toBe('there is no such run')
    expect(FakeEventSource.all).toHaveLength(1)
  })

  it('is over where the server has nothing more to tell', async () => {
    answer(204)
    const stream = scope.run(() => useStream('/api/x'))!
    newest().refuse()
    await vi.advanceTimersByTimeAsync(100)
    expect(stream.state.value).toBe('ended')
  })

  it('starts anew with another address and closes with none', async () => {
    const url = ref<string | null>('/api/a')
    const stream = scope.run(() => useStream(url))!
    newest().open()
    newest().send('1', 'log', { text: 'of a' })
    const first = newest()
    url.value = '/api/b'
    await nextTick()
    expect(first.readyState).toBe(2)
    newest().open()
    newest().send('1', 'log', { text: 'of b' })
    await vi.advanceTimersByTimeAsync(100)
    expect(stream.events.value.map((event) => event.data)).toEqual([{ text: 'of b' }])
    url.value = null
    await nextTick()
    expect(stream.state.value).toBe('idle')
    expect(newest().readyState).toBe(2)
  })
})
