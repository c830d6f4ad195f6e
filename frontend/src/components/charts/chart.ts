/** Chart.js with the parts that this app draws; loaded when the first chart is shown. */
import {
  CategoryScale,
  Chart,
  Decimation,
  Filler,
  LinearScale,
  LineController,
  LineElement,
  LogarithmicScale,
  PointElement,
  RadarController,
  RadialLinearScale,
  Tooltip,
} from 'chart.js'

Chart.register(
  CategoryScale,
  Decimation,
  Filler,
  LinearScale,
  LineController,
  LineElement,
  LogarithmicScale,
  PointElement,
  RadarController,
  RadialLinearScale,
  Tooltip,
)
Chart.defaults.animation = false
Chart.defaults.font.family = 'Inter Variable, system-ui, sans-serif'
Chart.defaults.maintainAspectRatio = false

export { Chart }
