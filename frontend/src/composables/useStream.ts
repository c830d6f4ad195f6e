/**
 * A stream of server-sent events that heals itself.
 *
 * A dropped connection is taken up again behind the last event that came, by the browser (`Last-Event-ID`) or, where it
 * gives up because a proxy or a restarting server answered with an error, by a new EventSource (`last_event_id`).
 * A hidden tab has no stream, and visible ones take turns with one (`turns.ts`): each goes on where it was.
 */
import { type MaybeRefOrGetter, onScopeDispose, readonly, ref, shallowRef, toValue, watch } from 'vue'

import { notice } from '@/api/client'
import { Problem } from '@/api/problem'

import { connection } from './useConnection'
import { othersWait, takeTurn } from './turns'

export interface StreamEvent<T = unknown> {
  id: string
  type: string
  data: T
}

/** `idle`: no url. `lost`: retrying. `ended`: all has been told. `failed`: the server refuses, see `problem`. */
export type StreamState = 'idle' | 'connecting' | 'live' | 'lost' | 'ended' | 'failed'

export interface StreamOptions<T> {
  /** Names of the events to listen to. */
  types?: readonly string[]
  /** Whether nothing comes after this event. */
  last?: (event: StreamEvent<T>) => boolean
  /** Called with each event once, in order, before it is in `events`. */
  onEvent?: (event: StreamEvent<T>) => void
  /** How many of the newest events are kept. */
  keep?: number
}

/** Those of jobs and runs. */
const TYPES = ['state', 'progress', 'item', 'status', 'metrics', 'sample', 'log', 'end'] as const
const GATHER = 50 // ms in which events are gathered to one update of the page: a replay brings thousands
const LONGEST = 15_000 // ms between two tries
const TURN = 1000 // ms that a connection is kept while another stream waits

function endsJobOrRun(event: StreamEvent): boolean {
  const state = (event.data as { state?: string } | null)?.state
  return event.type === 'end' || (event.type === 'state' && ['finished', 'failed', 'cancelled'].includes(state ?? ''))
}

/** @param url the stream; `null` closes it, another one starts anew. */
export function useStream<T = unknown>(
  url: MaybeRefOrGetter<string | null | undefined>,
  { types = TYPES, last = endsJobOrRun, onEvent, keep = 10_000 }: StreamOptions<T> = {},
) {
  const state = ref<StreamState>('idle')
  const problem = shallowRef<Problem | null>(null)
  const events = shallowRef<StreamEvent<T>[]>([])

  let source: EventSource | undefined
  let retry: ReturnType<typeof setTimeout> | undefined
  let gather: ReturnType<typeof setTimeout> | undefined
  let waiting: StreamEvent<T>[] = []
  let seen = new Set<string>()
  let lastId = ''
  let failures = 0
  let probe: AbortController | undefined
  let turn: AbortController | undefined // that is waited for, or had
  let endTurn: (() => void) | undefined
  let yielding: ReturnType<typeof setInterval> | undefined

  function flush(): void {
    clearTimeout(gather)
    gather = undefined
    if (waiting.length) events.value = [...events.value, ...waiting].slice(-keep)
    waiting = []
  }

  function receive(message: MessageEvent<string>): void {
    const event = { id: message.lastEventId, type: message.type, data: JSON.parse(message.data) as T }
    const key = `${event.type} ${event.id}`
    if (event.id) {
      if (seen.has(key)) return
      seen.add(key)
      lastId = event.id
    }
    waiting.push(event)
    onEvent?.(event)
    if (last(event)) {
      close('ended')
      flush()
    } else gather ??= setTimeout(flush, GATHER)
  }

  function close(to: StreamState): void {
    disconnect()
    state.value = to
  }

  /** Without a connection, a turn, or a time at which to try again. */
  function disconnect(): void {
    source?.close()
    source = undefined
    probe?.abort()
    clearTimeout(retry)
    retry = undefined
    clearInterval(yielding)
    turn?.abort()
    endTurn?.()
    endTurn = undefined
  }

  function open(address: string): void {
    disconnect()
    if (document.hidden) return
    const mine = (turn = new AbortController())
    takeTurn(mine.signal, (end) => {
      if (mine.signal.aborted) return end()
      endTurn = end
      connect(address)
    })
  }

  function connect(address: string): void {
    const at = new URL(address, location.origin)
    if (lastId) at.searchParams.set('last_event_id', lastId)
    const it = (source = new EventSource(at))
    let answered = Infinity // when; a server that is slow to answer takes nobody's turn
    yielding = setInterval(async () => {
      if (Date.now() - answered >= TURN && (await othersWait()) && it === source) open(address)
    }, TURN / 4)
    it.onopen = () => {
      answered = Date.now()
      failures = 0
      problem.value = null
      state.value = 'live'
    }
    it.onerror = () => {
      answered = Math.min(answered, Date.now())
      state.value = 'lost'
      // readyState CONNECTING: the browser tries by itself.
      if (it.readyState === EventSource.CLOSED) void refused(it, address, at)
    }
    for (const type of types) it.addEventListener(type, (event) => receive(event as MessageEvent<string>))
  }

  /** The browser gave up, and does not tell why: ask. */
  async function refused(it: EventSource, address: string, at: URL): Promise<void> {
    const asking = (probe = new AbortController())
    let wait = Math.min(1000 * 2 ** failures++, LONGEST)
    try {
      const answer = await fetch(at, { headers: { Accept: 'text/event-stream' }, signal: asking.signal })
      if (it !== source) return
      if (answer.status === 204) return close('ended')
      if (!answer.ok) {
        const found = notice(Problem.from(answer.status, await answer.text(), answer.headers.get('Retry-After')))
        if (it !== source) return
        if (answer.status < 500 && ![401, 408, 429].includes(answer.status)) {
          problem.value = found
          return close('failed')
        }
        if (found.retryAfter) wait = found.retryAfter * 1000
      }
    } catch {
      if (it !== source) return
      notice(Problem.away())
    } finally {
      asking.abort() // a stream that did open is not read here
    }
    disconnect()
    retry = setTimeout(() => open(address), wait)
  }

  /** The tab has come into sight or gone out of it, or the server is back: not a moment to wait longer. */
  function wake(): void {
    const address = toValue(url)
    if (document.hidden) disconnect()
    else if (address && !source && ['connecting', 'live', 'lost'].includes(state.value)) open(address)
  }

  function start(address: string | null | undefined): void {
    close('idle')
    flush()
    events.value = []
    problem.value = null
    seen = new Set()
    lastId = ''
    failures = 0
    if (!address) return
    state.value = 'connecting'
    open(address)
  }

  watch(() => toValue(url), start, { immediate: true })
  watch(connection.away, (away) => !away && wake())
  document.addEventListener('visibilitychange', wake)
  onScopeDispose(() => {
    document.removeEventListener('visibilitychange', wake)
    close('idle')
    clearTimeout(gather)
  })

  return { state: readonly(state), events: readonly(events) as Readonly<typeof events>, problem: readonly(problem) }
}
