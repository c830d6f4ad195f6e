/** What can be evaluated on: as in the server's `photofiles.py`. */
const READ = /\.(jpe?g|jpe|jfif|a?png|webp|tiff?|bmp|gif|p[bgpn]m|jp2|j2[kc]|jpc|jp[fx]|avifs?|hei[cf]|mpo)$/i
const TYPES = /^image\/(jpeg|png|webp|bmp|tiff|gif|avif|heic|heif|jp2)$/

/** Of a folder's or a drop's files the photographs; by type where the name (of what was pasted) does not say it. */
export function photosOnly(files: readonly File[]): File[] {
  return files.filter((it) => !it.name.startsWith('.') && (READ.test(it.name) || TYPES.test(it.type)))
}
