"""What the promises are held against: the source, the store, the processes, each seen by itself."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests import django_side
from tests.servers.base import Options, Server, Stored
from tests.servers.proxy import Proxy
from tests.site import Site

SECONDS = 60
ONE_OF_EACH = (*("minio", "azurite", "gcs", "dropbox", "folder", "proftpd", "sshd", "libcloud_s3"),)
"""A server of each family, for what is costly and says nothing of a server beyond its family."""


def key_of(server: Server, options: Options, name: str) -> str:
    """Return the key that holds the file `name`, as the server lists it."""
    keys = server.keys(options)
    return min((k for k in keys if k == name or k.endswith(f"/{name}")), key=len)


def stored(server: Server, options: Options) -> dict[str, Stored]:
    """Return all that the server holds, with its bytes."""
    return {key: server.peek(options, key) for key in server.keys(options)}


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return the bytes, mode and time of each file and folder; reading leaves them as they are."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted((folder, *folder.rglob("*"))):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        found[str(path)] = (digest, status.st_mode, status.st_mtime_ns, status.st_ino)
    return found


def save_by_django(server: Server, options: Options, name: str, data: bytes) -> None:
    """Store a file as the site itself would, in a process of its own."""
    with TemporaryDirectory() as folder:
        site = Site.on(server, options, Path(folder))
        site.add(name, data)
        assert django_side.save(site, [name]).given == {name: name}


@contextmanager
def watched(server: Server, options: Options) -> Iterator[tuple[Options, Proxy | None]]:
    """Yield options whose requests are logged, where the server speaks HTTP."""
    if not server.endpoint_option:
        yield options, None
        return
    with server.proxied(options) as (proxied, proxy):
        yield proxied, proxy


class Held:
    """Keeps the requests of a proxy waiting, once those in `after` have come in that order.

    Each is a part of "METHOD target"; the last of them is the first that waits.
    """

    def __init__(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, *after: str) -> None:
        self.waiting = 0
        self._after = list(after)
        self._released = threading.Event()
        proceed = proxy.take_fault

        def wait(request: str, headers: Container[str] = ()) -> Any:
            if self._after and self._after[0] in request:
                self._after.pop(0)
            if not self._after:
                self.waiting += 1
                self._released.wait(SECONDS)
            return proceed(request, headers)

        monkeypatch.setattr(proxy, "take_fault", wait)

    def release(self) -> None:
        self._released.set()


@dataclass(frozen=True, kw_only=True)
class Running:
    """The program at work in a process group of its own, as a shell starts it."""

    process: subprocess.Popen[str]

    def await_stage(self, title: str) -> None:
        """Return as soon as a stage whose title starts like this has begun."""
        assert self.process.stdout
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == "stage" and event["title"].startswith(title):
                return
        raise AssertionError(f"it ended before the stage {title!r}: {self.error()}")

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(SECONDS)

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and what it said last."""
        assert self.process.stdout
        said = self.process.stdout.read()
        return self.process.wait(SECONDS), said + self.error()

    def error(self) -> str:
        assert self.process.stderr
        return self.process.stderr.read()


@contextmanager
def running(site: Site, *args: str) -> Iterator[Running]:
    site.write_env()
    # A shell's background job ignores Ctrl-C, and so would our child.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        site.command("--json", *args),
        cwd=site.folder,
        env=site.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield Running(process=process)
        finally:
            for group in (process.pid, *rclones(site)):  # also where a test has failed
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)


def rclones(site: Site) -> dict[int, tuple[bytes, dict[bytes, bytes]]]:
    """Return the arguments and the variables of each rclone that works in the site's folder."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text() == "rclone\n" and _works_in(folder, site.folder):
                found[int(folder.name)] = ((folder / "cmdline").read_bytes(), _variables(folder))
    return found


def _works_in(process: Path, folder: Path) -> bool:
    return (process / "cwd").readlink() == folder.resolve()


def _variables(process: Path) -> dict[bytes, bytes]:
    pairs = (process / "environ").read_bytes().rstrip(b"\0").split(b"\0")
    return {name: value for name, _, value in (pair.partition(b"=") for pair in pairs)}


def wait_for(condition: Callable[[], object], seconds: float = SECONDS) -> bool:
    """Return whether the condition has come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
