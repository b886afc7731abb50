"""A folder, as the operating system shows it; links in it are never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import Hash


class NestedFoldersError(ValueError):
    """Source and target are one folder, or one lies in the other."""


class Folder:
    """What every class needs that stores its objects in a folder."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        os.scandir(self._root).close()
        mine, theirs = _above(self._root), _above(source) if source.exists() else []
        if mine[0] in theirs or set(theirs[:1]) & set(mine):
            raise NestedFoldersError(f"{source} and {self._root}")
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError(f"{self._root} cannot be written")

    def room(self) -> int:
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def refusal(self, key: str) -> str:
        """Say what stands in the way of a key: a link, a file, or a name that the disk folds."""
        parts = key.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if fault := _fault(self._path(path), folder=depth < len(parts)):
                return f"{path} {fault}"
        return ""

    def puts(self, size: int) -> int:  # noqa: ARG002
        return 1


class Client(Folder, clients.Client):
    def __init__(self, storage: Any) -> None:
        super().__init__(storage.location)
        self._storage = storage

    def objects(self, prefix: str) -> Iterator[Stored]:  # noqa: ARG002
        """List the files; what is there and no file has no size, so that nothing replaces it."""
        for folder, folders, files in os.walk(self._root, onerror=_raise):
            for name in (*files, *folders):
                path = f"{folder}/{name}"
                status = os.lstat(path)
                if not stat.S_ISDIR(status.st_mode):
                    yield _stored(path.removeprefix(self._path("")), status)

    def prepare(self, keys: Iterable[str]) -> None:
        """Make the folders that are missing as the class makes them: all with the same mode."""
        for folder in {os.path.dirname(key) for key in keys}:  # noqa: PTH120  # keys are text
            self._make(folder)

    def _make(self, folder: str) -> None:
        path = self._path(folder)
        if os.path.lexists(path):
            return
        self._make(os.path.dirname(folder))  # noqa: PTH120
        os.mkdir(path)  # noqa: PTH102
        if (mode := self._storage.directory_permissions_mode) is not None:
            os.chmod(path, mode)  # noqa: PTH101

    def settle(self, name: str) -> None:
        """Do what FileSystemStorage._save does to a file that it has written."""
        path = self._storage.path(name)
        if (mode := self._storage.file_permissions_mode) is not None:
            os.chmod(path, mode)  # noqa: PTH101
        self._storage._ensure_location_group_id(path)

    def hasher(self) -> Hash:
        return Hash("md5")


def _above(path: str | Path) -> list[tuple[int, int]]:
    """Return device and inode of a folder and of all above it: a path can lie."""
    real = Path(path).resolve(strict=True)
    return [(s.st_dev, s.st_ino) for s in (p.stat() for p in (real, *real.parents))]


def _raise(error: OSError) -> None:
    raise error


def _stored(key: str, status: os.stat_result) -> Stored:
    """A folder has no hash at hand; ctime, which nobody can set, tells if a file is the same."""
    regular = stat.S_ISREG(status.st_mode)
    tag = f"{status.st_ino}-{status.st_size}-{status.st_ctime_ns}"
    return Stored(key=key, size=status.st_size if regular else -1, hash=None, tag=tag)


def _fault(path: str, *, folder: bool) -> str:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be there: {error.strerror}"
    parent, name = os.path.split(path)
    if name not in _names(parent, os.stat(parent).st_mtime_ns):  # noqa: PTH116
        return "is another name of a file that is there: this disk does not tell them apart"
    if folder and stat.S_ISLNK(status.st_mode):
        return "is a link in the target folder, which is not followed"
    if folder != stat.S_ISDIR(status.st_mode):
        return f"is a {'file' if folder else 'folder'} in the target folder"
    return ""


@lru_cache(1024)
def _names(folder: str, mtime_ns: int) -> frozenset[str]:  # noqa: ARG001  # a new time, a new list
    return frozenset(os.listdir(folder))  # noqa: PTH208
