/** Photographs for the tests. */
import { execFileSync } from 'node:child_process'
import { join, resolve } from 'node:path'

const PYTHON = process.env.COLORIZATION_PYTHON ?? resolve('../.venv/bin/python')

/** Writes `count` small photos, a 16-bit TIFF and half a PNG into a folder, with the libraries that the server has. */
export function makePhotos(folder: string, count: number): { photos: string[]; tiff: string; damaged: string } {
  const script = `
import io, pathlib, sys, numpy, tifffile
from PIL import Image
from sklearn.datasets import load_sample_image
photo = Image.fromarray(load_sample_image("china.jpg"))
for i in range(${count}):
    photo.crop((i % 300, 0, i % 300 + 300, 300)).resize((120, 120)).save(f"{sys.argv[1]}/photo-{i:03d}.jpg")
photo.crop((0, 0, 120, 120)).save(png := io.BytesIO(), "PNG")
pathlib.Path(sys.argv[1], "damaged.png").write_bytes(png.getvalue()[: len(png.getvalue()) // 2])
tifffile.imwrite(f"{sys.argv[1]}/scan.tif", numpy.asarray(photo.convert("L")).astype("uint16") * 257, photometric="minisblack")
`
  execFileSync(PYTHON, ['-c', script, folder])
  const photos = Array.from({ length: count }, (_, i) => join(folder, `photo-${String(i).padStart(3, '0')}.jpg`))
  return { photos, tiff: join(folder, 'scan.tif'), damaged: join(folder, 'damaged.png') }
}
