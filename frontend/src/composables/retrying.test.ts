import { describe, expect, it, vi } from 'vitest'

import { Problem } from '@/api/problem'

import { retrying } from './retrying'

const busy = new Problem(503, 'too many photos wait already', {}, 0)

/** Fails with each of them, then answers. */
function failing(...problems: Problem[]) {
  return vi.fn(() => {
    const problem = problems.shift()
    return problem ? Promise.reject(problem) : Promise.resolve('the answer')
  })
}

function start(send: () => Promise<unknown>, repeatable?: () => boolean) {
  const controller = new AbortController()
  const waiting = vi.fn()
  return { answer: retrying(send, { signal: controller.signal, waiting, repeatable }), waiting, controller }
}

describe('retrying', () => {
  it('asks again for as long as the server says when to come again', async () => {
    const send = failing(...Array.from({ length: 9 }, () => busy))
    const { answer, waiting } = start(send)
    expect(await answer).toBe('the answer')
    expect(send).toHaveBeenCalledTimes(10)
    expect(waiting).toHaveBeenLastCalledWith('too many photos wait already; retrying automatically')
  })

  it('survives three cuts, not a fourth, and none of what may be sent only once', async () => {
    const cuts = (count: number) => failing(...Array.from({ length: count }, () => Problem.away()))
    expect(await start(cuts(3)).answer).toBe('the answer')
    await expect(start(cuts(4)).answer).rejects.toThrow('does not answer')
    const once = cuts(1)
    await expect(start(once, () => false).answer).rejects.toThrow('does not answer')
    expect(once).toHaveBeenCalledTimes(1)
  })

  it('gives up at once where waiting does not help', async () => {
    const send = failing(new Problem(415, 'is no picture'))
    await expect(start(send).answer).rejects.toThrow('is no picture')
    await expect(start(failing(new Problem(503, 'the disk is full'))).answer).rejects.toThrow('the disk is full')
    expect(send).toHaveBeenCalledTimes(1)
  })

  it('is cancelled while it waits', async () => {
    const send = failing(new Problem(429, 'too many requests', {}, 3600))
    const { answer, waiting, controller } = start(send)
    await vi.waitFor(() => expect(waiting).toHaveBeenCalled())
    controller.abort()
    await expect(answer).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }))
    expect(send).toHaveBeenCalledTimes(1)
  })
})
