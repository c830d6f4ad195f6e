import '@fontsource-variable/inter/wght.css'
import '@/styles/main.css'

import { VueQueryPlugin } from '@tanstack/vue-query'
import { createApp } from 'vue'

import { queryClient } from '@/api/queries'
import App from '@/App.vue'
import { loadAhead, router } from '@/router'

createApp(App).use(router).use(VueQueryPlugin, { queryClient }).mount('#app')

void router.isReady().then(loadAhead)
