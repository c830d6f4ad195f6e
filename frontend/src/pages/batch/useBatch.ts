/** The batch that is being put together and sent; it stays, and goes on being sent, when the page is left. */
import { effectScope, reactive, ref, shallowRef, watch } from 'vue'

import { api, ok, type Schemas } from '@/api/client'
import { queryClient } from '@/api/queries'
import { useUpload } from '@/composables/useUpload'

import { formOf, type Options } from '../colorize/options'
import { added } from './items'

const KEY = 'batch' // the job that was looked at last, in this tab

const limits = () =>
  queryClient.fetchQuery({ queryKey: ['system'], queryFn: () => ok(api.GET('/api/system')), staleTime: 60_000 })

function create() {
  const options = reactive<Options>({})
  const files = shallowRef<File[]>([])
  const left = ref<string[]>([])
  const upload = useUpload<Schemas['JobOut']>()
  const job = ref(sessionStorage.getItem(KEY))

  watch(job, (id) => (id ? sessionStorage.setItem(KEY, id) : sessionStorage.removeItem(KEY)))

  const warn = (event: BeforeUnloadEvent) => event.preventDefault() // what is half sent would be lost
  watch(upload.busy, (busy) => (busy ? addEventListener : removeEventListener)('beforeunload', warn as EventListener))

  async function add(more: File[]): Promise<void> {
    const found = added(files.value, more, (await limits()).limits)
    files.value = found.files
    left.value = found.left
  }

  function remove(file: File): void {
    files.value = files.value.filter((it) => it !== file)
  }

  function clear(): void {
    files.value = []
    left.value = []
  }

  async function start(): Promise<void> {
    const form = formOf(options)
    for (const file of files.value) form.append('files', file, file.name)
    const made = await upload.start('/api/colorize/batch', form)
    if (!made) return
    clear()
    job.value = made.id
    void queryClient.invalidateQueries({ queryKey: ['jobs'] })
  }

  return { options, files, left, upload, job, add, remove, clear, start }
}

let it: ReturnType<typeof create> | undefined

export function useBatch() {
  return (it ??= effectScope(true).run(create) as ReturnType<typeof create>)
}
