// Before the first paint, so that a dark page does not flash white. The rest is in src/composables/useTheme.ts.
;(function () {
  var kept = null
  try {
    kept = localStorage.getItem('theme')
  } catch {
    // storage is blocked: the system's theme
  }
  var dark = kept === 'dark' || (kept !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches)
  document.documentElement.dataset.theme = dark ? 'dark' : 'light'
})()
