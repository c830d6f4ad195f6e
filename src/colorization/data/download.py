"""Download COCO val2017 (Lin et al. 2014; 5,000 photographs): ``python -m colorization.data.download``.

An interrupted download resumes where it stopped. ``val2017`` appears only once it is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
import zipfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from colorization.core.errors import InputError
from colorization.core.machine import print_all_letters

NAME = "val2017"
URL = "http://images.cocodataset.org/zips/val2017.zip"
SIZE = 815_585_330  # bytes
MD5 = "442b8da7639aecaf257c1dceb8ba8c80"
ATTEMPTS = 5  # in a row, without a byte more than before
PAUSE = 2.0  # seconds before the second attempt, one more of them before each further one
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


class _NetworkError(Exception):
    """An error that may be gone at the next attempt."""


def download_coco(data_dir: Path, url: str = URL, md5: str = MD5) -> Path:
    """Make ``<data_dir>/coco/val2017``; nothing is done where it is there already.

    Args:
        data_dir: folder of all data sets.
        url: where the zip is; an http or https address.
        md5: of the zip, 32 hex digits.

    Returns:
        The folder of the photographs.

    Raises:
        InputError: no download, a wrong file, or too little room. A partial download stays, a wrong file does not.
        OSError: the disk refuses.
        KeyboardInterrupt: Ctrl-C; the partial download stays.
    """
    folder = data_dir / "coco"
    photos = folder / NAME
    if photos.exists():
        return photos
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--url {url}: should begin with http:// or https://")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{NAME}.zip.part"
    fetch(url, part)
    found = _md5(part)
    if found != md5.lower():
        part.unlink()
        raise InputError(
            f"--url {url}: the checksum of the file is {found}, it should be {md5}; it has been deleted, start again"
        )
    unpack(part, photos)
    part.unlink()
    return photos


def fetch(url: str, part: Path) -> None:
    """Download ``url`` to ``part``, resuming after the bytes that it has.

    Raises:
        InputError: no connection after several attempts, the server refuses, or too little room.
    """
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _fetch_rest(url, part)
        except _NetworkError as error:
            # A long download over a bad line may break often; only standing still counts.
            failures, furthest = (0, _size(part)) if _size(part) > furthest else (failures + 1, furthest)
            if failures == ATTEMPTS:
                raise InputError(
                    f"--url {url}: the download failed {ATTEMPTS} times ({error}); run the same command to resume"
                ) from error
        time.sleep(PAUSE * max(1, failures))


def _fetch_rest(url: str, part: Path) -> None:
    have = _size(part)
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # no byte after these: the file is whole, or the checksum will tell
            return
        if error.code < 500 and error.code not in (408, 429):
            raise InputError(f"--url {url}: the server answers {error.code} {error.reason}") from error
        raise _NetworkError(f"{error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _NetworkError(str(getattr(error, "reason", error))) from error
    with response, part.open("ab") as file:
        if response.status != 206:  # the server knows no Range and sends everything
            file.truncate(0)
            have = 0
        total = have + response.length if response.length is not None else None
        if total is not None:
            # JPEGs hardly shrink in a zip; a twentieth is for the blocks of the file system.
            _check_room(part.parent, int(2.05 * total) - have, "for the zip and its photographs")
        with tqdm(total=total, initial=have, desc=NAME, unit="B", unit_scale=True, disable=None) as progress:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, HTTPException) as error:
                    raise _NetworkError(str(error)) from error
                if not chunk:
                    break
                file.write(chunk)
                have += len(chunk)
                progress.update(len(chunk))
    if total is not None and have < total:
        raise _NetworkError(f"the connection ended after {have} of {total} bytes")


def unpack(archive: Path, photos: Path) -> None:
    """Unpack the folder ``photos.name`` of a zip to ``photos``.

    Everything is unpacked beside it first: a kill half-way leaves no ``photos``.

    Raises:
        InputError: not a zip, one with paths that lead outside, or one without that folder; or too little room.
    """
    temporary = photos.with_name(f"{photos.name}.unpacking")
    if temporary.exists():  # of a run that was killed
        shutil.rmtree(temporary)
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            for member in members:
                path = PurePosixPath(member.filename)
                if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
                    raise InputError(f"{archive}: refused, {member.filename!r} in it would be written outside")
            if not any(PurePosixPath(m.filename).parts[:1] == (photos.name,) and not m.is_dir() for m in members):
                raise InputError(f"{archive}: no folder {photos.name} in it")
            _check_room(photos.parent, sum(m.file_size for m in members), "for the photographs")
            for member in tqdm(members, f"unpacking {photos.name}", unit="file", disable=None):
                content.extract(member, temporary)
        (temporary / photos.name).replace(photos)
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive}: not a zip archive ({error})") from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check_room(folder: Path, needed: int, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        gigabytes = f"{free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB needed"
        raise InputError(f"{folder}: {gigabytes} {purpose}; make room or choose another folder with --to")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, 2 with a sentence on standard error, or 130 after Ctrl-C."""
    print_all_letters()
    default = os.environ.get("COLORIZATION_DATA") or "data"
    parser = argparse.ArgumentParser(prog="python -m colorization.data.download", description=f"Download COCO {NAME}.")
    parser.add_argument("--to", type=Path, default=Path(default), metavar="DIR", help=f"default {default}")
    parser.add_argument("--url", default=URL, help=f"a mirror of the zip (default {URL}, {SIZE / 1e6:.0f} MB)")
    parser.add_argument("--md5", default=MD5, metavar="HEX", help="its checksum")
    given = parser.parse_args(arguments)
    try:
        photos = download_coco(given.to, given.url, given.md5)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command to resume", file=sys.stderr)
        return 130
    print(f"{sum(1 for _ in photos.iterdir())} photographs in {photos}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
