/** Short notes at the edge of the page about what has happened elsewhere. What a person must not miss belongs in the page. */
import { readonly, ref } from 'vue'

export interface Toast {
  id: number
  title: string
  detail?: string
  tone: 'plain' | 'danger'
}

const toasts = ref<Toast[]>([])
let next = 0

function toast(title: string, options: Partial<Pick<Toast, 'detail' | 'tone'>> = {}): void {
  toasts.value.push({ id: next++, title, tone: 'plain', ...options })
}

function dismiss(id: number): void {
  toasts.value = toasts.value.filter((it) => it.id !== id)
}

export function useToast() {
  return { toasts: readonly(toasts), toast, dismiss }
}
