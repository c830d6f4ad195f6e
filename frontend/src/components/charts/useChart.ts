/** A chart of Chart.js in a canvas: made when it is needed, drawn anew when its data or the theme change. */
import type { Chart as ChartType, ChartConfiguration } from 'chart.js'
import { onMounted, onUnmounted, type ShallowRef, watch } from 'vue'

import { useTheme } from '@/composables/useTheme'

/** How many series have a colour of their own; more repeat them with a dashed line. */
export const COLOURS = 6

export interface Look {
  text: string
  muted: string
  line: string
  surface: string
  /** Of the series with that index. */
  series: (index: number) => { colour: string; dash: number[] }
}

/** What the tokens are where the canvas stands. */
function lookOf(element: Element): Look {
  const style = getComputedStyle(element)
  const token = (name: string) => style.getPropertyValue(`--${name}`).trim()
  return {
    text: token('text'),
    muted: token('muted'),
    line: token('line'),
    surface: token('surface'),
    series: (index) => ({
      colour: token(`series-${(index % COLOURS) + 1}`),
      dash: index < COLOURS ? [] : [6, 4],
    }),
  }
}

/** @param configure what to draw; whatever it reads makes the chart follow. */
export function useChart(
  canvas: Readonly<ShallowRef<HTMLCanvasElement | null>>,
  configure: (look: Look) => ChartConfiguration,
) {
  const { dark } = useTheme()
  let chart: ChartType | undefined
  let gone = false
  onMounted(async () => {
    const { Chart } = await import('./chart')
    watch(
      () => [dark.value, canvas.value && configure(lookOf(canvas.value))] as const,
      ([, configuration]) => {
        if (gone || !canvas.value || !configuration) return
        if (chart) {
          chart.data = configuration.data
          chart.options = configuration.options ?? {}
          chart.update()
        } else chart = new Chart(canvas.value, configuration)
      },
      { immediate: true, flush: 'post' },
    )
  })
  onUnmounted(() => {
    gone = true
    chart?.destroy()
  })
}
