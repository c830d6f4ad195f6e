/** Whether the server answers. One for the whole app; the shell shows it and it heals itself. */
import { readonly, ref, watch } from 'vue'

import { queryClient } from '@/api/queries'

const LOOK = 2000 // ms between two looks while the server is away

const away = ref(false)
let timer: ReturnType<typeof setTimeout> | undefined

async function look(): Promise<void> {
  clearTimeout(timer)
  try {
    const answer = await fetch('/api/health', { cache: 'no-store' })
    if (answer.ok) {
      away.value = false
      void queryClient.invalidateQueries() // what failed in between, or has changed
      return
    }
  } catch {
    // still away
  }
  timer = setTimeout(() => void look(), LOOK)
}

export const connection = {
  away: readonly(away),
  /** Somebody got no answer. */
  lost(): void {
    if (away.value) return
    away.value = true
    timer = setTimeout(() => void look(), LOOK)
  },
  /** Look now rather than in two seconds. */
  look,
  /** Resolves as soon as the server answers. */
  back(): Promise<void> {
    return new Promise((resolve) => {
      if (!away.value) return resolve()
      const stop = watch(away, () => (stop(), resolve()), { flush: 'sync' })
    })
  },
}

export function useConnection() {
  return connection
}
