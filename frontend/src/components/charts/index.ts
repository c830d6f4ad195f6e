/** Charts; Chart.js itself is loaded with the first one. */
export { default as LineChart, type Series } from './LineChart.vue'
export { default as RadarChart } from './RadarChart.vue'
