/** Which of a list are chosen: click, shift-click for a range, all, none. */
import { computed, type MaybeRefOrGetter, ref, toValue } from 'vue'

/** @param ids of all that can be chosen, in their order; what leaves the list is no longer chosen. */
export function useSelection<Id extends string | number>(ids: MaybeRefOrGetter<readonly Id[]>) {
  const chosen = ref(new Set<Id>())
  let anchor: Id | undefined

  const selected = computed(() => toValue(ids).filter((id) => (chosen.value as Set<Id>).has(id)))
  const has = (id: Id) => selected.value.includes(id)
  const set = (values: Iterable<Id>) => (chosen.value = new Set(values) as typeof chosen.value)

  function toggle(id: Id, range = false): void {
    const all = toValue(ids)
    const next = new Set(selected.value)
    const from = anchor === undefined ? -1 : all.indexOf(anchor)
    if (range && from >= 0) {
      const to = all.indexOf(id)
      for (const between of all.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(between)
    } else {
      if (!next.delete(id)) next.add(id)
      anchor = id
    }
    set(next)
  }

  return {
    selected,
    has,
    toggle,
    all: computed(() => selected.value.length > 0 && selected.value.length === toValue(ids).length),
    selectAll: () => set(toValue(ids)),
    clear: () => set([]),
  }
}
