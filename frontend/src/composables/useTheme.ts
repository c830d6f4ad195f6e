/** Dark or light, or as the system has it; kept in this browser, the same in all of its tabs. */
import { computed, readonly, ref, watchEffect } from 'vue'

export const THEMES = ['system', 'light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

const KEY = 'theme' // public/theme.js reads it too

function kept(): Theme {
  const value = localStorage.getItem(KEY)
  return value === 'dark' || value === 'light' ? value : 'system'
}

const theme = ref<Theme>(kept())
const system = matchMedia('(prefers-color-scheme: dark)')
const systemIsDark = ref(system.matches)
system.addEventListener('change', (event) => (systemIsDark.value = event.matches))
addEventListener('storage', (event) => {
  if (event.key === KEY || event.key === null) theme.value = kept()
})

const dark = computed(() => theme.value === 'dark' || (theme.value === 'system' && systemIsDark.value))
watchEffect(() => (document.documentElement.dataset.theme = dark.value ? 'dark' : 'light'))

function setTheme(value: Theme): void {
  theme.value = value
  if (value === 'system') localStorage.removeItem(KEY)
  else localStorage.setItem(KEY, value)
}

/** @returns the choice, whether that is dark now, and how to choose. */
export function useTheme() {
  return { theme: readonly(theme), dark, setTheme }
}
