/** History: runs found, their curves laid over each other, their settings compared, one deleted. */
import type { APIRequestContext } from '@playwright/test'

import { accessible, expect, screens, test } from './fixtures'

test.use({ serverOf: 'history' })

async function train(request: APIRequestContext, width: number, epochs: number): Promise<string> {
  const started = await request.post('/api/training/start', {
    data: {
      model: 'baseline',
      datamodule: 'sample',
      image_size: 32,
      batch_size: 4,
      epochs,
      overrides: [
        `model.network.width=${width}`,
        'datamodule.crops=2',
        'trainer.log_every_n_steps=1',
        'samples=4',
        'test=false',
      ],
    },
  })
  expect(started.status()).toBe(201)
  return ((await started.json()) as { id: string }).id
}

test('runs are found, compared and deleted', async ({ page, request }) => {
  test.setTimeout(420_000) // two trainings
  const first = await train(request, 4, 2)
  await page.waitForTimeout(1100) // runs of the same second have no order
  const second = await train(request, 8, 3)
  await expect
    .poll(
      async () => {
        const states = await Promise.all(
          [first, second].map(async (id) => (await request.get(`/api/training/status/${id}`)).json()),
        )
        return states.map((it: { state: string }) => it.state)
      },
      { timeout: 180_000 },
    )
    .toEqual(['finished', 'finished'])

  await page.goto('/history')
  const list = page.getByRole('list', { name: 'Runs', exact: true })
  await expect(page.getByRole('heading', { level: 2, name: second })).toBeVisible() // the newest
  await expect(page.getByRole('img', { name: /^Loss/ })).toBeVisible()
  await list.getByRole('checkbox', { name: `Compare ${first}` }).check()
  await expect(page.getByRole('heading', { name: '2 runs compared' })).toBeVisible()
  const loss = page.getByRole('figure').filter({ hasText: 'Loss' }).first()
  await loss.getByRole('button', { name: 'Show as table' }).click()
  await expect(loss.getByRole('columnheader')).toHaveText(['step', second, first])
  await loss.getByRole('button', { name: 'Show as chart' }).click()
  const thumb = page.getByRole('slider', { name: 'Smoothing' })
  await thumb.focus()
  await page.keyboard.press('PageUp')
  await expect(thumb).not.toHaveAttribute('aria-valuenow', '0')
  await screens(page, 'history-curves')

  await page.getByRole('tab', { name: 'Differences' }).click()
  await expect(page.getByRole('row', { name: /model\.network\.width/ })).toContainText(/8\s*4/)
  await expect(page.getByRole('row', { name: /trainer\.max_epochs/ })).toContainText(/3\s*2/)
  await expect(page.getByRole('row', { name: /datamodule\.image_size/ })).toBeHidden()
  await accessible(page)
  await page.getByRole('switch', { name: 'Show what is equal too' }).click()
  await expect(page.getByRole('row', { name: /datamodule\.image_size/ })).toContainText('32')

  // The address holds the choice.
  await page.reload()
  await expect(page.getByRole('heading', { name: '2 runs compared' })).toBeVisible()
  await list.getByRole('button', { name: second }).click()
  await page.getByRole('tab', { name: 'Samples' }).click()
  await expect(page.getByRole('img', { name: /epoch 3/ })).toBeVisible()
  await page.getByRole('slider', { name: 'Epoch of the samples' }).focus()
  await page.keyboard.press('Home')
  await expect(page.getByRole('img', { name: /epoch 1/ })).toBeVisible()
  await screens(page, 'history-samples')
  await page.getByRole('tab', { name: 'Log' }).click()
  await page.getByLabel('Search the log').fill('EPOCH 2/3 done')
  await expect(page.getByText('1 line', { exact: true })).toBeVisible()

  await page.getByLabel('Search runs').fill(first)
  await expect(list.getByRole('listitem')).toHaveCount(1)
  await page.getByLabel('Search runs').fill('no such run')
  await expect(page.getByText('No run is like that')).toBeVisible()
  await page.getByRole('button', { name: 'Show all' }).click()

  await list.getByRole('button', { name: first }).click()
  await page.getByRole('button', { name: `Delete ${first}` }).click()
  await page.getByRole('switch', { name: 'Delete its files too' }).click()
  await page.getByRole('button', { name: 'Delete with its files' }).click()
  await expect(list.getByRole('button', { name: first })).toBeHidden()
  expect((await request.get(`/api/training/status/${first}`)).status()).toBe(404)
  await page.getByRole('link', { name: 'Resume' }).click()
  await expect(page.getByLabel('Up to epoch')).toHaveValue('6')
  await expect(page.getByTestId('command')).toHaveText(
    `python -m colorization.train run_id=${second} ckpt_path=last trainer.max_epochs=6`,
  )
})
