/** Addresses to pages; each page is loaded when it is first opened. The server answers the same addresses (routes/web.py). */
import { nextTick } from 'vue'
import { createRouter, createWebHistory, type RouteRecordRaw } from 'vue-router'

import { PAGES } from '@/components/shell/pages'

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

// Another version of the app has been put in place, and this one's files are gone.
router.onError((error, to) => {
  if (/dynamically imported module/.test(String(error))) location.assign(to.fullPath)
})
