/** Many photos. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { expect, screens, test } from './fixtures'
import { makePhotos } from './photos'

const input = 'input[type=file][multiple]'

test('three hundred photos, paused, left, come back to, and fetched', async ({ page, server }) => {
  test.setTimeout(300_000)
  const { photos, damaged } = makePhotos(server.folder, 299)
  const text = join(server.folder, 'notes.txt')
  writeFileSync(text, 'no picture')

  await page.goto('/batch')
  await page.locator(input).setInputFiles([...photos, damaged, text])
  await expect(page.getByRole('heading', { name: '300 photos' })).toBeVisible()
  await expect(page.getByText('1 file left out: no picture')).toBeVisible()
  await page.getByRole('button', { name: 'Colorize 300 photos' }).click()

  const progress = page.getByRole('progressbar', { name: 'Colorizing' })
  await expect(progress).toBeVisible()
  await page.getByRole('button', { name: 'Pause' }).click()
  await expect(page.getByRole('button', { name: 'Resume' })).toBeVisible()
  await expect(page.getByRole('button', { name: /^Waiting [1-9]/ })).toBeVisible()

  await page.getByRole('navigation').getByRole('link', { name: 'Colorize' }).click()
  await page.getByRole('navigation').getByRole('link', { name: 'Batch' }).click()
  await page.reload()
  await page.getByRole('button', { name: 'Resume' }).click()
  // While hundreds go on, the page does what it is told.
  await page.getByRole('button', { name: 'List' }).click()
  await expect(page.getByRole('region', { name: 'Photos' }).getByRole('row').nth(5)).toBeVisible()
  await page.getByRole('button', { name: 'Gallery' }).click()
  await expect(page.getByRole('list', { name: 'Photos' }).getByRole('listitem')).toHaveCount(300)

  await expect(page.getByRole('link', { name: 'All as ZIP' })).toBeVisible({ timeout: 150_000 })
  await expect(page.getByRole('button', { name: 'Done 299' })).toBeVisible()
  await page.getByRole('button', { name: 'Failed 1' }).click()
  await expect(page.getByText(/damaged\.png: .*damaged or cut short/)).toBeVisible()
  const retried = page.waitForResponse(/\/retry$/)
  await page.getByRole('button', { name: 'Retry 1' }).click()
  const { url } = (await (await retried).json()) as { url: string }
  await expect.poll(async () => (await page.request.get(url)).json()).toMatchObject({ state: 'finished' })
  await expect(page.getByRole('button', { name: 'Failed 1' })).toBeVisible()
  const [file] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'All as ZIP' }).click(),
  ])
  expect(
    readFileSync(await file.path())
      .subarray(0, 2)
      .toString(),
  ).toBe('PK')
})

test('a batch in all of its states can be looked at', async ({ page, server }) => {
  test.slow()
  const { photos, tiff } = makePhotos(server.folder, 6)
  const damaged = join(server.folder, 'damaged.jpg')
  writeFileSync(damaged, readFileSync(photos[0] as string).subarray(0, 300))
  await page.goto('/batch')
  await screens(page, 'batch-empty')
  await page.locator(input).setInputFiles([...photos, tiff, damaged])
  await expect(page.getByRole('heading', { name: '8 photos' })).toBeVisible()
  await screens(page, 'batch-chosen')
  await page.getByRole('button', { name: 'Colorize 8 photos' }).click()
  await expect(page.getByRole('link', { name: 'All as ZIP' })).toBeVisible({ timeout: 60_000 })
  await expect(page.getByRole('button', { name: 'scan.tif' }).locator('img')).toBeVisible() // which the browser itself cannot show
  await screens(page, 'batch')
})
