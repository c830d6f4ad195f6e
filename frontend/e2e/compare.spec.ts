/** One photo through several models. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { expect, screens, test } from './fixtures'
import { prepare } from './measuring'

const DONE = 180_000 // ms that a comparison may take on a busy machine
let photos: string

test.beforeAll(({ server }) => {
  photos = prepare(server)
})

test('a photo through all models and their ensemble, linked, with figures', async ({ page }) => {
  test.setTimeout(DONE + 90_000)
  await page.goto('/compare')
  await page.getByRole('button', { name: /^Show all/ }).click()
  await page.getByRole('checkbox', { name: /^pale/ }).check()
  await page.getByRole('switch', { name: 'Uncertainty' }).click()
  await screens(page, 'compare-start')
  await page.getByLabel('Drop a photograph in colour', { exact: true }).setInputFiles(join(photos, 'coffee-1.jpg'))
  await expect(page.getByRole('heading', { name: 'Ensemble' })).toBeVisible({ timeout: DONE })

  const viewers = page.locator('[data-photo]')
  await expect(viewers).toHaveCount(7) // the original, five models, their ensemble
  // To the pixel: the columns of the grid may differ by less.
  const places = async () =>
    (await viewers.locator('img:first-child').evaluateAll((all) => all.map((it) => it.style.transform))).map((it) =>
      it.replace(/-?[\d.]+/g, (digits) => String(Math.round(Number(digits)))),
    )
  await expect.poll(async () => new Set(await places()).size).toBe(1)
  const [before] = await places()

  // What is done to one is done to all.
  await viewers.nth(2).focus()
  await page.keyboard.press('+')
  await page.keyboard.press('ArrowRight')
  await expect.poll(async () => (await places())[0]).not.toBe(before)
  expect(new Set(await places()).size).toBe(1)
  await page.keyboard.press('0')
  await expect.poll(async () => (await places())[0]).toBe(before)

  // Space shows the original in all; the difference is laid over.
  await expect(viewers.nth(1).locator('img')).toHaveCount(1)
  await page.keyboard.down(' ')
  await expect(viewers.nth(1).locator('img')).toHaveCount(2)
  expect(await viewers.nth(1).locator('img').nth(1).getAttribute('src')).toBe(
    await viewers.nth(0).locator('img').getAttribute('src'),
  )
  await page.keyboard.up(' ')
  await expect(viewers.nth(1).locator('img')).toHaveCount(1)
  await page.getByRole('button', { name: 'Difference' }).click()
  await expect(viewers.nth(3).locator('img').nth(1)).toHaveCSS('mix-blend-mode', 'difference')
  await page.getByRole('combobox', { name: 'Difference from' }).selectOption({ label: 'Ensemble' })
  await screens(page, 'compare-difference')
  await page.getByRole('button', { name: 'Uncertainty' }).click()
  await expect(viewers.nth(1).locator('img')).toHaveCount(2)
  await page.getByRole('button', { name: 'Colours' }).click()

  const figures = page.getByRole('region', { name: 'Figures of each model' })
  await expect(figures.getByRole('row')).toHaveCount(1 + 6)
  await expect(figures.getByRole('img', { name: 'best' })).not.toHaveCount(0)
  await expect(page.getByRole('img', { name: /^All metrics at once/ })).toBeVisible()
  await page.getByRole('button', { name: 'Show as table' }).click()
  await expect(page.getByRole('region', { name: 'All metrics at once' })).toContainText('ΔE2000')
  await page.getByRole('button', { name: 'Show as chart' }).click()
  await screens(page, 'compare')

  await page.getByRole('button', { name: 'Ensemble: large, against the original' }).click()
  await expect(page.getByRole('dialog').getByRole('slider', { name: 'Divider' })).toBeVisible()
  await page.keyboard.press('Escape')

  const [one] = await Promise.all([
    page.waitForEvent('download'),
    page
      .getByRole('link', { name: /^Download/ })
      .first()
      .click(),
  ])
  expect(one.suggestedFilename()).toBe('coffee-1-colorized.jpg')
  const [zip] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'All as ZIP' }).click(),
  ])
  expect(zip.suggestedFilename()).toMatch(/\.zip$/)

  // The address is the comparison's.
  await page.reload()
  await expect(page.getByRole('heading', { name: 'Ensemble' })).toBeVisible()
  await page.goto('/compare')
  await page.getByRole('link', { name: /coffee-1\.jpg/ }).click()
  await expect(page.getByRole('heading', { name: 'Ensemble' })).toBeVisible()
})

test('a file that is no photograph is refused with the reason, and another one may follow', async ({
  page,
  faults,
}) => {
  const bad = join(photos, '..', 'notes.jpg')
  writeFileSync(bad, 'this is no photograph')
  await page.goto('/compare')
  await page.getByLabel('Drop a photograph in colour', { exact: true }).setInputFiles(bad)
  await expect(page.getByRole('alert')).toContainText('notes.jpg:')
  expect(faults.splice(0)).toHaveLength(1) // the browser's own line about the answer
  await expect(page.getByRole('button', { name: 'Choose a photo' })).toBeEnabled()
})

test('a comparison that is not there leads on', async ({ page, faults }) => {
  await page.goto('/compare?job=0123456789abcdef0123456789abcdef')
  await expect(page.getByRole('alert')).toContainText('there is no such job')
  faults.length = 0
  await page.getByRole('link', { name: 'Compare another photo' }).click()
  await expect(page.getByRole('alert')).toBeHidden()
})
