/** What can be evaluated on: the types that the server's data modules read. */
const READ = /\.(jpe?g|png|webp|bmp|tiff?)$/i
const TYPES = ['image/jpeg', 'image/png', 'image/webp', 'image/bmp', 'image/tiff']

/** Of a folder's or a drop's files the photographs; by type where the name (of what was pasted) does not say it. */
export function photosOnly(files: readonly File[]): File[] {
  return files.filter((it) => READ.test(it.name) || TYPES.includes(it.type))
}
