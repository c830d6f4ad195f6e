/** Weights as people tell them apart. */
import type { Schemas } from '@/api/client'

export type Weights = Schemas['WeightsOut']

const KIND = {
  weights: '',
  best: 'best checkpoint',
  last: 'last checkpoint',
  file: 'file',
  shipped: 'ships with the app',
}

/** `unet, shipped`, `gan of 22 Nov, 21:32`: short, and different for different weights of one stage. */
export function weightsName(it: Weights, time = shortTime): string {
  if (it.kind === 'shipped') return `${it.model}, shipped`
  if (it.kind === 'file') return it.id.replace(/^file-/, '')
  return `${it.model} of ${time(it.created)}${it.kind === 'weights' ? '' : `, ${it.kind}`}`
}

/** What else is known of them, in a line. */
export function weightsFacts(it: Weights): string {
  const { photos, image_size: size } = it.training_data as { photos?: number; image_size?: number }
  return [
    KIND[it.kind],
    it.state && it.state !== 'finished' ? `run is ${it.state}` : '',
    photos ? `trained on ${photos.toLocaleString('en')} photos` : '',
    size ? `at ${size} px` : '',
  ]
    .filter(Boolean)
    .join(' · ')
}

function shortTime(iso: string): string {
  return new Date(iso).toLocaleString('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })
}

/** Ids that are taken where nobody chooses, as the server does: the newest finished run of each stage, and what ships. */
export function usualWeights(all: readonly Weights[]): string[] {
  const newest = new Map<string, string>()
  for (const it of all) {
    if (it.kind === 'weights' && it.state === 'finished' && !newest.has(it.model)) newest.set(it.model, it.id)
  }
  return [...newest.values(), ...all.filter((it) => it.kind === 'shipped').map((it) => it.id)]
}
