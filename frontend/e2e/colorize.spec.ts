/** One photo. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Page } from '@playwright/test'

import { expect, screens, test } from './fixtures'
import { makePhotos } from './photos'

const input = 'input[type=file][aria-label]'

test('a photo is picked, colorized, compared, changed and downloaded', async ({ page, server }) => {
  test.slow()
  const { photos } = makePhotos(server.folder, 1)
  await page.goto('/colorize')
  await screens(page, 'colorize-empty')
  await page.locator(input).setInputFiles(photos[0] as string)
  const download = page.getByRole('link', { name: 'Download' })
  await expect(download).toBeVisible()
  const divider = page.getByRole('slider', { name: 'Divider' })
  await divider.focus()
  await page.keyboard.press('End')
  await expect(divider).toHaveAttribute('aria-valuenow', '100')
  await page.keyboard.press('Home')
  await page.keyboard.down(' ')
  await expect(divider).toBeHidden()
  await page.keyboard.up(' ')
  await expect(divider).toBeVisible()

  const first = await download.getAttribute('href')
  await page.getByLabel('File format').selectOption('png')
  await expect(download).not.toHaveAttribute('href', first as string)
  const [file] = await Promise.all([page.waitForEvent('download'), download.click()])
  expect(file.suggestedFilename()).toBe('photo-000-colorized.png')
  expect(
    readFileSync(await file.path())
      .subarray(1, 4)
      .toString(),
  ).toBe('PNG')
  // What has been replaced is gone from the server, and the photo in hand outlives a look at another page.
  await expect.poll(async () => (await page.request.get(first as string)).status()).toBe(404)
  await page.getByRole('navigation').getByRole('link', { name: 'Batch' }).click()
  await expect(page.getByRole('heading', { level: 1, name: 'Batch' })).toBeVisible()
  await page.goBack()
  await expect(download).toBeVisible()
})

test('a colour photo is measured, and where the model was guessing is shown', async ({ page }) => {
  test.slow()
  await page.goto('/colorize?sample')
  const metrics = page.getByRole('group', { name: 'Metrics' })
  await expect(metrics).toContainText('PSNR', { timeout: 120_000 }) // torch is imported
  await expect(metrics).toContainText('ΔE2000')
  await page.getByRole('switch', { name: 'Uncertainty' }).click()
  await expect(page.locator('[data-photo] img')).toHaveCount(3)
  await page.getByRole('switch', { name: 'Uncertainty' }).click()
  await expect(page.locator('[data-photo] img')).toHaveCount(2)
  await expect(page.getByRole('progressbar')).toBeHidden()
  await page.getByRole('button', { name: 'True colours' }).click()
  await expect(page.locator('[data-photo] img').first()).toHaveAttribute('alt', /true colours/)
  await screens(page, 'colorize')
})

test('a TIFF, which the browser does not know, is shown; a file that is no photo is refused', async ({
  page,
  server,
  faults,
}) => {
  const { tiff } = makePhotos(server.folder, 0)
  await page.goto('/colorize')
  await page.locator(input).setInputFiles(tiff)
  await expect(page.getByRole('slider', { name: 'Divider' })).toBeVisible()
  await expect(page.getByText('640 × 427')).toBeVisible()
  await expect(page.getByRole('alert')).toHaveCount(0)
  const natural = () =>
    page.locator('[data-photo] img').evaluateAll((all) => all.map((it) => (it as HTMLImageElement).naturalWidth))
  await expect.poll(natural).toEqual([640, 640])

  const bad = join(server.folder, 'letter.jpg')
  writeFileSync(bad, 'Dear archive,')
  await page.locator(input).setInputFiles(bad)
  await expect(page.getByRole('alert')).toContainText('letter.jpg: is no picture of a known type')
  expect(faults.splice(0)).toHaveLength(1) // the browser's own line about the 415
  await page.getByRole('button', { name: 'Choose another photo' }).click()
  await expect(page.getByText('Drop a photo here')).toBeVisible()
})

/** The first request to `url` is refused for a second, the second is cut off. @returns how many there were. */
async function troubled(page: Page, url: string): Promise<() => number> {
  const busy = { status: 503, title: 'Service Unavailable', detail: 'too many photos wait already' }
  let tries = 0
  await page.route(url, (route) => {
    tries += 1
    if (tries === 1) return route.fulfill({ status: 503, headers: { 'Retry-After': '1' }, json: busy })
    if (tries === 2) return route.abort('connectionreset')
    return route.continue()
  })
  return () => tries
}

test('a photo that the server has no room for, or that is cut off, is sent again by itself', async ({
  page,
  server,
  faults,
}) => {
  test.slow()
  const { photos } = makePhotos(server.folder, 1)
  const tries = await troubled(page, '**/api/colorize')
  await page.goto('/colorize')
  await page.locator(input).setInputFiles(photos[0] as string)
  await expect(page.getByRole('link', { name: 'Download' })).toBeVisible()
  expect(tries()).toBe(3)
  expect(faults.splice(0)).toHaveLength(2) // the browser's own lines about the two
})

test('so are the sample photo and the preview of a TIFF; waiting can be cancelled', async ({
  page,
  server,
  faults,
}) => {
  test.slow()
  const { tiff } = makePhotos(server.folder, 0)
  const samples = await troubled(page, '**/api/sample')
  await page.goto('/colorize?sample')
  await expect(page.getByText('too many photos wait already; retrying automatically')).toBeVisible()
  await page.getByRole('button', { name: 'Cancel' }).click()
  await expect(page.getByRole('progressbar')).toBeHidden()
  await page.getByRole('button', { name: 'Try the sample photo' }).click() // cut off
  await expect(page.getByRole('link', { name: 'Download' })).toBeVisible({ timeout: 120_000 })
  expect(samples()).toBe(3)

  const previews = await troubled(page, '**/api/colorize/preview')
  await page.locator(input).setInputFiles(tiff)
  await expect(page.getByText('640 × 427')).toBeVisible()
  await expect(page.getByRole('slider', { name: 'Divider' })).toBeVisible()
  expect(previews()).toBe(3)
  await expect(page.getByRole('alert')).toHaveCount(0)
  expect(faults.splice(0)).toHaveLength(4)
})
