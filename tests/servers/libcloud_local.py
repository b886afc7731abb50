"""Libcloud's driver LOCAL: its containers are folders, looked at where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Unpack

from tests.servers.base import Headers, MissingServerError, Options, Stored
from tests.servers.folder import files, read, write
from tests.servers.libcloud_settings import HINT, LibcloudServer

FAMILY = "libcloud"


@dataclass(frozen=True, kw_only=True)
class LocalServer(LibcloudServer):
    folder: Path

    def login(self) -> Mapping[str, str]:
        return {"user": str(self.folder), "key": "this driver reads no key"}

    def create(self, bucket: str) -> None:
        (self.folder / bucket).mkdir()

    def keys(self, options: Options) -> list[str]:
        return files(self.folder / self.bucket(options))

    def peek(self, options: Options, key: str) -> Stored:
        return read(self.folder / self.bucket(options) / key, key)

    def put(self, options: Options, key: str, data: bytes, **_: Unpack[Headers]) -> None:
        write(self.folder / self.bucket(options) / key, data)

    def delete(self, options: Options, key: str) -> None:
        (self.folder / self.bucket(options) / key).unlink()


@contextmanager
def start(folder: Path) -> Iterator[LocalServer]:
    if find_spec("libcloud") is None or find_spec("fasteners") is None:
        raise MissingServerError(HINT)
    yield LocalServer.started(name="libcloud_local", provider="LOCAL", folder=folder)
