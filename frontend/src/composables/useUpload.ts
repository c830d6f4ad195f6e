/**
 * An upload as a page shows it: how far, how fast, cancelled, failed.
 *
 * One that the server has no room for now (503 or 429 with `Retry-After`), or that was cut off, is sent again by itself.
 */
import { computed, onScopeDispose, readonly, ref, shallowRef } from 'vue'

import { asProblem, type Problem } from '@/api/problem'
import { upload } from '@/api/upload'

import { useConnection } from './useConnection'
import { useRate } from './useRate'

/** `working`: all bytes are there, and the server has not answered yet. `waiting`: to be sent again, see `waits`. */
export type UploadState = 'idle' | 'sending' | 'working' | 'waiting' | 'done' | 'cancelled' | 'failed'

const CUTS = 3 // that an upload survives: a server that cuts off more means it

/** @param repeatable whether the server may get it twice; else what it had in full is not sent again. */
export function useUpload<T>({ repeatable = false } = {}) {
  const state = ref<UploadState>('idle')
  const sent = ref(0)
  const total = ref(0)
  const problem = shallowRef<Problem | null>(null)
  const waits = ref('') // why and for what
  const connection = useConnection()
  const { rate, eta } = useRate(sent, total)
  let controller: AbortController | undefined

  /** @returns the answer; `null` when it was cancelled or failed, see `state` and `problem`. */
  async function start(url: string, form: FormData): Promise<T | null> {
    controller?.abort()
    const mine = (controller = new AbortController())
    problem.value = null
    for (let cuts = 0; ;) {
      if (mine !== controller) return null // another upload has taken its place
      try {
        const answer = await send(url, form, mine)
        if (mine !== controller) return null
        state.value = 'done'
        return answer
      } catch (error) {
        if (mine !== controller) return null
        if (mine.signal.aborted) {
          state.value = 'cancelled'
          return null
        }
        const found = asProblem(error)
        const complete = state.value === 'working'
        if (found.retryAfter !== null && [429, 503].includes(found.status)) {
          waits.value = `${found.detail}; retrying automatically`
          await during(mine, new Promise((done) => setTimeout(done, 1000 * (found.retryAfter ?? 0))))
        } else if (found.away && (repeatable || !complete) && cuts++ < CUTS) {
          waits.value = 'The connection was lost; retrying automatically'
          await during(mine, connection.back())
        } else {
          problem.value = found
          state.value = 'failed'
          return null
        }
      }
    }
  }

  function send(url: string, form: FormData, { signal }: AbortController): Promise<T> {
    state.value = 'sending'
    sent.value = 0
    total.value = 0
    return upload<T>(url, form, {
      signal,
      onProgress(now, all) {
        if (signal.aborted) return
        sent.value = now
        total.value = all
        if (now === all) state.value = 'working'
      },
    })
  }

  /** Until it has come about, or the upload is cancelled. */
  async function during({ signal }: AbortController, it: Promise<unknown>): Promise<void> {
    state.value = 'waiting'
    await Promise.race([it, new Promise((done) => signal.addEventListener('abort', done, { once: true }))])
  }

  function cancel(): void {
    controller?.abort()
  }

  onScopeDispose(cancel)
  return {
    state: readonly(state),
    sent: readonly(sent),
    total: readonly(total),
    busy: computed(() => ['sending', 'working', 'waiting'].includes(state.value)),
    problem: readonly(problem),
    waits: readonly(waits),
    rate,
    eta,
    start,
    cancel,
  }
}
