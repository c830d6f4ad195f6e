/** Numbers and times as people read them, everywhere the same. */

const EN_DASH = '–'

/** `12.3` with so many digits after the point; a dash for what is not known. */
export function number(value: number | null | undefined, digits = 0): string {
  if (value == null || !Number.isFinite(value)) return EN_DASH
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/** `3 files`, `1 file`. */
export function count(value: number, one: string, many = `${one}s`): string {
  return `${number(value)} ${value === 1 ? one : many}`
}

/** `1.4 MB`; powers of 1000, as disks are sold and the server counts. */
export function bytes(value: number | null | undefined): string {
  if (value == null) return EN_DASH
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${number(value, unit > 0 && value < 10 ? 1 : 0)} ${units[unit]}`
}

/** `8 s`, `3 min 20 s`, `2 h 5 min` of seconds. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return EN_DASH
  if (seconds < 9.95) return `${number(seconds, 1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  const minutes = Math.round(whole / 60)
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** `just now`, `5 minutes ago`, `yesterday` of an ISO time. */
export function ago(time: string, now = Date.now()): string {
  const seconds = (new Date(time).getTime() - now) / 1000
  if (seconds > -45) return 'just now'
  const format = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })
  const minutes = seconds / 60
  if (minutes > -60) return format.format(Math.round(minutes), 'minute')
  if (minutes > -24 * 60) return format.format(Math.round(minutes / 60), 'hour')
  return format.format(Math.round(minutes / 60 / 24), 'day')
}
