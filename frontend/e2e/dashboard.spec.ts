/** From nothing to a first result. */
import { expect, screens, test } from './fixtures'

test.use({ serverOf: 'dashboard' })

test('a new user is led to a first picture and a first run', async ({ page }) => {
  test.slow()
  await page.goto('/')
  await expect(page.getByRole('heading', { name: 'First steps' })).toBeVisible()
  await expect(page.getByRole('heading', { name: 'U-Net', exact: true })).toBeVisible({ timeout: 45_000 })
  await screens(page, 'dashboard-empty')

  await page.getByRole('link', { name: 'Colorize it' }).click()
  await expect(page).toHaveURL('/colorize')
  await expect(page.getByRole('link', { name: 'Download' })).toBeVisible()

  await page.getByRole('navigation').getByRole('link', { name: 'Dashboard', exact: true }).click()
  await expect(page.getByRole('button', { name: /sample-colorized\.jpg/ })).toBeVisible()
  await page.getByRole('button', { name: 'Start it' }).click()
  await expect(page.getByText('Running')).toBeVisible({ timeout: 45_000 })
  await expect(page.getByRole('progressbar', { name: 'Epochs' })).toBeVisible()
  await expect(page.getByRole('heading', { name: 'First steps' })).toBeHidden()
  await screens(page, 'dashboard')

  await page.getByRole('button', { name: /sample-colorized\.jpg/ }).click()
  await expect(page.getByRole('slider', { name: 'Divider' })).toBeVisible()
  await page.screenshot({ path: 'test-results/screens/lightbox.png' })
  await page.keyboard.press('Escape')
  await expect(page.getByRole('dialog')).toBeHidden()
})
