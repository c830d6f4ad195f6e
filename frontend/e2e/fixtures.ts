/** The real server in an empty folder, with the built app; screenshots; accessibility. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

import { AxeBuilder } from '@axe-core/playwright'
import { expect, type Page, test as base } from '@playwright/test'

export const PYTHON = process.env.COLORIZATION_PYTHON ?? resolve('../.venv/bin/python')
const START = 180_000 // ms that a server may take to answer
export const SCREENS = resolve('test-results/screens')
export const SIZES = { desktop: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } }

async function freePort(): Promise<number> {
  const asked = createServer()
  await new Promise<void>((done) => asked.listen(0, '127.0.0.1', done))
  const { port } = asked.address() as { port: number }
  await new Promise((done) => asked.close(done))
  return port
}

/** `colorization serve` as a process of its own; can be stopped and started again on the same port. */
export class Server {
  readonly folder = mkdtempSync(join(tmpdir(), 'colorization-e2e-'))
  port = 0
  private process: ChildProcess | undefined

  get log(): string {
    return join(this.folder, 'server.log')
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async start(...overrides: string[]): Promise<this> {
    this.port ||= await freePort()
    const log = createWriteStream(this.log, { flags: 'a' })
    const it = spawn(PYTHON, ['-m', 'colorization.api.server', 'serve', '--port', String(this.port), ...overrides], {
      cwd: this.folder,
    })
    this.process = it
    it.stdout.pipe(log)
    it.stderr.pipe(log)
    const until = Date.now() + START
    while (Date.now() < until) {
      if (it.exitCode !== null) break
      const answer = await fetch(`${this.url}/api/health`).catch(() => null)
      if (answer?.ok) return this
      await new Promise((done) => setTimeout(done, 200))
    }
    await this.stop('SIGKILL')
    throw new Error(`the server did not start; see ${this.log}`)
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const it = this.process
    this.process = undefined
    if (!it || it.exitCode !== null || it.signalCode !== null) return
    const ended = new Promise((done) => it.once('exit', done))
    it.kill(signal)
    await ended
  }

  /** The runs outlive the server, and would go on writing into its folder. */
  async endRuns(): Promise<void> {
    for (;;) {
      const runs: { id: string; state: string }[] = []
      for (const state of ['queued', 'running']) {
        const answer = await fetch(`${this.url}/api/training/runs?state=${state}`)
        runs.push(...((await answer.json()) as { runs: typeof runs }).runs)
      }
      if (!runs.length) return
      for (const { id } of runs)
        await fetch(`${this.url}/api/training/stop/${id}`, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: '{"force": true}',
        })
      await new Promise((done) => setTimeout(done, 200))
    }
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export const test = base.extend<{ faults: string[] }, { server: Server; serverOf: string }>({
  /** `test.use({ serverOf: 'history' })`: a server that other files have done nothing on. */
  serverOf: ['all', { option: true, scope: 'worker' }],
  /** One for each worker. A test that stops it has to start it again. */
  server: [
    async ({}, use) => {
      if (!existsSync('../src/colorization/web/index.html')) throw new Error('the app is not built: run `make web`')
      const server = await new Server().start()
      await use(server)
      await server.endRuns()
      await server.stop()
      server.remove()
    },
    { scope: 'worker', timeout: START + 60_000 },
  ],
  baseURL: ({ server }, use) => use(server.url),
  /**
   * What the page complained of: refused by the content security policy, thrown, not found. A test fails with any left,
   * and one that fails keeps the server's log beside its screenshot.
   */
  faults: [
    async ({ page, server }, use, info) => {
      const faults: string[] = []
      page.on('pageerror', (error) => faults.push(String(error)))
      page.on('console', (message) => message.type() === 'error' && faults.push(message.text()))
      await use(faults)
      if (info.status !== info.expectedStatus || faults.length) await info.attach('server.log', { path: server.log })
      expect(faults).toEqual([])
    },
    { auto: true },
  ],
})

/** Fails with what keeps people from using the page (WCAG 2.2 A and AA). */
export async function accessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page })
    .setLegacyMode() // within the page: a page has no frames that would need another one
    .options({ resultTypes: ['violations'] })
    .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
    .analyze()
  expect(violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(' | ')}`)).toEqual([])
}

/** The page in both themes and both sizes, into test-results/screens; checked for accessibility in each, and for width. */
export async function screens(page: Page, name: string): Promise<void> {
  for (const theme of ['light', 'dark'] as const) {
    await page.evaluate((it) => (document.documentElement.dataset.theme = it), theme)
    for (const [size, viewport] of Object.entries(SIZES)) {
      await page.setViewportSize(viewport)
      await page.screenshot({ path: join(SCREENS, `${name}-${theme}-${size}.png`), animations: 'disabled' })
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      expect(wide, `${name} can be scrolled sideways (${size})`).toBeLessThanOrEqual(0)
      await accessible(page)
    }
  }
  await page.setViewportSize(SIZES.desktop)
}

export { expect }
