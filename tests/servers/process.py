"""Server programs: found, started on a free port, awaited, ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers import launch

SECONDS_TO_START = 60
SECONDS_TO_END = 10


def find(program: str) -> str | None:
    """Return the path of a program in PATH or beside this Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(program) or shutil.which(program, path=beside)


def free_address() -> str:
    """Return host:port of a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host, port = probe.getsockname()
    return f"{host}:{port}"


@contextmanager
def running(
    command: Sequence[str], *, ready: str, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends, from when the URL `ready` answers without a 5xx.

    A server whose URL begins with tcp: is ready when it sends its greeting.
    """
    launcher = [sys.executable, launch.__file__, str(os.getpid())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*launcher, *command],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C ends the tests first
        )
    try:
        _await(process, ready, log)
        yield
    finally:
        _end(process)


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"no server at {url}, exit code {process.returncode}:\n{end}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        return _greets(parts.netloc)
    connection = HTTPConnection(parts.netloc, timeout=5)
    with suppress(OSError, HTTPException):
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
        connection.close()
        return status < 500
    connection.close()
    return False


def _greets(address: str) -> bool:
    host, port = address.split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
        return bool(connection.recv(1))
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
