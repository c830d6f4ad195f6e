/** Requests that are sent again by themselves: when the server was too busy for them, or when they were cut off. */
import { asProblem } from '@/api/problem'

import { connection } from './useConnection'

const CUTS = 3 // that a request survives: a server that cuts off more means it

interface Options {
  /** Cancels; also while it waits. */
  signal: AbortSignal
  /** Called with a sentence for the person each time before it waits. */
  waiting: (why: string) => void
  /** Whether the server may get it twice, asked when the connection was lost. */
  repeatable?: () => boolean
}

/**
 * The answer of `send`. A 429 or 503 with `Retry-After` is sent again after that time, one that was cut off as soon as
 * the server answers.
 *
 * @throws Problem of the server that waiting doesn't help; `DOMException` `AbortError` when the signal cancels.
 */
export async function retrying<T>(
  send: () => Promise<T>,
  { signal, waiting, repeatable = () => true }: Options,
): Promise<T> {
  for (let cuts = 0; ;) {
    signal.throwIfAborted()
    try {
      return await send()
    } catch (error) {
      if (signal.aborted) throw error
      const { status, detail, retryAfter, away } = asProblem(error)
      if (retryAfter !== null && [429, 503].includes(status)) {
        waiting(`${detail}; retrying automatically`)
        await during(signal, new Promise((done) => setTimeout(done, 1000 * retryAfter)))
      } else if (away && repeatable() && cuts++ < CUTS) {
        waiting('The connection was lost; retrying automatically')
        await during(signal, connection.back())
      } else {
        throw error
      }
    }
  }
}

/** Until it has come about, or the signal cancels. */
async function during(signal: AbortSignal, it: Promise<unknown>): Promise<void> {
  await Promise.race([it, new Promise((done) => signal.addEventListener('abort', done, { once: true }))])
}
