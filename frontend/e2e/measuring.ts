/** What Metrics and Compare are tried on: photographs that come with scikit-image, and a second set of weights. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

import { PYTHON, type Server } from './fixtures'

// Twelve crops of real photographs; weights like those that ship, but with paler colours.
const SCRIPT = `
import pathlib, sys
import skimage
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from colorization.models.weights import resolve_weights

folder = pathlib.Path(sys.argv[1])
photos = folder / "data" / "photos"
photos.mkdir(parents=True, exist_ok=True)
for name in ("astronaut", "chelsea", "coffee", "rocket"):
    found = next(pathlib.Path(skimage.__path__[0], "data").glob(f"{name}.*"), None)
    picture = Image.open(found or pathlib.Path(skimage.__path__[0], "data", "coffee.png")).convert("RGB")
    for number in range(3):
        width, height = picture.size
        left = number * (width - height) // 2 if width > height else 0
        box = (left, 0, left + min(width, height), min(width, height))
        picture.crop(box).resize((320, 320)).save(photos / f"{name}-{number}.jpg")
(outputs := folder / "outputs").mkdir(exist_ok=True)
with safe_open(resolve_weights("shipped-unet"), "numpy") as file:
    tensors = {key: file.get_tensor(key) for key in file.keys()}
    last = [key for key in tensors if key.endswith("weight")][-1]
    tensors[last] = tensors[last] * 0.5
    save_file(tensors, outputs / "pale.safetensors", file.metadata())
`

/** @returns the folder of the photographs. */
export function prepare(server: Server): string {
  execFileSync(PYTHON, ['-c', SCRIPT, server.folder], { stdio: 'pipe' })
  return join(server.folder, 'data', 'photos')
}
