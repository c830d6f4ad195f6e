/** An upload as a page shows it: how far, how fast, cancelled, failed. */
import { computed, onScopeDispose, readonly, ref, shallowRef } from 'vue'

import { asProblem, type Problem } from '@/api/problem'
import { upload } from '@/api/upload'

import { useRate } from './useRate'

export type UploadState = 'idle' | 'sending' | 'working' | 'done' | 'cancelled' | 'failed'

/** `working`: all bytes are there, and the server has not answered yet. */
export function useUpload<T>() {
  const state = ref<UploadState>('idle')
  const sent = ref(0)
  const total = ref(0)
  const problem = shallowRef<Problem | null>(null)
  const { rate, eta } = useRate(sent, total)
  let controller: AbortController | undefined

  /** @returns the answer; `null` when it was cancelled or failed, see `state` and `problem`. */
  async function start(url: string, form: FormData): Promise<T | null> {
    controller?.abort()
    const mine = (controller = new AbortController())
    state.value = 'sending'
    problem.value = null
    sent.value = 0
    total.value = 0
    try {
      const answer = await upload<T>(url, form, {
        signal: mine.signal,
        onProgress(now, all) {
          sent.value = now
          total.value = all
          if (now === all) state.value = 'working'
        },
      })
      if (mine !== controller) return null
      state.value = 'done'
      return answer
    } catch (error) {
      if (mine !== controller) return null // another upload has taken its place
      if (mine.signal.aborted) state.value = 'cancelled'
      else {
        problem.value = asProblem(error)
        state.value = 'failed'
      }
      return null
    }
  }

  function cancel(): void {
    controller?.abort()
  }

  onScopeDispose(cancel)
  return {
    state: readonly(state),
    sent: readonly(sent),
    total: readonly(total),
    busy: computed(() => state.value === 'sending' || state.value === 'working'),
    problem: readonly(problem),
    rate,
    eta,
    start,
    cancel,
  }
}
