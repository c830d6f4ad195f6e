/** The session with a server that asks for a token. The token is shown once, for a cookie that no script can read. */
import { readonly, ref } from 'vue'

import { Problem } from '@/api/problem'
import { queryClient } from '@/api/queries'

const needed = ref(false)

export const session = {
  /** Whether the person has to sign in before anything else works. */
  needed: readonly(needed),
  ask(): void {
    needed.value = true
  },
  /** @throws Problem the token is not the server's. */
  async signIn(token: string): Promise<void> {
    const answer = await fetch('/api/session', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ token }),
    }).catch(() => {
      throw Problem.away()
    })
    if (!answer.ok) throw Problem.from(answer.status, await answer.text(), answer.headers.get('Retry-After'))
    needed.value = false
    await queryClient.invalidateQueries()
  },
}

export function useSession() {
  return session
}
