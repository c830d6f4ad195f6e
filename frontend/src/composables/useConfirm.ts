/** `if (await confirm({ title: 'Stop the run?', action: 'Stop' })) ...`; the shell shows the dialog. */
import { readonly, shallowRef } from 'vue'

export interface Question {
  title: string
  text?: string
  /** What the button says that does it: a verb, never "OK". */
  action: string
  danger?: boolean
}

const question = shallowRef<(Question & { answer: (yes: boolean) => void }) | null>(null)

function confirm(asked: Question): Promise<boolean> {
  question.value?.answer(false)
  return new Promise((resolve) => {
    question.value = {
      ...asked,
      answer(yes) {
        question.value = null
        resolve(yes)
      },
    }
  })
}

export function useConfirm() {
  return { confirm, question: readonly(question) }
}
