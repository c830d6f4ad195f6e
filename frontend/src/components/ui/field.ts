/** How a control inside a `Field` learns its label, hint and error. */
import { computed, type ComputedRef, inject, type InjectionKey, useId } from 'vue'

interface FieldContext {
  id: string
  described: ComputedRef<string | undefined>
  invalid: ComputedRef<boolean>
}

export const FIELD: InjectionKey<FieldContext> = Symbol('field')

/** @returns the attributes of the control: `v-bind="attributes"`. */
export function useField() {
  const field = inject(FIELD, null)
  const id = field?.id ?? useId()
  const attributes = computed(() => ({
    id,
    'aria-describedby': field?.described.value,
    'aria-invalid': field?.invalid.value || undefined,
  }))
  return { id, attributes }
}

/** The look of what is written into or picked from. */
export const BOX =
  'h-9 w-full rounded border border-control bg-surface px-3 text-text transition-colors duration-fast placeholder:text-muted hover:border-text disabled:cursor-not-allowed disabled:opacity-50 aria-invalid:border-danger'
