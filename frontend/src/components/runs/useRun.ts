/** A run as it goes on: its stream, merged; heals itself like the stream. */
import { type MaybeRefOrGetter, shallowRef, toValue, triggerRef, watch } from 'vue'

import { useStream } from '@/composables/useStream'

import { take, untold } from './run'

export function useRun(id: MaybeRefOrGetter<string>) {
  const told = shallowRef(untold())
  const { state, problem, events } = useStream(() => `/api/training/stream/${encodeURIComponent(toValue(id))}`, {
    keep: 1, // they are merged as they come
    onEvent: (event) => take(told.value, event.type, event.data),
  })
  watch(
    () => toValue(id),
    () => (told.value = untold()),
    { flush: 'sync' },
  )
  watch(events, () => triggerRef(told))
  return { told, state, problem }
}
