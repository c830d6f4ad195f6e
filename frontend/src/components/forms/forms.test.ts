import { mount } from '@vue/test-utils'
import { describe, expect, it } from 'vitest'

import type { Setting, Value } from '@/api/facts'
import { setting } from '@/api/facts.fixture'

import SettingField from './SettingField.vue'

const shown = (of: Setting, more: { fallback?: Value; modelValue?: Value; segmented?: boolean; hint?: string } = {}) =>
  mount(SettingField, { props: { setting: of, ...more } })
const choices = ['mean', 'median'].map((value) => ({
  value,
  label: value.toUpperCase(),
  help: `${value} of all`,
  takes: [],
}))

describe('a setting of each kind', () => {
  it('has its label, its help and its default', () => {
    const it = shown(setting('epochs', 'integer', { label: 'Epochs', help: 'How often.', default: 20, low: 1 }))
    expect(it.get('label').text()).toBe('Epochs')
    expect(it.text()).toContain('How often.')
    expect(it.get('input').element.value).toBe('20')
    expect(shown(setting('lr', 'number', { default: 1 }), { fallback: 2e-4 }).get('input').element.value).toBe('0.0002')
    expect(
      shown(setting('a', 'flag', { default: true }))
        .get('[role=switch]')
        .attributes('aria-checked'),
    ).toBe('true')
  })

  it('tells what was chosen, also that it is left out', async () => {
    const it = shown(setting('ensemble', 'choice', { choices, none: 'No' }))
    expect(it.findAll('option').map((one) => one.text())).toEqual(['No', 'MEAN', 'MEDIAN'])
    expect(it.get('select').element.value).toBe('none')
    await it.get('select').setValue('mean')
    expect(it.emitted('update:modelValue')).toEqual([['mean']])
  })

  it('says what the value means that is chosen', () => {
    const of = setting('ensemble', 'choice', { choices, default: 'mean', none: 'None' })
    const it = shown(of, { segmented: true, modelValue: 'median' })
    expect(it.findAll('button').map((one) => one.text())).toEqual(['MEAN', 'MEDIAN', 'None'])
    expect(it.text()).toContain('median of all')
  })

  it('of a number offers what the server offers', () => {
    const it = shown(setting('size', 'integer', { offered: [64, 128], none: 'As it was trained' }))
    expect(it.findAll('option').map((one) => one.text())).toEqual(['As it was trained', '64 px', '128 px'])
  })
})
