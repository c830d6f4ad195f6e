/** What went wrong, in the server's own sentence (RFC 9457), or that the server did not answer. */
export class Problem extends Error {
  override name = 'Problem'

  /**
   * @param status of HTTP; 0: the server did not answer.
   * @param detail one sentence for the person.
   * @param fields field -> reasons, of input that was refused.
   * @param retryAfter seconds after which it is worth trying again.
   */
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly fields: Record<string, string[]> = {},
    readonly retryAfter: number | null = null,
  ) {
    super(detail)
  }

  /** Whether the server is away rather than of another opinion. */
  get away(): boolean {
    return [0, 502, 504].includes(this.status)
  }

  /** The first reason against a field, for the `error` of a `Field`. */
  of(field: string): string | undefined {
    return this.fields[field]?.[0]
  }

  /** @param text the body of an answer; a proxy's, which is no JSON, gets a sentence of our own. */
  static from(status: number, text: string, retryAfter: string | null = null): Problem {
    const seconds = retryAfter && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null
    try {
      const body = JSON.parse(text) as { detail?: string; title?: string; errors?: Record<string, string[]> }
      return new Problem(status, body.detail || body.title || `The server answered ${status}`, body.errors, seconds)
    } catch {
      return new Problem(status, `The server answered ${status} without a reason`, {}, seconds)
    }
  }

  static away(): Problem {
    return new Problem(0, 'The server does not answer. It may be starting, or the connection may be down.')
  }
}

/** What was thrown, as a problem; a bug of the app reads as one. */
export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  console.error(error)
  return new Problem(-1, 'Something went wrong in this page; reload it to try again.')
}
