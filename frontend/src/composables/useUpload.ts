/**
 * An upload as a page shows it: how far, how fast, cancelled, failed.
 *
 * One that the server has no room for now, or that was cut off, is sent again by itself: see `retrying`.
 */
import { computed, onScopeDispose, readonly, ref, shallowRef } from 'vue'

import { asProblem, type Problem } from '@/api/problem'
import { upload } from '@/api/upload'

import { retrying } from './retrying'
import { useRate } from './useRate'

/** `working`: all bytes are there, and the server has not answered yet. `waiting`: to be sent again, see `waits`. */
export type UploadState = 'idle' | 'sending' | 'working' | 'waiting' | 'done' | 'cancelled' | 'failed'

/** @param repeatable whether the server may get it twice; else what it had in full is not sent again. */
export function useUpload<T>({ repeatable = false } = {}) {
  const state = ref<UploadState>('idle')
  const sent = ref(0)
  const total = ref(0)
  const problem = shallowRef<Problem | null>(null)
  const waits = ref('') // why and for what
  const { rate, eta } = useRate(sent, total)
  let controller: AbortController | undefined

  /** @returns the answer; `null` when it was cancelled or failed, see `state` and `problem`. */
  async function start(url: string, form: FormData): Promise<T | null> {
    controller?.abort()
    const mine = (controller = new AbortController())
    problem.value = null
    try {
      const answer = await retrying(() => send(url, form, mine), {
        signal: mine.signal,
        waiting(why) {
          waits.value = why
          state.value = 'waiting'
        },
        repeatable: () => repeatable || state.value !== 'working',
      })
      if (mine !== controller) return null // another upload has taken its place
      state.value = 'done'
      return answer
    } catch (error) {
      if (mine !== controller) return null
      if (!mine.signal.aborted) problem.value = asProblem(error)
      state.value = mine.signal.aborted ? 'cancelled' : 'failed'
      return null
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
