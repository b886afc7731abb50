"""SFTP through the paramiko connection of the storage object itself."""

from __future__ import annotations

import logging
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import paramiko

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import Hash

# It would print a traceback where nobody has configured logging; it raises the error too.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

FOUND_AT_HOME = ("id_rsa", "id_ecdsa", "id_ed25519")  # by paramiko, in this order


class RootPathError(ValueError):
    """Django's save() fails with this root_path, in a recursion without end."""


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage

    @property
    def transport(self) -> Any:
        """The connection that the site's own options have made."""
        return self._storage.sftp.get_channel().get_transport()

    @cached_property
    def login(self) -> Mapping[str, str | None]:
        """The first key file that lets us in, and what unlocks it: rclone takes only one."""
        params = self._storage.params
        unlocks = dict.fromkeys((None, params.get("passphrase") or params.get("password")))
        for file, secret in product(_key_files(params), unlocks):
            if self._lets_in(file, secret):
                return {"file": file, "secret": secret}
        return {}

    def _lets_in(self, file: str, secret: str | None) -> bool:
        trial = copy(self._storage)
        alone = {"key_filename": file, "allow_agent": False, "look_for_keys": False}
        trial.params = {**self._storage.params, **alone, "passphrase": secret, "password": None}
        try:
            trial._connect()
        except (paramiko.SSHException, OSError, ValueError):
            return False
        finally:
            trial.close()
        return True

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        if not prefix:
            raise RootPathError("root_path is empty")
        self._storage.sftp.listdir_attr(prefix)

    def objects(self, prefix: str) -> Iterator[Stored]:
        """List the files; a link counts as what it leads to, and is never followed in a circle."""
        sftp = self._storage.sftp
        folders: list[tuple[str, frozenset[str]]] = [(prefix, frozenset())]
        while folders:
            folder, links = folders.pop()
            for item in sftp.listdir_attr(folder):
                path, status = folder + item.filename, item
                if link := stat.S_ISLNK(item.st_mode):
                    status = _led_to(sftp, path) or item
                if not stat.S_ISDIR(status.st_mode):
                    yield _stored(path, status)
                elif not link or (real := sftp.normalize(path)) not in links:
                    folders.append((f"{path}/", links | {real} if link else links))

    def prepare(self, keys: Iterable[str]) -> None:
        """Make the folders by the class, which gives those that it makes a mode and an owner."""
        storage = self._storage
        if storage.dir_mode is None and not storage.uid and not storage.gid:
            return
        for folder in sorted({posixpath.dirname(key) for key in keys}):
            if not storage._path_exists(folder):
                storage._mkdir(folder)

    def settle(self, name: str) -> None:
        """Do what SFTPStorage._save does to a file that it has written."""
        storage, path = self._storage, self._storage._remote_path(name)
        if storage.file_mode is not None:
            storage.sftp.chmod(path, storage.file_mode)
        if storage.uid or storage.gid:
            storage._chown(path, uid=storage.uid, gid=storage.gid)

    def puts(self, size: int) -> int:  # noqa: ARG002
        return 1

    def hasher(self) -> Hash:
        return Hash("md5")


def _key_files(params: Mapping[str, Any]) -> list[str]:
    """Return the key files that paramiko would try, unless a password makes a search needless."""
    if given := params.get("key_filename"):
        return [given] if isinstance(given, str) else list(given)
    if params.get("password") or not params.get("look_for_keys", True):
        return []
    paths = (Path.home() / ".ssh" / name for name in FOUND_AT_HOME)
    return [str(path) for path in paths if path.is_file()]


def _led_to(sftp: Any, path: str) -> Any:
    try:
        return sftp.stat(path)
    except OSError:
        return None


def _stored(key: str, status: Any) -> Stored:
    """What is no file has no size, so that nothing replaces it; rclone and Django set the time."""
    size = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return Stored(key=key, size=size, hash=None, tag=f"{status.st_size}-{status.st_mtime}")
