/** Several tabs at once. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'

import type { Page } from '@playwright/test'

import { expect, type Server, test } from './fixtures'
import { makePhotos } from './photos'

const TABS = 8 // a browser opens six connections to a server

/** @returns the id of a batch that is paused: its stream is open and tells nothing. */
async function paused(server: Server, photos: string[]): Promise<string> {
  const form = new FormData()
  for (const photo of photos) form.append('files', new Blob([readFileSync(photo)]), basename(photo))
  const answer = await fetch(`${server.url}/api/colorize/batch`, { method: 'POST', body: form })
  const { id } = (await answer.json()) as { id: string }
  expect((await fetch(`${server.url}/api/jobs/${id}/pause`, { method: 'POST' })).status).toBe(200)
  return id
}

test('many tabs share one stream, hidden ones have none, and all learn what happens', async ({ context, server }) => {
  test.setTimeout(240_000)
  const { photos } = makePhotos(server.folder, 24)
  const jobs = [await paused(server, photos), await paused(server, photos)]
  const tabs: Page[] = []
  for (let tab = 0; tab < TABS; tab++) {
    const page = await context.newPage()
    await page.addInitScript((id) => sessionStorage.setItem('batch', id as string), jobs[tab % jobs.length])
    await page.goto('/batch')
    await expect(page.getByRole('button', { name: 'Resume' })).toBeVisible()
    tabs.push(page)
  }

  const open = async () => {
    const { streams } = (await (await fetch(`${server.url}/api/system`)).json()) as { streams: { open: number } }
    return streams.open
  }
  const show = (hidden: boolean) =>
    Promise.all(
      tabs.map((page) =>
        page.evaluate((is) => {
          Object.defineProperty(document, 'hidden', { configurable: true, value: is })
          document.dispatchEvent(new Event('visibilitychange'))
        }, hidden),
      ),
    )
  await expect.poll(open).toBe(1)
  await show(true)
  await expect.poll(open).toBe(0)
  await show(false)
  await expect.poll(open).toBe(1)

  for (const page of tabs.slice(-jobs.length)) await page.getByRole('button', { name: 'Resume' }).click()
  for (const page of tabs)
    await expect(page.getByRole('link', { name: 'All as ZIP' })).toBeVisible({ timeout: 120_000 })
})
