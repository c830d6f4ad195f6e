/** Training runs: their curves, samples, logs; `useRun` follows one. */
export { default as LogLines } from './LogLines.vue'
export { default as RunCharts } from './RunCharts.vue'
export { default as RunSamples } from './RunSamples.vue'
export * from './run'
export { useRun } from './useRun'
