/** The API: `await ok(api.GET('/api/health'))`. Types come from openapi.json (`npm run client`). */
import createClient from 'openapi-fetch'

import { connection } from '@/composables/useConnection'
import { session } from '@/composables/useSession'

import { Problem } from './problem'
import type { components, paths } from './schema'

/** A schema of the API by its name: `Schemas['Job']`. */
export type Schemas = components['schemas']

/** Tells the shell what an answer means for all of the app: the server is away, or wants a token. */
export function notice(problem: Problem): Problem {
  if (problem.away) connection.lost()
  if (problem.status === 401) session.ask()
  return problem
}

export const api = createClient<paths>({ baseUrl: location.origin, fetch: (request) => globalThis.fetch(request) })

api.use({
  async onResponse({ response }) {
    if (response.ok) return undefined
    throw notice(Problem.from(response.status, await response.text(), response.headers.get('Retry-After')))
  },
  onError({ error }) {
    if (error instanceof Problem || (error instanceof DOMException && error.name === 'AbortError')) return undefined
    throw notice(Problem.away())
  },
})

/** The data of an answer; what is no success has been thrown as a {@link Problem} already. */
export async function ok<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T
}
