import { defineConfig } from '@playwright/test'

export default defineConfig({
  testDir: 'e2e',
  outputDir: 'test-results/playwright',
  fullyParallel: false,
  workers: 2, // each has a server of its own
  timeout: 120_000,
  retries: 1, // of real processes on a machine that may be busy; what passes so is reported as flaky
  expect: { timeout: 30_000 },
  reporter: [['list']],
  use: {
    browserName: 'chromium',
    viewport: { width: 1440, height: 900 },
    screenshot: 'only-on-failure', // a trace reads the pages' pictures anew, which the server's policy refuses
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', // the system's: none is downloaded
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
})
