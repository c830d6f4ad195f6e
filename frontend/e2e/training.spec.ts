/** Training: a run is started, watched through a restart of the server, stopped, and gone on with. */
import { expect, screens, test } from './fixtures'

test.use({ serverOf: 'training' })

const SMALL = 'model.network.depth=5 trainer.log_every_n_steps=1 samples=4'

// A run outlives the server that started it: none is left behind.
test.afterEach(async ({ request }) => {
  const { runs } = (await (await request.get('/api/training/runs?state=running')).json()) as { runs: { id: string }[] }
  for (const { id } of runs) await request.post(`/api/training/stop/${id}`, { data: { force: true } })
})

test('a run is started, watched through a crash of the server, stopped and gone on with', async ({
  page,
  server,
  faults,
}) => {
  test.setTimeout(420_000) // a training with its own start of Python, twice, and a server's
  await page.goto('/training')
  await expect(page.getByText('Nothing has been trained yet')).toBeVisible()
  await page.getByRole('button', { name: 'Fill in a quick trial' }).click()
  await page.getByLabel('Image size').fill('32')
  await page.getByLabel('Epochs').fill('300')
  await page.getByText('More settings').click()
  await page.getByLabel('Network width').fill('8')
  await page.getByLabel('Further settings').fill(SMALL)
  await expect(page.getByTestId('command')).toHaveText(
    `python -m colorization.train model=unet datamodule=sample datamodule.image_size=32 trainer.max_epochs=300 datamodule.batch_size=8 model.network.width=8 ${SMALL}`,
  )
  await page.getByRole('button', { name: 'Start training' }).click()

  await expect(page).toHaveURL(/\/training\?run=unet-/, { timeout: 60_000 })
  const id = new URL(page.url()).searchParams.get('run') ?? ''
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(id)
  await expect(page.getByRole('img', { name: /^Samples/ }).first()).toBeVisible({ timeout: 120_000 })
  await expect(page.getByText('ΔE2000, validation', { exact: true })).toBeVisible()
  const newest = async () => {
    const text = await page.getByRole('region', { name: 'Log of the run' }).innerText()
    return Math.max(...[...text.matchAll(/epoch (\d+)\/300 done/g)].map((it) => Number(it[1])))
  }
  await expect.poll(newest, { timeout: 60_000 }).toBeGreaterThanOrEqual(2)

  // The server dies in the middle, the run does not; the page takes it up where it was.
  await server.stop('SIGKILL')
  await expect(page.getByText('Connection lost; it is taken up again by itself')).toBeVisible()
  const before = await newest()
  await server.start()
  await expect(page.getByText('Live', { exact: true })).toBeVisible({ timeout: 60_000 })
  await expect.poll(newest, { timeout: 60_000 }).toBeGreaterThan(before)
  const log = await page.getByRole('region', { name: 'Log of the run' }).innerText()
  const done = [...log.matchAll(/epoch (\d+)\/300 done/g)].map((it) => Number(it[1]))
  expect(done).toEqual(done.map((_, at) => at + 1)) // nothing twice, nothing missed
  expect(faults.splice(0).filter((it) => !/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|ERR_NETWORK/.test(it))).toEqual([])

  await page.getByLabel('Search the log').fill('photos')
  await expect(page.getByRole('region', { name: 'Log of the run' }).locator('mark').first()).toHaveText('photos')
  await page.getByLabel('Search the log').fill('no such thing')
  await expect(page.getByText('No line has “no such thing”.')).toBeVisible()
  await page.getByLabel('Search the log').fill('')

  // Stop is asked first.
  await page.getByRole('button', { name: 'Stop', exact: true }).click()
  await page.getByRole('alertdialog').getByRole('button', { name: 'Cancel' }).click()
  await expect(page.getByText('Running', { exact: true }).first()).toBeVisible()
  await page.getByRole('button', { name: 'Stop', exact: true }).click()
  await page.getByRole('alertdialog').getByRole('button', { name: 'Stop the run' }).click()
  await expect(page.getByText('Stopped', { exact: true })).toBeVisible({ timeout: 60_000 })
  await screens(page, 'training-run')

  // And it goes on from there.
  await page.getByRole('button', { name: 'Resume' }).click()
  await expect(page.getByText('Running', { exact: true }).first()).toBeVisible({ timeout: 120_000 })
  await page.getByRole('button', { name: 'Stop', exact: true }).click()
  await page.getByRole('alertdialog').getByRole('button').last().click()
  await expect(page.getByText('Stopped', { exact: true })).toBeVisible({ timeout: 60_000 })
})

test('the fields follow the model, and what cannot work is said at its field', async ({ page, faults }) => {
  await page.goto('/training')
  await expect(page.getByLabel('L1 weight')).toBeHidden()
  await page.getByRole('radio', { name: /Pix2Pix/ }).check()
  await expect(page.getByLabel('L1 weight')).toHaveValue('100')
  await expect(page.getByLabel('Learning rate')).toHaveValue('0.0002')
  await page.getByRole('radio', { name: /Baseline/ }).check()
  await expect(page.getByLabel('L1 weight')).toBeHidden()
  await expect(page.getByLabel('Learning rate')).toHaveValue('0.001')
  await page.getByLabel('Photos').selectOption('cifar10')
  await expect(page.getByLabel('Image size')).toHaveValue('32')
  await page.getByLabel('Photos').selectOption('sample')
  await page.getByText('More settings').click()
  await page.getByLabel('Further settings').fill('model.network.nonsense=3')
  await screens(page, 'training-form')
  await page.getByRole('button', { name: 'Start training' }).click()
  await expect(page.getByLabel('Further settings')).toHaveAttribute('aria-invalid', 'true')
  await expect(page.getByText('there is no model.network.nonsense').first()).toBeVisible()
  expect(faults.splice(0)).toHaveLength(1) // the browser's own line about the 422
})

test('a run that is not there', async ({ page, faults }) => {
  await page.goto('/training?run=nobody')
  await expect(page.getByText('There is no such run')).toBeVisible()
  await page.waitForLoadState('networkidle')
  expect(faults.splice(0).every((it) => it.includes('404'))).toBe(true)
})
