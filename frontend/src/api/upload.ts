/** Uploads by XMLHttpRequest, which alone tells how far it is. */
import { notice } from './client'
import { Problem } from './problem'

export interface UploadOptions {
  /** Bytes that have left, of all. */
  onProgress?: (sent: number, total: number) => void
  signal?: AbortSignal
  accept?: string
}

/**
 * POST a form; resolves with the JSON of the answer.
 *
 * @throws Problem of the server; `DOMException` `AbortError` when the signal cancels.
 */
export function upload<T>(url: string, form: FormData, options: UploadOptions = {}): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancelled = () => new DOMException('The upload was cancelled', 'AbortError')
    if (options.signal?.aborted) return reject(cancelled())
    const request = new XMLHttpRequest()
    const abort = () => request.abort()
    options.signal?.addEventListener('abort', abort)
    request.open('POST', url)
    request.setRequestHeader('Accept', options.accept ?? 'application/json')
    request.upload.onprogress = (event) => options.onProgress?.(event.loaded, event.total)
    request.onabort = () => reject(cancelled())
    request.onerror = () => reject(notice(Problem.away()))
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(JSON.parse(request.responseText) as T)
      else reject(notice(Problem.from(request.status, request.responseText, request.getResponseHeader('Retry-After'))))
    }
    request.onloadend = () => options.signal?.removeEventListener('abort', abort)
    request.send(form)
  })
}
