"""Folders on this machine and on any fsspec filesystem (``s3://``, ``gs://``, ``sftp://``, ...).

A :data:`Location` is a ``pathlib.Path``, or for a remote place a ``upath.UPath`` with the same methods. Remote differs:

- pictures need seeking, so a photo is copied here to be read, and a result is written here and brought to its place
- files cannot grow: lines are appended in parts, see :func:`log`
- there are no locks, only a file that says who has a folder, see :func:`lock`
- some connections are of one thread alone, see :func:`own`

Credentials and endpoints are fsspec's: in its configuration files or ``FSSPEC_...`` variables. Not in the URL, which
runs and manifests keep.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from colorization.core.atomic import sha256
from colorization.core.errors import InputError, shown

Location = Any  # Path | UPath, which is an optional dependency
Version = tuple[int, int]  # bytes, and time of the last change in ns: 0 if unknown

logger = logging.getLogger(__name__)
logging.getLogger("paramiko").setLevel(logging.WARNING)  # each connection that went well

_making = threading.Lock()
_made: set[str] = set()  # folders elsewhere: to look again for each photo would keep all threads waiting


def location(text: str) -> Location:
    """Where a path or URL points.

    Raises:
        InputError: it cannot be reached from here.
    """
    if "://" not in text:
        return Path(text)
    protocol, _, rest = text.partition("://")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise InputError(
            f"{_public(text)}: a password in a URL would be kept by runs and manifests; give it by fsspec's "
            f"configuration, such as FSSPEC_{protocol.upper()}_PASSWORD"
        )
    try:
        from upath import UPath
    except ImportError as error:
        raise InputError(f'{text}: needs fsspec: pip install "lab-colorization[scale]"') from error
    try:
        path = UPath(text.rstrip("/"))
        path.fs.exists(path.path)  # connects
    except Exception as error:  # each protocol has its own
        raise InputError(f"{_public(text)}: cannot be reached ({_line(error)})") from error
    return Path(path.path) if path.protocol in ("", "file", "local") else path


def public(path: Location) -> str:
    """Its name in messages: with the host, without the user."""
    if not is_remote(path):
        return shown(path)
    protocol, _, rest = str(path).partition("://")
    return _public(f"{protocol}://{path.storage_options.get('host', '') if rest.startswith('/') else ''}{rest}")


def _public(url: str) -> str:
    """Without user and password."""
    protocol, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{protocol}://{host.rpartition('@')[2]}{slash}{path}"


def _line(error: BaseException) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__


def is_remote(path: Location) -> bool:
    """Whether it is not on this machine."""
    return not isinstance(path, Path)


def own_connection(path: Location) -> Location:
    """The same place with a connection of this thread; fsspec shares connections between threads if it can."""
    return type(path)(path.path, protocol=path.protocol, **path.storage_options) if is_remote(path) else path


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Errors of a protocol as ``OSError``."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each protocol has its own
        raise OSError(errno.EIO, f"{type(error).__name__}: {_line(error)}") from error


def same(one: Location, other: Location) -> bool:
    """Whether both are one folder."""
    return real(one) == real(other) if is_remote(one) or is_remote(other) else one.is_dir() and one.samefile(other)


def real(path: Location) -> str:
    """A text that is equal for equal places."""
    return (
        f"{path.protocol}://{sorted(path.storage_options.items())}{path.path}"
        if is_remote(path)
        else os.path.realpath(path)
    )


def make_folder(path: Location) -> None:
    """And those above it, unless they are there."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)
        return
    with as_os_errors(), _making:  # protocols look first, which is no good to threads that do the same
        if real(path) not in _made:
            own_connection(path).mkdir(parents=True, exist_ok=True)
            _made.add(real(path))


def version(path: Location) -> Version:
    """Of a file. Raises ``OSError``."""
    if not is_remote(path):
        facts = path.stat()
        return facts.st_size, facts.st_mtime_ns
    with as_os_errors():
        path.fs.invalidate_cache(path.path)
        return _version(path.fs.info(path.path))


def versions(paths: Iterable[Location]) -> dict[Location, Version]:
    """The existing ones of these remote files, by one listing a folder: a thousand times faster."""
    remote: dict[Location, list[Location]] = {}
    for path in paths:
        if is_remote(path):
            remote.setdefault(path.parent, []).append(path)
    found: dict[Location, Version] = {}
    for folder, files in remote.items():
        with as_os_errors():
            folder = own_connection(folder)
            try:
                folder.fs.invalidate_cache(folder.path)
                listed = folder.fs.ls(folder.path, detail=True)
            except FileNotFoundError:
                continue
        facts = {PurePosixPath(info["name"]).name: _version(info) for info in listed if info["type"] == "file"}
        found |= {file: facts[file.name] for file in files if file.name in facts}
    return found


def _version(info: dict[str, Any]) -> Version:
    times = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "modified"))
    when = next((time for time in times if isinstance(time, datetime)), None)
    return int(info["size"]), int(when.timestamp() * 1e9) if when else 0


def identity(path: Location, at: Version | None = None) -> dict[str, Any]:
    """SHA-256, bytes and mtime_ns of a version of a file, or of its current one."""
    size, modified = at or version(path)
    return {"sha256": sha256(path), "bytes": size, "mtime_ns": modified}


def get(path: Location, copy: Path) -> None:
    """Copy a file to this machine, by a connection of this thread."""
    if is_remote(path):
        with as_os_errors():
            path = own_connection(path)
            path.fs.get_file(path.path, str(copy))
    else:
        shutil.copyfile(path, copy)


def forget_connections(path: Location) -> None:
    """Use none of its protocol's connections again: one has broken."""
    from fsspec import get_filesystem_class  # type: ignore[import-untyped]

    get_filesystem_class(path.protocol).clear_instance_cache()


def get_again(path: Location, copy: Path) -> None:
    """As :func:`get`, for files that a long run needs: a temporary network failure does not end the run.

    Tries again after 1, 2, 4, 8 and 16 s. Raises ``OSError``; at once if the file does not exist.
    """
    for wait in (1, 2, 4, 8, 16, 0):
        try:
            return get(path, copy)
        except OSError as error:
            if not wait or not is_remote(path) or isinstance(error, FileNotFoundError | PermissionError):
                raise
            logger.warning("%s: cannot be read (%s); trying again in %d s", public(path), _line(error), wait)
            time.sleep(wait)
            forget_connections(path)


@contextmanager
def local_copy(path: Location) -> Iterator[Path]:
    """The file, or a copy of it, on this machine."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="colorize-") as folder:
        copy = Path(folder, path.name)
        get(path, copy)
        try:
            yield copy
        except InputError as error:  # which names the copy
            raise type(error)(str(error).replace(shown(copy), shown(path))) from error


@contextmanager
def local_targets(parts: dict[str, Location]) -> Iterator[dict[str, Path]]:
    """Local paths to write to; the files are moved to their place at the end."""
    if not any(map(is_remote, parts.values())):
        yield parts
        return
    with tempfile.TemporaryDirectory(prefix="colorize-") as folder:
        copies = {key: Path(folder, part.name) for key, part in parts.items()}
        yield copies
        for key, copy in copies.items():
            if copy.exists():
                with as_os_errors():
                    parts[key].fs.put_file(str(copy), parts[key].path)


@contextmanager
def scratch(folder: Location, prefix: str) -> Iterator[Location]:
    """A new folder in ``folder``, which is deleted at the end with its content."""
    if not is_remote(folder):
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as made:
            yield Path(made)
        return
    made = folder / f"{prefix}{secrets.token_hex(8)}"
    with as_os_errors():
        own_connection(made).mkdir(parents=True)
    try:
        yield made
    finally:
        remove(made)


def remove(folder: Location) -> None:
    """A folder with its content."""
    if not is_remote(folder):
        shutil.rmtree(folder)
        return
    with as_os_errors():
        folder.fs.invalidate_cache(folder.path)
        if folder.exists():  # where folders are but parts of names, an empty one is not
            folder.fs.rm(folder.path, recursive=True)


def write_json(path: Location, content: Any) -> None:
    """Nothing half-written is ever there."""
    write_bytes(path, json.dumps(content, allow_nan=False).encode() + b"\n")


def write_bytes(path: Location, content: bytes) -> None:
    """Nothing half-written is ever there."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with as_os_errors():
        temporary.write_bytes(content)
    move(temporary, path)


def move(source: Location, target: Location) -> None:
    """To a place on the same file system; replaces what is there."""
    if is_remote(source):
        with as_os_errors():
            source.fs.mv(source.path, target.path)
    else:
        source.replace(target)


def lock(path: Location) -> AbstractContextManager[Any]:
    """For one process at a time; another one's raises ``Timeout`` at once. It ends with the process that holds it."""
    return Lease(path) if is_remote(path) else FileLock(path, timeout=0)


class Lease:
    """A file that says who holds it, renewed as long as that process lives."""

    EVERY, OVER = 20.0, 90.0  # seconds

    def __init__(self, path: Location) -> None:
        self.path, self._ended = path, threading.Event()
        self._me = f"{platform.node()} {os.getpid()} {secrets.token_hex(4)}"
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> None:
        with as_os_errors():
            if self._is_held():
                raise Timeout(str(self.path))
            self._write(self.path)
            time.sleep(1)  # another one may have come at the same moment
            if not self._is_mine(self.path):
                raise Timeout(str(self.path))
        self._renewing.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._renewing.join()
        with suppress(OSError), as_os_errors():  # if it cannot be reached, it expires by itself
            if self._is_mine(self.path):
                self.path.unlink()

    def _is_held(self) -> bool:
        if not self.path.exists():
            return False
        _, _, when = self.path.read_text().rpartition(" ")
        return not when.isdigit() or time.time() - int(when) < self.OVER  # no number: it is being written

    def _is_mine(self, path: Location) -> bool:
        path.fs.invalidate_cache(path.path)
        return path.exists() and path.read_text().startswith(self._me)

    def _write(self, path: Location) -> None:
        write_bytes(path, f"{self._me} {time.time():.0f}".encode())

    def _renew(self) -> None:
        while not self._ended.wait(self.EVERY):
            with suppress(OSError), as_os_errors():  # it may be out of reach: tried again
                path = own_connection(self.path)
                if path.exists() and not self._is_mine(path):  # this process was held up for long
                    print(f"{public(path)}: another process has taken this folder over; stopping", file=sys.stderr)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self._write(path)


def log(path: Location, parts: Location) -> Log:
    """The file of lines at ``path``; on a remote filesystem new lines go into ``parts`` first."""
    return PartedLog(path, parts) if is_remote(path) else Log(path)


class Log:
    """A file of lines, each of which is appended whole or not at all, by any thread."""

    def __init__(self, path: Location) -> None:
        self.path, self._lock = path, threading.Lock()

    def read(self) -> bytes:
        """All whole lines: a crash may have cut the last one short."""
        return _whole(self.path.read_bytes()) if self.path.exists() else b""

    def begin(self) -> None:
        """Lines can be appended after this; one that was cut short goes."""
        with self.path.open("ab") as file:
            file.truncate(len(self.read()))

    def append(self, line: bytes) -> None:
        """Raises ``OSError``."""
        with self._lock, self.path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            if file.write(line) != len(line):
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """No lines come any more."""


class PartedLog(Log):
    """The same for filesystems whose files cannot grow.

    A part holds all the lines that had to wait while the one before was written, and a line is appended when its part
    is there. Beginning and closing join the parts.
    """

    def __init__(self, path: Location, parts: Location) -> None:
        super().__init__(path)
        self._parts, self._turn = parts, threading.Condition()
        self._lines: list[bytes] = []  # waiting for the next part
        self._writing, self._part, self._written = False, 1, 0  # the numbers of that part, and of the last one there

    def read(self) -> bytes:
        return self._read(self._listed())

    def _listed(self) -> list[str]:
        with as_os_errors():
            self.path.fs.invalidate_cache(self._parts.path)
            return sorted(self.path.fs.find(self._parts.path)) if self._parts.exists() else []

    def _read(self, parts: list[str]) -> bytes:
        with as_os_errors():
            self.path.fs.invalidate_cache(self.path.path)
            files = [self.path.path] if self.path.exists() else []
            contents = self.path.fs.cat(files + parts) if files + parts else {}
            if isinstance(contents, bytes):  # of a single one
                return _whole(contents)
            return b"".join(_whole(contents[file]) for file in files + parts)

    def begin(self) -> None:
        make_folder(self._parts)
        self.close()

    def append(self, line: bytes) -> None:
        with self._turn:
            self._lines.append(line)
            mine = self._part
            self._turn.wait_for(lambda: self._written >= mine or not self._writing)
            if self._written >= mine:
                return
            lines, self._lines = self._lines, []
            self._writing, self._part = True, self._part + 1
        try:
            with as_os_errors():
                part = own_connection(self._parts) / f"{time.time_ns():020d}-{secrets.token_hex(4)}.jsonl"
                part.write_bytes(b"".join(lines))
        except OSError:
            with self._turn:  # who waits for the others tries again
                lines.remove(line)
                self._lines, self._part = lines + self._lines, mine
            raise
        else:
            self._written = mine
        finally:
            with self._turn:
                self._writing = False
                self._turn.notify_all()

    def close(self) -> None:
        parts = self._listed()
        if not parts:
            return
        with as_os_errors():
            joined = self._parts.parent / "joined.jsonl"
            joined.write_bytes(self._read(parts))
            move(joined, self.path)
            # Were this to end in between, their lines would be there twice, which means the same.
            self.path.fs.rm(parts)


def _whole(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
