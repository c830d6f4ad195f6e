"""An archive in small: photographs in nested folders with odd files among them, colorized by a process that is killed.

    python experiments/archive-run/run.py PHOTOS WORK [--limit N]

copies the photographs below PHOTOS into WORK/scans, mixes odd files in, colorizes the folder with two SIGKILLs on the
way, once more without any, and compares; what it prints is in README.md beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

MANIFEST = "manifest.jsonl"


def bomb(path: Path, side: int = 50_000) -> None:
    """A PNG of nothing, side x side, in some kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(side // 8 + 2)
    content = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b""))


def make(photos: list[Path], scans: Path) -> None:
    """Photographs in folders three deep, and what archives have besides."""
    for i, photo in enumerate(photos):
        folder = scans / f"{1900 + 10 * (i % 7)}s" / f"box {i % 5 + 1}" / ("prints" if i % 3 else ".")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, folder / photo.name)
    odd = scans / "odd"
    (odd / "folder.jpg").mkdir(parents=True)
    whole = photos[0].read_bytes()
    (odd / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (odd / "zero bytes.jpg").touch()
    (odd / "text.jpg").write_text("no photograph\n")
    bomb(odd / "bomb.png")
    (odd / "link to nothing.jpg").symlink_to("gone.jpg")
    (odd / "circle").symlink_to(scans)
    os.mkfifo(odd / "pipe.jpg")
    (odd / "two\nlines 🐈.jpg").write_bytes(whole)
    (odd / "._photo.jpg").write_bytes(b"what a Mac leaves on other disks")
    image = Image.open(photos[1]).convert("RGB")
    image.save(odd / "a png called.jpg", "PNG")
    image.convert("CMYK").save(odd / "cmyk.jpg")
    image.convert("LA").save(odd / "grey and alpha.png")
    image.convert("P").save(odd / "palette.gif")
    image.resize((1, 1)).save(odd / "one pixel.png")
    image.convert("1").save(odd / "one bit.tif")
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(odd / "sixteen bits.png")
    image.save(odd / "three pages.tif", save_all=True, append_images=[image.rotate(90), image.rotate(180)])


def results(out: Path) -> dict[str, str]:
    """SHA-256 of every result."""
    files = (f for f in sorted(out.rglob("*")) if f.is_file() and f.name != MANIFEST and ".colorize" not in f.parts)
    return {f.relative_to(out).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def page(photos: list[Path], scans: Path, out: Path, target: Path, rows: int = 8, height: int = 256) -> None:
    """Lightness | result | original of some of the photographs, evenly from those for testing, as one picture."""
    photos = [p for p in photos if p.parent.name == "test"] or photos
    strips = []
    for photo in photos[:: max(1, len(photos) // rows)][:rows]:
        (result,) = out.rglob(photo.name)
        original = Image.open(scans / result.relative_to(out)).convert("RGB")
        views = [original.convert("L").convert("RGB"), Image.open(result), original]
        width = round(original.width * height / original.height)
        strips.append(np.concatenate([np.asarray(view.resize((width, height))) for view in views], 1))
    wide = max(strip.shape[1] for strip in strips)
    padded = [np.pad(s, ((0, 6), (0, wide - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    Image.fromarray(np.concatenate(padded)).save(target, quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--limit", type=int, help="of photographs")
    options = parser.parse_args()
    scans, out, whole = (options.work / name for name in ("scans", "colour", "colour-uninterrupted"))
    photos = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[: options.limit]
    make(photos, scans)

    def start(target: Path) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).parent / "colorize"), "scans", "-o", target.name, "--recursive"]
        print(f"$ {' '.join(command).removeprefix(str(Path(sys.executable).parent) + os.sep)}", flush=True)
        return subprocess.Popen(command, cwd=options.work, stderr=subprocess.STDOUT)

    for share in (0.3, 0.7):
        process = start(out)
        while process.poll() is None:
            manifest = out / MANIFEST
            if manifest.exists() and manifest.read_bytes().count(b"\n") > share * len(photos):
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
        print(f"Killed (SIGKILL), {len(results(out))} results are there\n", flush=True)
    for target in (out, whole):
        print(f"exit code {start(target).wait()}\n", flush=True)
    rows = [json.loads(line) for line in (out / MANIFEST).read_bytes().splitlines()]
    done = [row["target"] for row in rows if row.get("state") == "done"]
    print(f"{len(done)} lines say done, of {len(set(done))} photos")
    same = results(out) == results(whole)
    print(
        f"{len(results(whole))} results, {'byte for byte' if same else 'NOT'} those of the run that was never stopped"
    )
    page(photos, scans, out, options.work / "before-after.jpg")
    sys.exit(not same)


if __name__ == "__main__":
    main()
