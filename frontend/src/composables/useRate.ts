/** How fast a count grows, and when it will be there. */
import { computed, type MaybeRefOrGetter, ref, toValue, watch } from 'vue'

const WINDOW = 30_000 // ms that the rate is taken over: long enough to be calm, short enough to follow

/** @returns `rate` per second and `eta` in seconds; `null` until they are known. */
export function useRate(value: MaybeRefOrGetter<number | null>, max: MaybeRefOrGetter<number | null>) {
  const samples = ref<{ time: number; value: number }[]>([])
  watch(
    () => toValue(value),
    (now) => {
      if (now === null) return
      const time = Date.now()
      const newest = samples.value.at(-1)
      const kept = newest && now < newest.value ? [] : samples.value // it went back: something else is counted
      samples.value = [...kept.filter((sample) => time - sample.time <= WINDOW), { time, value: now }]
    },
    { immediate: true },
  )
  const rate = computed(() => {
    const [first, newest] = [samples.value[0], samples.value.at(-1)]
    if (!first || !newest || newest.time - first.time < 500 || newest.value <= first.value) return null
    return ((newest.value - first.value) / (newest.time - first.time)) * 1000
  })
  const eta = computed(() => {
    const [total, newest] = [toValue(max), samples.value.at(-1)]
    if (rate.value === null || total === null || !newest || newest.value >= total) return null
    return (total - newest.value) / rate.value
  })
  return { rate, eta }
}
