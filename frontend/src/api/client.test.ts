import { afterEach, beforeEach, expect, it, vi } from 'vitest'

import { connection } from '@/composables/useConnection'
import { session } from '@/composables/useSession'

import { api, ok } from './client'
import { Problem } from './problem'

const answers: (Response | Error)[] = []

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('fetch', async () => {
    const next = answers.shift() ?? new TypeError('Failed to fetch')
    if (next instanceof Error) throw next
    return next
  })
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

const json = (status: number, body: unknown, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json', ...headers } })

it('gives the data of an answer', async () => {
  answers.push(json(200, { status: 'ok', version: '1' }))
  expect(await ok(api.GET('/api/health'))).toEqual({ status: 'ok', version: '1' })
})

it("throws the server's own sentence, with its fields and when to try again", async () => {
  answers.push(json(503, { detail: 'busy', errors: { size: ['too large'] } }, { 'Retry-After': '7' }))
  const problem = (await ok(api.GET('/api/health')).catch((error: unknown) => error)) as Problem
  expect(problem).toBeInstanceOf(Problem)
  expect([problem.status, problem.detail, problem.of('size'), problem.retryAfter]).toEqual([
    503,
    'busy',
    'too large',
    7,
  ])
})

it('says that the server is away, and finds it again', async () => {
  await expect(ok(api.GET('/api/health'))).rejects.toMatchObject({ status: 0 })
  expect(connection.away.value).toBe(true)
  await vi.advanceTimersByTimeAsync(2100)
  expect(connection.away.value).toBe(true)
  answers.push(json(200, { status: 'ok', version: '1' }))
  await vi.advanceTimersByTimeAsync(2100)
  expect(connection.away.value).toBe(false)
})

it('asks for the token where the server does, until it is right', async () => {
  answers.push(json(401, { detail: 'a token is needed' }))
  await expect(ok(api.GET('/api/health'))).rejects.toMatchObject({ status: 401 })
  expect(session.needed.value).toBe(true)
  answers.push(json(401, { detail: 'that is not the token of this server' }))
  await expect(session.signIn('wrong')).rejects.toMatchObject({ detail: 'that is not the token of this server' })
  expect(session.needed.value).toBe(true)
  answers.push(json(200, { required: true, valid: true }))
  await session.signIn('right')
  expect(session.needed.value).toBe(false)
})
