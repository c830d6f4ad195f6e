/** The seven pages, in the order of the navigation. */
import { ChartLine, Columns3, GraduationCap, History, Images, LayoutDashboard, Palette } from '@lucide/vue'
import type { Component } from 'vue'

export interface Page {
  path: string
  title: string
  icon: Component
  load: () => Promise<unknown>
}

export const PAGES: readonly Page[] = [
  { path: '/', title: 'Dashboard', icon: LayoutDashboard, load: () => import('@/pages/DashboardPage.vue') },
  { path: '/colorize', title: 'Colorize', icon: Palette, load: () => import('@/pages/ColorizePage.vue') },
  { path: '/batch', title: 'Batch', icon: Images, load: () => import('@/pages/BatchPage.vue') },
  { path: '/compare', title: 'Compare', icon: Columns3, load: () => import('@/pages/ComparePage.vue') },
  { path: '/metrics', title: 'Metrics', icon: ChartLine, load: () => import('@/pages/MetricsPage.vue') },
  { path: '/training', title: 'Training', icon: GraduationCap, load: () => import('@/pages/TrainingPage.vue') },
  { path: '/history', title: 'History', icon: History, load: () => import('@/pages/HistoryPage.vue') },
]
