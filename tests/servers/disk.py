"""What the servers share that keep files in folders of this machine: their truth is the disk."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tests.servers.base import Headers, MissingServerError, Options, Server, Stored
from tests.servers.folder import files, read

PREFIX = "media-orchestrator-"


@dataclass(frozen=True, kw_only=True)
class DiskServer(Server):
    """Each bucket is a folder in `home`, and belongs to the user `owner` of this machine."""

    home: Path
    owner: tuple[int, int]

    @abstractmethod
    def folder(self, options: Options) -> Path:
        """Return where the files lie that the options lead to."""

    @abstractmethod
    def at(self, name: str) -> Options:
        """Return the options that lead to the folder `name` in `home`."""

    def new_bucket(self) -> Options:
        name = f"media-{secrets.token_hex(6)}"
        self.own(self.home / name, make=True)
        return self.at(name)

    def own(self, path: Path, *, make: bool = False) -> None:
        if make:
            path.mkdir()
        os.chown(path, *self.owner)

    def keys(self, options: Options) -> list[str]:
        return files(self.folder(options))

    def peek(self, options: Options, key: str) -> Stored:
        return read(self.folder(options) / key, key)

    def mode(self, options: Options, key: str) -> int:
        """Return the mode of a file or a folder."""
        return stat.S_IMODE((self.folder(options) / key).stat().st_mode)

    def put(self, options: Options, key: str, data: bytes, **_: Unpack[Headers]) -> None:
        path = self.folder(options) / key
        for folder in reversed(path.parents):
            if not folder.is_dir():
                self.own(folder, make=True)
        path.write_bytes(data)
        self.own(path)

    def delete(self, options: Options, key: str) -> None:
        (self.folder(options) / key).unlink()


def require_root(what: str) -> None:
    if os.geteuid():
        raise MissingServerError(f"{what} must be started by root")


@contextmanager
def open_folder(parent: str = "/srv") -> Iterator[Path]:
    """Yield a folder that every user may enter, and in which sshd agrees to lock one in."""
    _remove_left_over(Path(parent))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _remove_left_over(parent: Path) -> None:
    """Remove the folders of test processes that were killed."""
    for folder in parent.glob(f"{PREFIX}[0-9]*-*"):
        if not Path("/proc", folder.name.removeprefix(PREFIX).split("-")[0]).exists():
            shutil.rmtree(folder, ignore_errors=True)
