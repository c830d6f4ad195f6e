/** Photographs: the viewer and the view that several of them can share. */
export { default as Lightbox } from './Lightbox.vue'
export { default as PhotoCompare } from './PhotoCompare.vue'
export { useView, type View } from './view'
