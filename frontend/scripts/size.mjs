// Fails when the scripts that every page loads first weigh more than LIMIT.
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'

const LIMIT = 200_000
const BUILT = '../src/colorization/web'

const manifest = JSON.parse(readFileSync(`${BUILT}/.vite/manifest.json`, 'utf8'))
const first = new Set()
const visit = (key) => {
  if (first.has(key)) return
  first.add(key)
  manifest[key].imports?.forEach(visit)
}
visit('index.html')
const sizes = [...first].map((key) => gzipSync(readFileSync(`${BUILT}/${manifest[key].file}`)).length)
const total = sizes.reduce((sum, size) => sum + size, 0)
console.log(
  `first load: ${(total / 1000).toFixed(1)} kB gzip of script in ${sizes.length} files, at most ${LIMIT / 1000} kB`,
)
if (total > LIMIT) process.exit(1)
