/** The photo in hand on the page Colorize; it stays when the page is left. */
import { computed, effectScope, reactive, ref, shallowRef, watch } from 'vue'

import { api } from '@/api/client'
import { asProblem, type Problem } from '@/api/problem'
import { queryClient } from '@/api/queries'
import { fetched, grey, local, preview, shown } from '@/components/photo/pictures'
import { retrying } from '@/composables/retrying'
import { useUpload } from '@/composables/useUpload'

import { type Answer, formOf, type Options } from './options'

const CALM = 400 // ms without a change after which the photo is colorized again

function create() {
  const options = reactive<Options>({})
  const file = shallowRef<File | null>(null)
  const answer = shallowRef<Answer | null>(null)
  /** As it came; and without its colours. Object URLs. */
  const original = shallowRef<string | null>(null)
  const withoutColour = shallowRef<string | null>(null)
  /** What is fetched beside the upload: the sample photo, the original as the server shows it. A sentence; '' is nothing. */
  const fetching = ref('')
  const missing = shallowRef<{ title: string; problem: Problem; again: () => unknown } | null>(null) // after a failure
  const before = ref<'grey' | 'truth'>('grey')
  const upload = useUpload<Answer>({ repeatable: true })
  let timer: ReturnType<typeof setTimeout> | undefined
  let followed = '' // the options of the newest upload
  let fetcher: AbortController | undefined
  let known: Promise<string | null> = Promise.resolve(null) // the original, where the browser knows its type

  /** A picture, however often it must be asked for; `null` when that failed, see `missing`, or it was cancelled. */
  async function fetchPicture(
    what: { label: string; title: string; again: () => unknown },
    send: (signal: AbortSignal) => Promise<Blob>,
  ): Promise<Blob | null> {
    stopFetching()
    const { signal } = (fetcher = new AbortController())
    fetching.value = what.label
    try {
      const picture = await retrying(() => send(signal), { signal, waiting: (why) => (fetching.value = why) })
      if (signal.aborted) return null
      fetching.value = ''
      return picture
    } catch (error) {
      if (!signal.aborted) {
        fetching.value = ''
        missing.value = { title: what.title, problem: asProblem(error), again: what.again }
      }
      return null
    }
  }

  function stopFetching(): void {
    fetcher?.abort()
    fetching.value = ''
    missing.value = null
  }

  function discard(old: Answer | null): void {
    for (const result of [old?.result, old?.uncertainty, old?.truth]) {
      if (!result) continue
      // Results that nobody has any more would fill the server; one that is gone already is no loss.
      void api
        .DELETE('/api/colorize/result/{result_id}', { params: { path: { result_id: result.id } } })
        .catch(() => null)
    }
  }

  function forget(): void {
    clearTimeout(timer)
    upload.cancel()
    stopFetching()
    for (const url of [original.value, withoutColour.value]) if (url) URL.revokeObjectURL(url)
    original.value = withoutColour.value = null
    answer.value = null // the last result of a photo is kept: it is the one that was wanted
    file.value = null
  }

  async function choose(chosen: File): Promise<void> {
    forget()
    file.value = chosen
    known = local(chosen)
    void run()
    const url = await known
    if (file.value === chosen) original.value = url
    else if (url) URL.revokeObjectURL(url)
  }

  /** The original of a type that the browser does not know, as the server shows it. */
  async function showOriginal(): Promise<void> {
    const asked = file.value
    if (!asked) return
    const made = await fetchPicture(
      { label: 'Loading the original', title: 'The original could not be shown', again: showOriginal },
      (signal) => preview(asked, signal),
    )
    if (made) original.value = URL.createObjectURL(made)
  }

  // Made when it is first looked at.
  watch([original, () => options.mode], async ([url, mode]) => {
    if (!url || mode !== 'color' || withoutColour.value) return
    const made = await grey(url)
    if (original.value === url) withoutColour.value = made
    else URL.revokeObjectURL(made)
  })

  async function run(): Promise<void> {
    if (!file.value) return
    clearTimeout(timer)
    followed = JSON.stringify(options)
    const form = formOf(options)
    form.append('file', file.value)
    const done = await upload.start('/api/colorize', form)
    if (!done) return
    discard(answer.value)
    answer.value = done
    void queryClient.invalidateQueries({ queryKey: ['results'] })
    if (!(await known) && !original.value && !fetching.value) await showOriginal()
  }

  watch(options, () => {
    if (!file.value) return
    clearTimeout(timer)
    if (JSON.stringify(options) === followed) return // set just before the photo came, or changed back
    timer = setTimeout(() => void run(), CALM)
  })

  async function sample(): Promise<void> {
    const photo = await fetchPicture(
      { label: 'Loading the sample photo', title: 'The sample photo did not come', again: sample },
      (signal) => fetched('/api/sample', { signal }),
    )
    if (!photo) return
    options.mode = 'color'
    await choose(new File([photo], 'sample.jpg', { type: 'image/jpeg' }))
  }

  return {
    options,
    file,
    answer,
    original,
    before,
    upload,
    fetching,
    stopFetching,
    missing,
    after: computed(() => (answer.value ? shown(answer.value.result) : null)),
    compared: computed(() =>
      options.mode === 'color' && before.value === 'grey' ? withoutColour.value : original.value,
    ),
    choose,
    sample,
    run,
    forget,
  }
}

let it: ReturnType<typeof create> | undefined

export function useColorize() {
  return (it ??= effectScope(true).run(create) as ReturnType<typeof create>)
}
