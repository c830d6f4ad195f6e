/**
 * One event stream per browser.
 *
 * A browser opens six connections to a server at most, and a stream keeps one as long as it lives: six tabs that watch
 * something would leave none for anything else. So all streams of all tabs take turns with one, which a lock of the
 * browser guards. Browsers have such locks where the page is secure (https, or this machine); elsewhere each visible tab
 * has a stream of its own.
 */
const NAME = 'colorization stream'

/**
 * Calls `begin` when its turn has come; the turn lasts until `end` is called.
 *
 * @param signal gives up waiting.
 */
export function takeTurn(signal: AbortSignal, begin: (end: () => void) => void): void {
  if (!('locks' in navigator)) return begin(() => undefined)
  navigator.locks
    .request(NAME, { signal }, () => new Promise<void>((end) => begin(end)))
    .catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
}

/** Whether another stream waits for its turn. */
export async function othersWait(): Promise<boolean> {
  if (!('locks' in navigator)) return false
  return (await navigator.locks.query()).pending?.some((it) => it.name === NAME) ?? false
}
