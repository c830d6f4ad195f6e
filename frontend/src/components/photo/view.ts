/** Where one looks at a photograph; viewers that share a view move together. */
import { reactive } from 'vue'

export interface View {
  /** 1: the whole photo fits. */
  zoom: number
  /** The point in the middle of the viewer, from 0 to 1 of the photo's width and height. */
  x: number
  y: number
}

export function useView(): View {
  return reactive({ zoom: 1, x: 0.5, y: 0.5 })
}

export interface Size {
  width: number
  height: number
}

/** CSS pixels per pixel of the photo when it fits; a small photo is not enlarged beyond its own pixels twice. */
export function fitting(photo: Size, stage: Size): number {
  return Math.min(stage.width / photo.width, stage.height / photo.height, 2)
}

/** The view with its zoom in bounds and no empty stage where the photo could be. */
export function bounded(view: View, photo: Size, stage: Size, most: number): View {
  const zoom = Math.min(Math.max(view.zoom, 1), most)
  const scale = fitting(photo, stage) * zoom
  const clamp = (at: number, length: number, room: number) => {
    const half = room / 2 / (length * scale)
    return half >= 0.5 ? 0.5 : Math.min(Math.max(at, half), 1 - half)
  }
  return { zoom, x: clamp(view.x, photo.width, stage.width), y: clamp(view.y, photo.height, stage.height) }
}

/** The view after zooming by a factor about a point, which is in CSS pixels from the stage's middle and stays where it is. */
export function zoomedAbout(
  view: View,
  factor: number,
  point: { x: number; y: number },
  photo: Size,
  stage: Size,
  most: number,
): View {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), most)
  const fit = fitting(photo, stage)
  const moved = (at: number, offset: number, length: number) =>
    at + (offset / (length * fit)) * (1 / view.zoom - 1 / zoom)
  return bounded(
    { zoom, x: moved(view.x, point.x, photo.width), y: moved(view.y, point.y, photo.height) },
    photo,
    stage,
    most,
  )
}
