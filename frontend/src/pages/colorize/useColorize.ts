/** The photo in hand on the page Colorize; it stays when the page is left. */
import { computed, effectScope, reactive, ref, shallowRef, watch } from 'vue'

import { api } from '@/api/client'
import { asProblem, Problem } from '@/api/problem'
import { queryClient } from '@/api/queries'
import { grey, local, preview, shown } from '@/components/photo/pictures'
import { useUpload } from '@/composables/useUpload'

import { type Answer, defaults, formOf } from './options'

const CALM = 400 // ms without a change after which the photo is colorized again

function create() {
  const options = reactive(defaults())
  const file = shallowRef<File | null>(null)
  const answer = shallowRef<Answer | null>(null)
  /** As it came; and without its colours. Object URLs. */
  const original = shallowRef<string | null>(null)
  const withoutColour = shallowRef<string | null>(null)
  const problem = shallowRef<Problem | null>(null) // of the sample, which could not be fetched
  const before = ref<'grey' | 'truth'>('grey')
  const upload = useUpload<Answer>({ repeatable: true })
  let timer: ReturnType<typeof setTimeout> | undefined

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
    for (const url of [original.value, withoutColour.value]) if (url) URL.revokeObjectURL(url)
    original.value = withoutColour.value = null
    answer.value = null // the last result of a photo is kept: it is the one that was wanted
    file.value = null
    problem.value = null
  }

  async function choose(chosen: File): Promise<void> {
    forget()
    file.value = chosen
    const asked = run()
    const url = await local(chosen)
    if (file.value !== chosen) return
    if (url) original.value = url
    await asked
    if (file.value !== chosen || !answer.value) return
    if (!original.value) {
      const made = await preview(chosen).catch((error: unknown) => void (problem.value = asProblem(error)))
      if (file.value !== chosen || !made) return
      original.value = made
    }
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
    const form = formOf(options)
    form.append('file', file.value)
    const done = await upload.start('/api/colorize', form)
    if (!done) return
    discard(answer.value)
    answer.value = done
    void queryClient.invalidateQueries({ queryKey: ['results'] })
  }

  watch(options, () => {
    if (!file.value) return
    clearTimeout(timer)
    timer = setTimeout(() => void run(), CALM)
  })

  async function sample(): Promise<void> {
    problem.value = null
    try {
      const answered = await fetch('/api/sample')
      if (!answered.ok) throw Problem.from(answered.status, await answered.text())
      options.mode = 'color'
      await choose(new File([await answered.blob()], 'sample.jpg', { type: 'image/jpeg' }))
    } catch (error) {
      problem.value = error instanceof TypeError ? Problem.away() : asProblem(error)
    }
  }

  return {
    options,
    file,
    answer,
    original,
    before,
    upload,
    problem,
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
