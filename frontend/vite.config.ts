import { fileURLToPath, URL } from 'node:url'

import tailwindcss from '@tailwindcss/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

const server = process.env.COLORIZATION_URL ?? 'http://127.0.0.1:5000'

export default defineConfig({
  plugins: [vue(), tailwindcss()],
  cacheDir: 'node_modules/.vite',
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  // The server refuses what comes from another site: the proxy speaks as the server's own page.
  server: {
    port: 5173,
    strictPort: true,
    proxy: { '/api': { target: server, changeOrigin: true, headers: { origin: server } } },
  },
  build: {
    outDir: '../src/colorization/web', // the package serves it
    emptyOutDir: true,
    target: 'es2022',
    manifest: true, // scripts/size.mjs reads it
    assetsInlineLimit: 0, // fonts and scripts as data: are refused by the server's content security policy
    modulePreload: { polyfill: false },
  },
  test: {
    environment: 'jsdom',
    include: ['src/**/*.test.ts'],
    restoreMocks: true,
  },
})
