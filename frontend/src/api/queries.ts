/** How queries behave everywhere. */
import { QueryClient } from '@tanstack/vue-query'

import { Problem } from './problem'

const AGAIN = [0, 429, 502, 503, 504]

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      networkMode: 'always', // the server may be on this machine, whatever the browser thinks of its network
      // A server that says when to come again is asked again for as long as it says so.
      retry: (failures, error) =>
        error instanceof Problem && AGAIN.includes(error.status) && (failures < 2 || error.retryAfter !== null),
      retryDelay: (failures, error) =>
        error instanceof Problem && error.retryAfter ? error.retryAfter * 1000 : 500 * 2 ** failures,
    },
    mutations: { networkMode: 'always' },
  },
})
