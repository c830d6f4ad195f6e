"""Uploads: checked before anything decodes them, stored under generated names, the client's own only for display."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from flask import request
from sqlalchemy import select
from werkzeug.datastructures import FileStorage

from colorization.api.http.problems import Problem
from colorization.api.settings import MEGA, Settings
from colorization.api.storage.database import Database, Job
from colorization.api.storage.jobs import new_id
from colorization.core import errors, runs
from colorization.files import pictures
from colorization.files.pixels import Unreadable

# Pillow's name of a type -> ending of a stored file, media type.
TYPES = {
    "JPEG": (".jpg", "image/jpeg"),
    "MPO": (".jpg", "image/jpeg"),
    "PNG": (".png", "image/png"),
    "TIFF": (".tif", "image/tiff"),
    "WEBP": (".webp", "image/webp"),
    "BMP": (".bmp", "image/bmp"),
    "GIF": (".gif", "image/gif"),
    "AVIF": (".avif", "image/avif"),
    "JPEG2000": (".jp2", "image/jp2"),
    "PPM": (".pnm", "image/x-portable-anymap"),
    "HEIF": (".heic", "image/heic"),
}
MEDIA_TYPES = dict(TYPES.values())
_NAME_LENGTH = 100


@dataclass(frozen=True)
class Upload:
    """A stored picture.

    Attributes:
        name: as the client called it, made harmless by :func:`safe_name`.
        path: where it lies; its ending says its true type.
    """

    name: str
    path: Path


def safe_name(given: str | None) -> str:
    """The last part of a name that a client gave, fit to be shown and to be a file's name on any system."""
    last = re.split(r"[/\\]", given or "")[-1]
    kept = "".join("_" if c in '<>:"|?*' else c for c in last if c.isprintable()).strip(". ")
    stem, dot, suffix = kept.rpartition(".")
    if dot and len(suffix) <= 5:
        return (stem or "photo")[:_NAME_LENGTH] + dot + suffix
    return kept[:_NAME_LENGTH] or "photo"


def store(given: FileStorage, folder: Path, settings: Settings) -> Upload:
    """Check an uploaded file by its length and headers, and put it into ``folder``.

    Raises:
        Problem: 413 too many bytes or pixels, 415 no picture of a known type, 422 empty or damaged, 503 no room.
    """
    name = safe_name(given.filename)
    length = given.stream.seek(0, 2)
    given.stream.seek(0)
    if length > settings.upload_mb * MEGA:
        raise Problem(413, f"{name}: has {length / MEGA:.0f} MB; this server takes {settings.upload_mb} MB a file")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / new_id()
    try:
        given.save(path)
        try:
            format, sizes = pictures.identify(path)
        except Unreadable as error:
            raise problem(error, Upload(name, path)) from error
        if (pixels := sum(w * h for w, h in sizes)) > settings.pixels_mp * MEGA:
            limit = f"this server takes {settings.pixels_mp} megapixels a file"
            raise Problem(413, f"{name}: has {pixels / MEGA:.0f} megapixels; {limit}")
        return Upload(name, path.rename(path.with_suffix(TYPES[format][0])))
    except OSError as error:
        if error.errno not in runs.DISK_FULL:
            raise
        raise Problem(503, f"{name}: cannot be stored ({error.strerror})", retry_after=60) from error
    finally:
        path.unlink(missing_ok=True)


def check_form(settings: Settings, single: bool) -> None:
    """Bound the form of the request before it is read; ``single``: it has one file.

    Raises:
        Problem: 415, it is none.
    """
    if request.mimetype != "multipart/form-data":
        raise Problem(415, "the request should be a form, multipart/form-data")
    if single:
        request.max_content_length = (settings.upload_mb + 1) * MEGA
        request.max_form_parts = 100


def problem(error: Exception, upload: Upload) -> Problem:
    """The message for clients about a file that could not be read or colorized, without its path."""
    reason = str(error).removeprefix(f"{errors.shown(upload.path)}: ").replace(str(upload.path), upload.name)
    status = 413 if isinstance(error, pictures.TooLarge) else 415 if isinstance(error, pictures.UnknownType) else 422
    return Problem(status, f"{upload.name}: {reason}")


def sweep(settings: Settings, database: Database) -> None:
    """Remove left-overs of a killed server's requests: uploads of no job. Called once, at the start."""
    shutil.rmtree(settings.state_dir / "uploads", ignore_errors=True)
    with database() as session:
        known = set(session.scalars(select(Job.id)))
    jobs = settings.state_dir / "jobs"
    for folder in jobs.iterdir() if jobs.is_dir() else ():
        if folder.name not in known:
            shutil.rmtree(folder)
