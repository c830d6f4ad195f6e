/** The files of a batch: what may be sent, and how each of them is, from what was fetched and what the stream told. */
import type { Schemas } from '@/api/client'
import type { StreamEvent } from '@/composables/useStream'
import { bytes, count } from '@/format'

import type { Answer } from '../colorize/options'

export type Item = Omit<Schemas['ItemOut'], 'result'> & { result: Answer | null }

const ENDED = ['finished', 'failed', 'cancelled']

export function hasEnded(state: string | undefined): boolean {
  return ENDED.includes(state ?? '')
}

/**
 * The items as they are now, and the job's state where the stream has told it.
 *
 * @param fetched all items, asked for when the job was opened or tried again.
 * @param events of the whole stream from its beginning. What was told before the job was tried again no longer holds.
 */
export function merged(fetched: readonly Item[], events: readonly StreamEvent[]): { items: Item[]; state?: string } {
  let told = new Map<number, Item>()
  let state: string | undefined
  for (const event of events) {
    if (event.type === 'item') told.set((event.data as Item).number, event.data as Item)
    if (event.type !== 'state') continue
    const next = (event.data as { state: string }).state
    if (next === 'queued' && hasEnded(state)) told = new Map()
    state = next
  }
  return { items: fetched.map((item) => told.get(item.number) ?? item), state }
}

const PICTURE = /\.(jpe?g|jpe|jfif|png|webp|tiff?|bmp|gif|jp2|heic|heif|avif)$/i

const keyOf = (file: File) => `${file.webkitRelativePath || file.name} ${file.size} ${file.lastModified}`

export type Limits = Pick<Schemas['LimitsOut'], 'batch_files' | 'batch_mb' | 'upload_mb'>

/**
 * Files that are added to those chosen: pictures alone, each once, no more than the server takes.
 *
 * @returns all that are chosen now, and a sentence for each kind that was left out.
 */
export function added(
  chosen: readonly File[],
  more: readonly File[],
  limits: Limits,
): { files: File[]; left: string[] } {
  const known = new Set(chosen.map(keyOf))
  const files = [...chosen]
  let total = files.reduce((sum, file) => sum + file.size, 0)
  const left = { strange: 0, large: 0, many: 0 }
  for (const file of more) {
    if (known.has(keyOf(file))) continue
    if (!file.type.startsWith('image/') && !PICTURE.test(file.name)) left.strange += 1
    else if (file.size > limits.upload_mb * 1e6) left.large += 1
    else if (files.length >= limits.batch_files || total + file.size > limits.batch_mb * 1e6) left.many += 1
    else {
      known.add(keyOf(file))
      files.push(file)
      total += file.size
    }
  }
  const said = [
    left.strange && `${count(left.strange, 'file')} left out: no picture by name or type.`,
    left.large && `${count(left.large, 'file')} left out: this server takes ${bytes(limits.upload_mb * 1e6)} a file.`,
    left.many &&
      `${count(left.many, 'file')} left out: this server takes ${count(limits.batch_files, 'photo')} and ${bytes(limits.batch_mb * 1e6)} at once. Send these, then the rest.`,
  ]
  return { files, left: said.filter((it): it is string => Boolean(it)) }
}
