/** Evaluations: from a folder and from uploads to figures, photos and files. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Page } from '@playwright/test'

import { expect, screens, test } from './fixtures'
import { prepare } from './measuring'

test.use({ serverOf: 'metrics' })

const DONE = 120_000 // ms that an evaluation may take on a busy machine
let photos: string

test.beforeAll(({ server }) => {
  photos = prepare(server)
})

async function download(page: Page, name: string): Promise<string> {
  const [file] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name, exact: true }).click(),
  ])
  return readFileSync(await file.path(), 'utf8')
}

test('a folder is evaluated, read photo by photo, and exported', async ({ page }) => {
  test.setTimeout(DONE + 120_000)
  await page.goto('/metrics')
  // With nothing there, the way to a first evaluation is open.
  const start = page.getByRole('button', { name: 'Evaluate', exact: true })
  await expect(start).toBeDisabled()
  await expect(page.getByText('Choose a folder.')).toBeVisible()
  await page.getByRole('button', { name: 'photos 12 photos' }).click()
  await page.getByRole('button', { name: /^Show all/ }).click()
  await page.getByRole('checkbox', { name: /^pale/ }).check()
  await page.getByRole('spinbutton', { name: /Side of the crops/ }).fill('32')
  await page.getByRole('spinbutton', { name: /Side of the crops/ }).blur()
  await page.getByRole('button', { name: 'Mean', exact: true }).click()
  await screens(page, 'metrics-start')
  await start.click()
  await expect(page.getByRole('heading', { name: 'Evaluating' })).toBeVisible()
  // It goes on while the person is elsewhere.
  await page.goto('/compare')
  await page.goto('/metrics')
  await expect(page.getByRole('heading', { name: 'photos', exact: true })).toBeVisible({ timeout: DONE })

  const rows = page.getByRole('region', { name: /^All rows/ })
  await expect(rows.getByRole('row')).toHaveCount(1 + 8) // grey, mean colour, five models, all merged
  await expect(rows.getByRole('row', { name: /^grey no colour at all/ })).toContainText('–')
  await expect(page.getByText(/^(95 % interval)?\d+\.\d\d – \d+\.\d\d$/).first()).toBeVisible()
  await expect(page.getByText(/grey(, photo by photo| is not significant on these photos)/)).toBeVisible()

  // Photos: sorted, filtered, and one of them large.
  const table = page.getByRole('region', { name: /^Photos under/ })
  const first = () => table.getByRole('row').nth(1).getByRole('button').innerText()
  await expect(table.getByRole('row')).toHaveCount(1 + 12)
  await table.getByRole('button', { name: 'Photo', exact: true }).click()
  expect(await first()).toBe('astronaut-0.jpg')
  await page.getByRole('textbox', { name: 'Search photos by name' }).or(page.getByRole('searchbox')).fill('coffee')
  await expect(table.getByRole('row')).toHaveCount(1 + 3)
  await table.getByRole('button', { name: 'coffee-0.jpg' }).click()
  const dialog = page.getByRole('dialog')
  await expect(dialog.getByRole('img', { name: 'coffee-0.jpg with its own colours' })).toBeVisible()
  await expect(dialog.getByRole('figure')).toHaveCount(8)
  await page.keyboard.press('ArrowRight')
  await expect(dialog.getByRole('heading')).toHaveText('coffee-1.jpg')
  await screens(page, 'metrics-photo')
  await page.keyboard.press('Escape')
  await page.getByRole('searchbox').fill('nothing like it')
  await page.getByRole('button', { name: 'Show all', exact: true }).click()
  await expect(table.getByRole('row')).toHaveCount(1 + 12)

  expect((await download(page, 'CSV')).split('\n')[0]).toMatch(/^photo,model,psnr/)
  expect(JSON.parse(await download(page, 'JSON'))).toMatchObject({ protocol: { n: 12, size: 32 } })
  expect(await download(page, 'Markdown')).toContain('mean colour')

  await screens(page, 'metrics')
  await page.getByRole('tab', { name: 'Distributions' }).click()
  await expect(page.getByRole('img', { name: /ΔE2000 of the photos/ })).toBeVisible()
  await page.getByRole('button', { name: 'Show as table' }).click()
  await expect(page.getByRole('region', { name: 'ΔE2000 of the photos' }).getByRole('row')).toHaveCount(1 + 24)
  await page.getByRole('tab', { name: 'Pairs' }).click()
  await expect(page.getByRole('region', { name: 'Differences photo by photo' })).toContainText('−')
})

test('uploads are evaluated; a file that is no photograph is named and left out', async ({ page, faults }) => {
  test.setTimeout(DONE + 60_000)
  const bad = join(photos, '..', 'broken.jpg')
  writeFileSync(bad, 'this is no photograph')
  await page.goto('/metrics')
  const upload = page.getByRole('button', { name: 'Upload', exact: true })
  await expect(upload.or(page.getByRole('complementary', { name: 'Earlier evaluations' }))).toBeVisible()
  if (await upload.isHidden()) await page.getByRole('button', { name: 'Evaluate', exact: true }).click()
  await upload.click()
  await page
    .getByLabel('Drop photographs in colour', { exact: true })
    .setInputFiles([join(photos, 'coffee-0.jpg'), join(photos, 'astronaut-1.jpg'), bad])
  await expect(page.getByText('3 photos')).toBeVisible()
  await page.getByRole('spinbutton', { name: /Side of the crops/ }).fill('32')
  await page.getByRole('spinbutton', { name: /Side of the crops/ }).blur()
  const start = page.getByRole('button', { name: 'Evaluate', exact: true })
  await start.click()
  await expect(page.getByRole('alert')).toContainText('broken.jpg:')
  expect(faults.splice(0)).toHaveLength(1) // the browser's own line about the answer
  await page.getByRole('button', { name: 'Leave this file out' }).click()
  await start.click()
  await expect(page.getByRole('heading', { name: '2 uploaded photos' })).toBeVisible({ timeout: DONE })
  await expect(page.getByText(/No confidence intervals/)).toBeVisible()

  await page.getByRole('button', { name: 'Delete this evaluation' }).click()
  await page.getByRole('alertdialog').getByRole('button', { name: 'Delete' }).click()
  await expect(page.getByRole('heading', { name: '2 uploaded photos' })).toBeHidden()
})
