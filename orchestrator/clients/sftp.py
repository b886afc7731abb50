"""SFTP through the paramiko connection of the storage object itself."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import Hash

HOME_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")  # paramiko's, in its order


class RootPathError(ValueError):
    """Django could not save into this root_path."""


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage

    @property
    def transport(self) -> Any:
        """The connection that Django's own options have made."""
        return self._storage.sftp.get_channel().get_transport()

    @cached_property
    def key(self) -> dict[str, str]:  # type: ignore[override]
        """Return the first key file that lets us in, and the password that opens it."""
        return {}

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        if not prefix:
            raise RootPathError("it is empty")
        self._storage.sftp.listdir_attr(prefix)

    def objects(self, prefix: str) -> Iterator[Stored]:
        yield from self._below(prefix, frozenset())

    def _below(self, folder: str, links: frozenset[str]) -> Iterator[Stored]:
        """List a folder and all below it; a link to a folder counts as one, but never in a circle."""
        sftp = self._storage.sftp
        for item in sftp.listdir_attr(folder):
            path, seen = folder + item.filename, links
            status = item
            if stat.S_ISLNK(item.st_mode):
                status, real = _followed(sftp, path) 
