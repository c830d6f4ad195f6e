import { mount } from '@vue/test-utils'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { defineComponent, effectScope, nextTick, ref } from 'vue'

import { useConfirm } from './useConfirm'
import { useHoldSpace } from './useHoldSpace'
import { useRate } from './useRate'
import { useSelection } from './useSelection'

describe('useHoldSpace', () => {
  const press = (type: string, target: EventTarget = document.body) => {
    const event = new KeyboardEvent(type, { key: ' ', bubbles: true, cancelable: true })
    target.dispatchEvent(event)
    return event.defaultPrevented
  }

  it('is true while space is held, and keeps the page from scrolling', () => {
    const held = effectScope().run(useHoldSpace)!
    expect(press('keydown')).toBe(true)
    expect(held.value).toBe(true)
    press('keyup')
    expect(held.value).toBe(false)
    press('keydown')
    window.dispatchEvent(new Event('blur'))
    expect(held.value).toBe(false)
  })

  it('leaves space to what is written in and to buttons, but not in a photo viewer', () => {
    const held = effectScope().run(useHoldSpace)!
    document.body.innerHTML = '<input /><button></button><div data-photo><span role="slider"></span></div>'
    for (const name of ['input', 'button']) {
      expect(press('keydown', document.querySelector(name)!)).toBe(false)
      expect(held.value).toBe(false)
    }
    press('keydown', document.querySelector('span')!)
    expect(held.value).toBe(true)
  })

  it('listens no more when its component is gone', () => {
    const scope = effectScope()
    const held = scope.run(useHoldSpace)!
    scope.stop()
    press('keydown')
    expect(held.value).toBe(false)
  })
})

describe('useSelection', () => {
  it('toggles, takes ranges, all and none', () => {
    const selection = useSelection(['a', 'b', 'c', 'd'])
    selection.toggle('b')
    selection.toggle('d', true)
    expect(selection.selected.value).toEqual(['b', 'c', 'd'])
    selection.toggle('c')
    expect(selection.selected.value).toEqual(['b', 'd'])
    selection.selectAll()
    expect(selection.all.value).toBe(true)
    selection.clear()
    expect(selection.selected.value).toEqual([])
  })

  it('forgets what has left the list', () => {
    const ids = ref(['a', 'b'])
    const selection = useSelection(ids)
    selection.selectAll()
    ids.value = ['b', 'c']
    expect(selection.selected.value).toEqual(['b'])
    expect(selection.all.value).toBe(false)
  })
})

describe('useRate', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('knows how fast and how long still', async () => {
    const done = ref(0)
    const { rate, eta } = effectScope().run(() => useRate(done, 100))!
    expect(rate.value).toBeNull()
    for (const value of [10, 20, 30]) {
      vi.advanceTimersByTime(5000)
      done.value = value
      await nextTick()
    }
    expect(rate.value).toBeCloseTo(2)
    expect(eta.value).toBeCloseTo(35)
    done.value = 1 // another upload
    await nextTick()
    expect(rate.value).toBeNull()
  })
})

describe('useConfirm', () => {
  it('gives the answer to who asked; a second question is a no to the first', async () => {
    const { confirm, question } = useConfirm()
    const first = confirm({ title: 'One?', action: 'One' })
    const second = confirm({ title: 'Two?', action: 'Two' })
    expect(await first).toBe(false)
    question.value?.answer(true)
    expect(await second).toBe(true)
    expect(question.value).toBeNull()
  })
})

describe('useTheme', () => {
  const listeners: ((event: { matches: boolean }) => void)[] = []

  beforeEach(() => {
    vi.resetModules()
    localStorage.clear()
    vi.stubGlobal('matchMedia', () => ({
      matches: false,
      addEventListener: (_: string, listener: (typeof listeners)[number]) => listeners.push(listener),
    }))
  })
  afterEach(() => void vi.unstubAllGlobals())

  it('follows the system until one is chosen, and keeps the choice', async () => {
    const { useTheme } = await import('./useTheme')
    const { theme, setTheme } = useTheme()
    const shown = () => document.documentElement.dataset.theme
    expect([theme.value, shown()]).toEqual(['system', 'light'])
    listeners.at(-1)?.({ matches: true })
    await nextTick()
    expect(shown()).toBe('dark')
    setTheme('light')
    await nextTick()
    expect([shown(), localStorage.getItem('theme')]).toEqual(['light', 'light'])
    setTheme('system')
    await nextTick()
    expect([shown(), localStorage.getItem('theme')]).toEqual(['dark', null])
    localStorage.setItem('theme', 'light') // in another tab
    dispatchEvent(new StorageEvent('storage', { key: 'theme' }))
    await nextTick()
    expect(shown()).toBe('light')
  })
})

describe('useUpload', () => {
  class FakeRequest {
    static newest: FakeRequest
    upload: { onprogress?: (event: { loaded: number; total: number }) => void } = {}
    status = 0
    responseText = ''
    aborted = false
    onload?: () => void
    onabort?: () => void
    onerror?: () => void
    onloadend?: () => void
    constructor() {
      FakeRequest.newest = this
    }
    open() {}
    setRequestHeader() {}
    send() {}
    getResponseHeader = () => null
    abort() {
      this.aborted = true
      this.onabort?.()
      this.onloadend?.()
    }
    answer(status: number, body: unknown) {
      this.status = status
      this.responseText = JSON.stringify(body)
      this.onload?.()
      this.onloadend?.()
    }
  }

  beforeEach(() => {
    vi.stubGlobal('XMLHttpRequest', FakeRequest)
    vi.stubGlobal('matchMedia', () => ({ matches: false, addEventListener: () => {} }))
  })
  afterEach(() => void vi.unstubAllGlobals())

  async function uploading() {
    const { useUpload } = await import('./useUpload')
    let it!: ReturnType<typeof useUpload<{ id: string }>>
    mount(
      defineComponent({
        setup() {
          it = useUpload()
          return () => null
        },
      }),
    )
    return it
  }

  it('tells how far it is, then that the server works, then the answer', async () => {
    const it = await uploading()
    const answer = it.start('/api/colorize', new FormData())
    FakeRequest.newest.upload.onprogress?.({ loaded: 5, total: 10 })
    expect([it.state.value, it.sent.value, it.total.value]).toEqual(['sending', 5, 10])
    FakeRequest.newest.upload.onprogress?.({ loaded: 10, total: 10 })
    expect(it.state.value).toBe('working')
    FakeRequest.newest.answer(202, { id: 'x' })
    expect(await answer).toEqual({ id: 'x' })
    expect(it.state.value).toBe('done')
  })

  it('is cancelled, and fails with the sentence of the server', async () => {
    const it = await uploading()
    const cancelled = it.start('/api/colorize', new FormData())
    it.cancel()
    expect(await cancelled).toBeNull()
    expect([it.state.value, FakeRequest.newest.aborted]).toEqual(['cancelled', true])
    const refused = it.start('/api/colorize', new FormData())
    FakeRequest.newest.answer(422, { detail: 'file: is no picture', errors: { file: ['is no picture'] } })
    expect(await refused).toBeNull()
    expect(it.state.value).toBe('failed')
    expect(it.problem.value?.of('file')).toBe('is no picture')
  })
})
