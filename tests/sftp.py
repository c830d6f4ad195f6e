"""A real SFTP server for tests: ``python sftp.py FOLDER [PORT]`` serves it on this machine and prints the port.

Paramiko's protocol on the files of the folder, for the user ``u`` with the password ``secret``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec.config
import paramiko
import pytest


class _Anyone(paramiko.ServerInterface):
    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if (username, password) == ("u", "secret") else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


class _Files(paramiko.SFTPServerInterface):
    root: Path

    def _here(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _try(self, do: Callable[[], Any]) -> Any:
        try:
            answer = do()
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        return paramiko.SFTP_OK if answer is None else answer

    def list_folder(self, path: str) -> Any:
        def listed() -> list[paramiko.SFTPAttributes]:
            return [paramiko.SFTPAttributes.from_stat(f.lstat(), f.name) for f in self._here(path).iterdir()]

        return self._try(listed)

    def stat(self, path: str) -> Any:
        return self._try(lambda: paramiko.SFTPAttributes.from_stat(self._here(path).stat()))

    def lstat(self, path: str) -> Any:
        return self._try(lambda: paramiko.SFTPAttributes.from_stat(self._here(path).lstat()))

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened() -> paramiko.SFTPHandle:
            handle = paramiko.SFTPHandle(flags)
            mode = "r+b" if flags & (os.O_WRONLY | os.O_RDWR) else "rb"
            file = os.fdopen(os.open(self._here(path), flags, 0o644), mode)
            handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
            handle.stat = lambda: paramiko.SFTPAttributes.from_stat(os.fstat(file.fileno()))  # type: ignore[method-assign]
            return handle

        return self._try(opened)

    def remove(self, path: str) -> Any:
        return self._try(self._here(path).unlink)

    def rename(self, oldpath: str, newpath: str) -> Any:
        if self._here(newpath).exists():  # as the protocol says
            return paramiko.SFTP_FAILURE
        return self.posix_rename(oldpath, newpath)

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        def renamed() -> None:
            self._here(oldpath).replace(self._here(newpath))

        return self._try(renamed)

    def mkdir(self, path: str, attr: Any) -> Any:
        return self._try(self._here(path).mkdir)

    def rmdir(self, path: str) -> Any:
        return self._try(self._here(path).rmdir)


def _main(folder: str, port: str = "0") -> None:
    _Files.root = Path(folder)
    key = paramiko.RSAKey.generate(2048)
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        transports = []  # which end when nobody holds them
        while True:
            transport = paramiko.Transport(listener.accept()[0])
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
            transport.start_server(threading.Event(), _Anyone())
            transports.append(transport)


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """The URL of a server of ``folder``; by itself it chooses a free port."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__, str(folder), str(port)], **pipes) as server:  # type: ignore[call-overload]
        try:
            with pytest.MonkeyPatch.context() as patch:
                # (Processes that are started have it from the environment, see conftest.py.)
                patch.setitem(fsspec.config.conf, "sftp", {"password": "secret"})
                yield f"sftp://u@127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()  # if we die first, its standard input ends and it, too


if __name__ == "__main__":
    _main(*sys.argv[1:])
