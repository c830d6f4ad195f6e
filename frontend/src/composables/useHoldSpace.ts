/** True while the space bar is held: photographs then show their original. */
import { onScopeDispose, readonly, ref, type Ref } from 'vue'

// Where space writes or presses. Inside a photo viewer it never does.
const TAKEN =
  'input, textarea, select, button, a, summary, [contenteditable], [role="dialog"] *, [role="switch"], [role="tab"]'

export function useHoldSpace(): Readonly<Ref<boolean>> {
  const held = ref(false)
  const free = (target: EventTarget | null) =>
    !(target instanceof Element) || target.closest('[data-photo]') !== null || !target.matches(TAKEN)
  const down = (event: KeyboardEvent) => {
    if (event.key !== ' ' || event.ctrlKey || event.altKey || event.metaKey || !free(event.target)) return
    event.preventDefault() // no scrolling, even while the key repeats
    held.value = true
  }
  const up = (event: KeyboardEvent) => {
    if (event.key === ' ') held.value = false
  }
  const drop = () => (held.value = false) // the key may come up in another window
  addEventListener('keydown', down)
  addEventListener('keyup', up)
  addEventListener('blur', drop)
  onScopeDispose(() => {
    removeEventListener('keydown', down)
    removeEventListener('keyup', up)
    removeEventListener('blur', drop)
  })
  return readonly(held)
}
