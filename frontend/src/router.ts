/** Addresses to pages; each page is a file of its own, see `loadAhead`. The server answers the same addresses (routes/web.py). */
import { nextTick } from 'vue'
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'

import { PAGES } from '@/components/shell/pages'
import { connection } from '@/composables/useConnection'

const routes: RouteRecordRaw[] = [
  ...PAGES.map(({ path, title, load }) => ({ path, component: load, meta: { title } }) as RouteRecordRaw),
  { path: '/:unknown(.*)*', component: () => import('@/pages/NotFoundPage.vue'), meta: { title: 'Not found' } },
]
if (import.meta.env.DEV) {
  routes.unshift({ path: '/gallery', component: () => import('@/gallery/GalleryPage.vue'), meta: { title: 'Gallery' } })
}

export const router = createRouter({
  history: createWebHistory(),
  routes,
  scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
})

router.afterEach(async (to, from) => {
  document.title = `${String(to.meta.title)} · colorization`
  if (from.matched.length === 0 || to.path === from.path) return
  await nextTick()
  document.getElementById('main')?.focus({ preventScroll: true }) // a screen reader reads the new page from its start
})

// A page's files did not come: the server is away, or another version of the app has been put in place and they are gone.
// The app stays until the server answers: its own page would be replaced by the browser's error.
let wanted: string | null = null
router.onError(async (error, to) => {
  if (!/dynamically imported module|Importing a module script|Unable to preload/.test(String(error))) return
  wanted = to.fullPath
  connection.lost()
  void connection.look()
  await connection.back()
  if (wanted === to.fullPath) location.assign(to.fullPath)
})
router.afterEach((_to, _from, failure) => {
  if (!failure) wanted = null // another page was opened meanwhile
})

/** Loads all pages one by one while there is nothing else to do, so that they are there when the server is not. */
export async function loadAhead(): Promise<void> {
  for (const { load } of PAGES) {
    await new Promise<unknown>((idle) =>
      'requestIdleCallback' in window ? requestIdleCallback(idle) : setTimeout(idle, 200),
    )
    await load().catch(() => null) // it is asked for again when it is opened
  }
}
