/** Pictures as this browser can show them. */
import { notice } from '@/api/client'
import { Problem } from '@/api/problem'
import type { Schemas } from '@/api/client'

type Result = Pick<Schemas['ResultOut'], 'url' | 'media_type'>

const SHOWN = ['image/jpeg', 'image/png', 'image/webp', 'image/avif', 'image/gif', 'image/bmp']
const ALL = 65_500 // pixels of a side: none is left out

/** The address of a result for an `<img>`, at full resolution; what no browser shows (TIFF) comes as a JPEG. */
export function shown(result: Result): string {
  return SHOWN.includes(result.media_type) ? result.url : `${result.url}?side=${ALL}`
}

/** The same, small. */
export function thumbnail(result: Pick<Result, 'url'>, side = 360): string {
  return `${result.url}?side=${side}`
}

async function decoded(url: string): Promise<HTMLImageElement> {
  const image = new Image()
  image.src = url
  await image.decode()
  return image
}

/** An object URL of a photo of this machine; `null` where the browser does not know its type. */
export async function local(file: File): Promise<string | null> {
  try {
    ;(await createImageBitmap(file)).close()
  } catch {
    return null
  }
  return URL.createObjectURL(file)
}

/** A picture that the server sends. @throws Problem; `DOMException` `AbortError` when the signal of `init` cancels. */
export async function fetched(url: string, init?: RequestInit): Promise<Blob> {
  try {
    const answer = await fetch(url, init)
    if (answer.ok) return await answer.blob()
    throw notice(Problem.from(answer.status, await answer.text(), answer.headers.get('Retry-After')))
  } catch (error) {
    throw error instanceof TypeError ? notice(Problem.away()) : error
  }
}

/** Such a photo as the server shows it. @throws as {@link fetched} */
export function preview(file: File, signal: AbortSignal): Promise<Blob> {
  const body = new FormData()
  body.append('file', file)
  return fetched('/api/colorize/preview', { method: 'POST', body, signal })
}

/** An object URL of a picture without its colours. */
export async function grey(url: string): Promise<string> {
  const image = await decoded(url)
  const canvas = document.createElement('canvas')
  canvas.width = image.naturalWidth
  canvas.height = image.naturalHeight
  const context = canvas.getContext('2d')
  if (!context) throw new Error('there is no canvas')
  context.filter = 'grayscale(1)'
  context.drawImage(image, 0, 0)
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, 'image/jpeg', 0.92))
  if (!blob) throw new Error('the picture is too large for a canvas')
  return URL.createObjectURL(blob)
}
