import { mount } from '@vue/test-utils'
import { TooltipProvider } from 'reka-ui'
import { expect, it, vi } from 'vitest'
import { h, nextTick, ref } from 'vue'

import { Problem } from '@/api/problem'
import { smoothed } from '@/components/charts/smooth'
import { bounded, fitting, zoomedAbout } from '@/components/photo/view'
import { ago, bytes, duration, number } from '@/format'

import Async from './ui/Async.vue'
import Dropzone from './ui/Dropzone.vue'
import Field from './ui/Field.vue'
import IconButton from './ui/IconButton.vue'
import Input from './ui/Input.vue'
import Table from './ui/Table.vue'

it('a field tells its control what it is and what is wrong', () => {
  const wrapper = mount(Field, {
    props: { label: 'Size', hint: 'in pixels', error: 'too large' },
    slots: { default: () => [h(Input)] },
  })
  const input = wrapper.get('input')
  expect(wrapper.get('label').attributes('for')).toBe(input.attributes('id'))
  expect(input.attributes('aria-invalid')).toBe('true')
  const described = input.attributes('aria-describedby')?.split(' ') ?? []
  expect(described.map((id) => wrapper.get(`[id='${id}']`).text())).toEqual(['too large', 'in pixels'])
})

it('an icon button can be pressed, and says what it is', async () => {
  const press = vi.fn()
  const wrapper = mount(TooltipProvider, {
    slots: { default: () => h(IconButton, { label: 'Download', onClick: press }) },
  })
  await wrapper.get('button[aria-label=Download]').trigger('click')
  expect(press).toHaveBeenCalledOnce()
})

it('a table sorts by what is behind the cells, and puts what is not known last', async () => {
  const rows = [
    { n: 'b', v: 10 },
    { n: 'a10', v: null },
    { n: 'a9', v: 9 },
  ]
  const columns = [
    { key: 'n', label: 'Name' },
    { key: 'v', label: 'Value', numeric: true },
  ]
  const wrapper = mount(Table<(typeof rows)[number]>, {
    props: {
      rows,
      columns,
      caption: 'rows',
      rowKey: (row) => row.n,
      sort: '',
      'onUpdate:sort': (sort: string | undefined) => wrapper.setProps({ sort }),
    },
  })
  const names = () => wrapper.findAll('tbody tr').map((row) => row.get('td').text())
  const [name, value] = wrapper.findAll('th button')
  await name?.trigger('click')
  expect(names()).toEqual(['a9', 'a10', 'b'])
  await value?.trigger('click')
  expect(names()).toEqual(['b', 'a9', 'a10'])
  expect(wrapper.findAll('th')[1]?.attributes('aria-sort')).toBe('descending')
  await value?.trigger('click')
  expect(names()).toEqual(['a9', 'b', 'a10'])
})

it('a query shows that it loads, that it failed with a way on, and its data', async () => {
  const query = { data: ref<string[]>(), error: ref<Error | null>(null), refetch: vi.fn() }
  const wrapper = mount(Async, {
    props: { query: query as never, empty: (data: unknown) => (data as string[]).length === 0 },
    slots: { default: '<template #default="{ data }">{{ data.join() }}</template>' },
  })
  expect(wrapper.find('[aria-busy]').exists()).toBe(true)
  query.error.value = new Problem(503, 'too many wait')
  await nextTick()
  expect(wrapper.get('[role=alert]').text()).toContain('too many wait')
  await wrapper.get('button').trigger('click')
  expect(query.refetch).toHaveBeenCalled()
  query.error.value = null
  query.data.value = []
  await nextTick()
  expect(wrapper.text()).toBe('Nothing here yet')
  query.data.value = ['a', 'b']
  await nextTick()
  expect(wrapper.text()).toBe('a,b')
})

it('a dropzone takes what is dropped and what is pasted anywhere', async () => {
  const wrapper = mount(Dropzone, { props: { title: 'Drop' }, attachTo: document.body })
  const files = [new File(['1'], '1.png'), new File(['2'], '2.png')]
  await wrapper.trigger('drop', { dataTransfer: { files, items: [] } })
  const paste = Object.assign(new Event('paste', { bubbles: true, cancelable: true }), { clipboardData: { files } })
  document.body.dispatchEvent(paste)
  expect(wrapper.emitted('files')).toEqual([[[files[0]]], [[files[0]]]]) // one only: it is not `multiple`
  await wrapper.setProps({ multiple: true })
  await wrapper.trigger('drop', { dataTransfer: { files, items: [] } })
  expect(wrapper.emitted('files')?.at(-1)).toEqual([files])
  wrapper.unmount()
})

it('zooming leaves the point under the pointer where it is', () => {
  const photo = { width: 4000, height: 3000 }
  const stage = { width: 800, height: 600 }
  expect(fitting(photo, stage)).toBeCloseTo(0.2)
  const where = (view: { zoom: number; x: number; y: number }) => [
    view.x + 100 / (4000 * 0.2 * view.zoom),
    view.y - 50 / (3000 * 0.2 * view.zoom),
  ]
  const start = { zoom: 3, x: 0.5, y: 0.5 }
  const [x, y] = where(start) as [number, number]
  const after = zoomedAbout(start, 2, { x: 100, y: -50 }, photo, stage, 40)
  expect(after.zoom).toBe(6)
  expect(where(after)[0]).toBeCloseTo(x)
  expect(where(after)[1]).toBeCloseTo(y)
})

it('a view stays on the photo', () => {
  const photo = { width: 4000, height: 3000 }
  const stage = { width: 800, height: 600 }
  expect(bounded({ zoom: 0.1, x: 0, y: 9 }, photo, stage, 40)).toEqual({ zoom: 1, x: 0.5, y: 0.5 })
  expect(bounded({ zoom: 2, x: 0, y: 1 }, photo, stage, 40)).toEqual({ zoom: 2, x: 0.25, y: 0.75 })
})

it('smoothing keeps a constant and starts where the data do', () => {
  const flat = [0, 1, 2].map((x) => [x, 5] as const)
  expect(smoothed(flat, 0.9).map(([, y]) => Number(y.toFixed(9)))).toEqual([5, 5, 5])
  expect(
    smoothed(
      [
        [0, 1],
        [1, 3],
      ] as const,
      0.5,
    )[1]?.[1],
  ).toBeCloseTo((0.25 * 1 + 0.5 * 3) / 0.75)
})

it('numbers read well', () => {
  expect([number(1234.5, 1), number(null), number(NaN)]).toEqual(['1,234.5', '–', '–'])
  expect([bytes(0), bytes(999), bytes(1400), bytes(12_300_000)]).toEqual(['0 B', '999 B', '1.4 kB', '12 MB'])
  expect([duration(1.24), duration(59.6), duration(200), duration(7500)]).toEqual([
    '1.2 s',
    '1 min 0 s',
    '3 min 20 s',
    '2 h 5 min',
  ])
  const now = Date.parse('2026-01-02T12:00:00Z')
  expect([
    ago('2026-01-02T11:59:50+00:00', now),
    ago('2026-01-02T11:55:00Z', now),
    ago('2026-01-01T12:00:00Z', now),
  ]).toEqual(['just now', '5 minutes ago', 'yesterday'])
})
