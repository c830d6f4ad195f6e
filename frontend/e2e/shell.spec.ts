/** What is around every page. */
import { expect, screens, Server, test } from './fixtures'

const PAGES = {
  '/': 'Dashboard',
  '/colorize': 'Colorize',
  '/batch': 'Batch',
  '/compare': 'Compare',
  '/metrics': 'Metrics',
  '/training': 'Training',
  '/history': 'History',
}

test('every page opens from the navigation and by its own address', async ({ page }) => {
  await page.goto('/')
  for (const [path, title] of Object.entries(PAGES)) {
    await page.getByRole('navigation').getByRole('link', { name: title, exact: true }).click()
    await expect(page).toHaveURL(path)
    await expect(page.getByRole('heading', { level: 1 })).toHaveText(title)
    await page.reload()
    await expect(page.getByRole('heading', { level: 1 })).toHaveText(title)
    await expect(page).toHaveTitle(`${title} · colorization`)
  }
})

test('an unknown address is answered with 404 and the way home', async ({ page, faults }) => {
  const answer = await page.goto('/nowhere/at/all')
  expect(answer?.status()).toBe(404)
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('There is nothing here')
  await screens(page, 'not-found')
  await page.getByRole('link', { name: 'To the dashboard', exact: true }).click()
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('Dashboard')
  expect(faults.splice(0)).toHaveLength(1) // the browser's own line about the 404
})

test('the theme is chosen, kept, and there before the first paint', async ({ page, faults }) => {
  await page.emulateMedia({ colorScheme: 'light' })
  await page.goto('/')
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme)
  expect(await theme()).toBe('light')
  const button = page.getByRole('button', { name: /^Theme/ })
  await button.click()
  await button.click()
  await expect(page.getByRole('button', { name: 'Theme: dark; change to system' })).toBeVisible()
  expect(await theme()).toBe('dark')
  await page.route('**/assets/*.js', (route) => route.abort()) // the app does not start, theme.js does
  await page.reload({ waitUntil: 'commit' }).catch(() => null)
  await expect.poll(theme).toBe('dark')
  await page.unroute('**/assets/*.js')
  await page.reload()
  await button.click()
  await page.emulateMedia({ colorScheme: 'dark' })
  await expect.poll(theme).toBe('dark')
  expect([...new Set(faults.splice(0))]).toEqual(['Failed to load resource: net::ERR_FAILED']) // the script that was held back
})

test('the keyboard gets everywhere', async ({ page }) => {
  await page.goto('/')
  await page.keyboard.press('Tab')
  await expect(page.getByRole('link', { name: 'Skip to the page' })).toBeFocused()
  await page.keyboard.press('Enter')
  await expect(page.locator('#main')).toBeFocused()
})

test('on a phone the other pages are behind More', async ({ page }) => {
  await page.setViewportSize({ width: 390, height: 844 })
  await page.goto('/')
  await page.getByRole('button', { name: 'More' }).click()
  await page.getByRole('dialog').getByRole('link', { name: 'History' }).click()
  await expect(page.getByRole('heading', { level: 1 })).toHaveText('History')
  await expect(page.getByRole('dialog')).toBeHidden()
})

test('pages are accessible', async ({ page }) => {
  test.slow()
  for (const [path, title] of Object.entries(PAGES)) {
    await page.goto(path)
    await expect(page.getByRole('heading', { level: 1 })).toHaveText(title)
    await screens(page, `opened-${title.toLowerCase()}`)
  }
})

test('a server with a token asks for it, once', async ({ page, faults }) => {
  test.setTimeout(300_000) // a server of its own
  const token = 'a-token-of-the-tests'
  const guarded = await new Server().start(`token=${token}`)
  try {
    await page.goto(`${guarded.url}/training`)
    const dialog = page.getByRole('dialog', { name: 'Sign in' })
    await dialog.getByLabel('Token').fill('another')
    await dialog.getByRole('button', { name: 'Sign in' }).click()
    await expect(dialog.getByText('that is not the token of this server')).toBeVisible()
    await dialog.getByLabel('Token').fill(token)
    await page.keyboard.press('Enter')
    await expect(dialog).toBeHidden()
    await expect(page.getByText('Nothing has been trained yet')).toBeVisible()
    await page.reload()
    await expect(page.getByText('Nothing has been trained yet')).toBeVisible()
    await expect(dialog).toBeHidden()
    expect(faults.splice(0).filter((it) => !it.includes('401'))).toEqual([]) // the browser's own lines
  } finally {
    await page.goto('about:blank') // else it misses its server
    await guarded.stop()
    guarded.remove()
  }
})

test('while the server is away, pages open all the same, and one that did not come opens when it is back', async ({
  page,
  server,
  faults,
}) => {
  test.setTimeout(300_000) // a server starts again
  const heading = page.getByRole('heading', { level: 1 })
  const open = (title: string) => page.getByRole('navigation').getByRole('link', { name: title, exact: true }).click()
  await page.route('**/assets/TrainingPage-*.js', (route) => route.abort())
  await page.goto('/')
  // They are loaded when there is nothing else to do.
  const loaded = () =>
    page.evaluate(() => {
      const files = performance.getEntriesByType('resource') as PerformanceResourceTiming[]
      const pages = files.filter((it) => it.responseStatus === 200 && /\/assets\/\w+Page-[^/]*\.js$/.test(it.name))
      return new Set(pages.map((it) => it.name)).size
    })
  await expect.poll(loaded).toBe(Object.keys(PAGES).length - 1)
  await server.stop()
  try {
    for (const title of ['Metrics', 'History', 'Colorize']) {
      await open(title)
      await expect(heading).toHaveText(title)
    }
    await open('Training')
    await expect(page.getByText('The server does not answer.').first()).toBeVisible()
    await expect(heading).toHaveText('Colorize')
    await page.unroute('**/assets/TrainingPage-*.js')
  } finally {
    await server.start()
  }
  await expect(heading).toHaveText('Training')
  expect(faults.splice(0).filter((it) => !/net::ERR_|dynamically imported module/.test(it))).toEqual([])
})
