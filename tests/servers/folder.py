"""A folder of this machine, looked at where it lies."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tests.servers.base import Headers, Options, Server, Stored

FAMILY = "filesystem"
STORAGE_CLASS = "django.core.files.storage.FileSystemStorage"


def files(folder: Path) -> list[str]:
    """List every file below a folder by its path in it, sorted."""
    found = ((Path(top), names) for top, _, names in os.walk(folder))
    return sorted(str((top / name).relative_to(folder)) for top, names in found for name in names)


def read(path: Path, key: str) -> Stored:
    """Return a file's bytes; a folder keeps nothing beside them."""
    try:
        return Stored(data=path.read_bytes())
    except OSError as error:
        raise LookupError(key) from error


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@dataclass(frozen=True, kw_only=True)
class FolderServer(Server):
    """Its buckets are folders beside each other."""

    folder: Path

    def new_bucket(self) -> Options:
        made = self.folder / f"media-{uuid.uuid4().hex[:12]}"
        made.mkdir()
        return {**self.options, "location": str(made)}

    def keys(self, options: Options) -> list[str]:
        return files(Path(options["location"]))

    def peek(self, options: Options, key: str) -> Stored:
        return read(Path(options["location"], key), key)

    def put(self, options: Options, key: str, data: bytes, **_: Unpack[Headers]) -> None:
        write(Path(options["location"], key), data)

    def delete(self, options: Options, key: str) -> None:
        Path(options["location"], key).unlink()


@contextmanager
def start(folder: Path) -> Iterator[FolderServer]:
    first = folder / "first"
    first.mkdir()
    yield FolderServer(
        name="folder",
        family=FAMILY,
        storage_class=STORAGE_CLASS,
        options={"location": str(first)},
        folder=folder,
    )
