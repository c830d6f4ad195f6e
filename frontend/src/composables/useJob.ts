/** A job as it goes on: what its answer said, and what its stream has told since. */
import { computed, type MaybeRefOrGetter, toValue } from 'vue'

import type { Schemas } from '@/api/client'

import { type StreamEvent, useStream } from './useStream'

export type Job = Schemas['JobOut']
export type JobItem = Schemas['ItemOut']

const ENDED = ['finished', 'failed', 'cancelled']

/** The job with the events of its stream in it; `items` by their number, as far as they were told. */
export function merged(job: Job, events: readonly StreamEvent[]): Job & { items: JobItem[] } {
  const items = new Map<number, JobItem>()
  let now = { ...job }
  for (const { type, data } of events) {
    if (type === 'item') items.set((data as JobItem).number, data as JobItem)
    else if (type === 'state' || type === 'progress') now = { ...now, ...(data as Partial<Job>) }
  }
  return { ...now, items: [...items.values()].sort((a, b) => a.number - b.number) }
}

/** @param job as an answer told it; `null`: none. */
export function useJob(job: MaybeRefOrGetter<Job | null | undefined>) {
  const stream = useStream(() => {
    const it = toValue(job)
    return it && !ENDED.includes(it.state) ? it.stream : null
  })
  const live = computed(() => {
    const it = toValue(job)
    return it ? merged(it, stream.events.value) : null
  })
  return {
    job: live,
    ended: computed(() => live.value !== null && ENDED.includes(live.value.state)),
    stream: stream.state,
    problem: stream.problem,
  }
}
