"""FTP through the ftplib connection of the storage object, whose own listing fails on spaces."""

from __future__ import annotations

import ftplib
import os
import posixpath
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from storages.backends.ftp import FTPStorageException

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import Hash

CONSENT = "RCLONE_FTP_NO_CHECK_CERTIFICATE"  # rclone reads it itself
LINE = re.compile(  # of `ls -l`: mode, links, owner, group, size, date, name
    r"(?P<type>[-dlbcps])\S{9}\S* +\d+ +\S+ +\S+ +(?P<size>\d+) "
    r"(?P<time>\w{3} +\d+ +[\d:]+) (?P<name>.*)"
)


class ListingError(ValueError):
    """The server's listing is not in a form that is known."""


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def _connected(self) -> Any:
        with _cause():
            self._storage._start_connection()
        return self._storage._connection

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        """Look at the certificate before the password is sent, which the class does not."""
        config = self._storage._config
        if config["secure"] and os.environ.get(CONSENT, "").lower() != "true":
            with closing(_checking_tls()) as server:
                server.connect(config["host"], config["port"])
                server.auth()
        self._connected()

    def refusal(self, key: str) -> str:
        """Say which character the class cannot send in the encoding that it is told to use."""
        try:
            key.encode(self._storage.encoding)
        except UnicodeEncodeError as error:
            character = key[error.start : error.end]
            return (
                f"FTPStorage cannot send {character!r} in the encoding {self._storage.encoding}; "
                'if the server takes UTF-8, set "encoding": "utf-8"'
            )
        return ""

    def objects(self, prefix: str) -> Iterator[Stored]:  # noqa: ARG002
        """List the files with the server's own MLSD, or by the lines of its LIST."""
        server = self._connected()
        home = server.pwd()
        entries = _by_mlsd if "MLST" in _features(server) else _by_list
        folders = [""]
        while folders:
            folder = folders.pop()
            for name, kind, size, time in entries(server, posixpath.join(home, folder)):
                path = folder + name
                if kind == "dir":
                    folders.append(f"{path}/")
                else:
                    yield Stored(key=path, size=size, hash=None, tag=f"{size}-{time}")
        server.cwd(home)

    def prepare(self, keys: Iterable[str]) -> None:
        """Make the folders by the class: some servers have rclone believe that they are there."""
        for folder in sorted({posixpath.dirname(key) for key in keys} - {""}):
            self._connected()
            with _cause():
                self._storage._mkremdirs(folder)

    def puts(self, size: int) -> int:  # noqa: ARG002
        return 1

    def hasher(self) -> Hash:
        return Hash("md5")


@contextmanager
def _cause() -> Iterator[None]:
    """Raise what ftplib said: the class's own error hides it, and shows the password."""
    try:
        yield
    except FTPStorageException as error:
        raise (error.__context__ or error) from None


def _checking_tls() -> ftplib.FTP_TLS:
    return ftplib.FTP_TLS(context=ssl.create_default_context())  # noqa: S321  # the site's choice


def _features(server: Any) -> str:
    try:
        return str(server.sendcmd("FEAT")).upper()
    except ftplib.error_perm:
        return ""


def _by_mlsd(server: Any, folder: str) -> Iterator[tuple[str, str, int, str]]:
    """Yield name, kind, size and time of all in a folder."""
    for name, facts in list(server.mlsd(folder)):
        kind = facts.get("type", "").lower()
        if kind not in ("cdir", "pdir"):
            size = int(facts.get("size", 0)) if kind == "file" else -1
            yield name, kind, size, facts.get("modify", "")


def _by_list(server: Any, folder: str) -> Iterator[tuple[str, str, int, str]]:
    """Do the same for a server without MLSD; -a shows names that begin with a dot."""
    lines: list[str] = []
    server.cwd(folder)
    server.retrlines("LIST -a", lines.append)
    for line in lines:
        found = LINE.fullmatch(line)
        if not found and not line.startswith("total "):
            raise ListingError(line)
        if found and found["name"] not in (".", ".."):
            kind = {"d": "dir", "-": "file"}.get(found["type"], "")
            size = int(found["size"]) if kind == "file" else -1
            yield found["name"], kind, size, found["time"].replace(" ", "")
