/** What figures and settings there are: `GET /api/schema`, asked once when the app starts and kept. */
import { queryOptions } from '@tanstack/vue-query'
import { computed, shallowRef } from 'vue'

import { number } from '@/format'

import { api, ok, type Schemas } from './client'

export type Facts = Schemas['SchemaOut']
export type Metric = Schemas['MetricOut']
export type Setting = Schemas['SettingOut']

const known = shallowRef<Facts>()

/** `useQuery(facts)` where a page has nothing to show without it; App.vue keeps it, and has it asked again if it failed. */
export const facts = queryOptions({
  queryKey: ['schema'],
  queryFn: async () => (known.value = await ok(api.GET('/api/schema'))),
  staleTime: Infinity,
  gcTime: Infinity,
})

/** Tests have facts of their own. */
export const setFacts = (given: Facts) => (known.value = given)

/** All metrics, the main one first; none before the server has answered. */
export const metrics = computed(() => {
  const { metrics: all = [], main } = known.value ?? {}
  return [...all.filter((it) => it.name === main), ...all.filter((it) => it.name !== main)]
})
/** The name of the metric by which rows, runs and photos are put into order. */
export const main = computed(() => known.value?.main ?? '')
/** What trainings log besides the metrics. */
export const logged = computed(() => known.value?.logged ?? [])
/** Ids of the weights that colorize where none are chosen. */
export const usualWeights = computed(() => known.value?.weights ?? null)

export const metric = (name: string): Metric | undefined => metrics.value.find((it) => it.name === name)
/** The settings of a form; none before the server has answered. */
export const form = (name: keyof Facts['forms']): readonly Setting[] => known.value?.forms[name] ?? []

/** A figure as it is written everywhere: with the digits of its metric. */
export function figure(name: string, value: unknown, more = 0): string {
  const known = metric(name)
  return number(typeof value === 'number' ? value : null, (known?.digits ?? 2) + more)
}
/** `PSNR, dB` */
export const withUnit = (label: string, unit: string) => (unit ? `${label}, ${unit}` : label)

/** What a setting is set to; `null`: to nothing, which leaves it to the weights. */
export type Value = string | number | boolean | null
export type Values = Record<string, Value>

const NONE = 'none' // of a choice that may be left out

/** The value that holds: what was given, else the default. */
export function valueOf(setting: Setting, given: Value | undefined): Value {
  const nothing = setting.choices.length && setting.none ? NONE : null
  return given ?? (setting.default as Value) ?? nothing
}

/** The values of a form as JSON and, where it has files with it, as text. */
export function bodyOf(settings: readonly Setting[], given: Values): Values {
  return Object.fromEntries(
    settings
      .map((it) => [it.key, valueOf(it, given[it.key])])
      .map(([key, value]) => [key, value === NONE ? null : value]),
  ) as Values
}
export function append(form: FormData, settings: readonly Setting[], given: Values): void {
  for (const it of settings) {
    const value = valueOf(it, given[it.key])
    if (value !== null) form.append(it.key, String(value))
  }
}
