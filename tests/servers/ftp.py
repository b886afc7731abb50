"""What the FTP servers share: users of their own, and options as a URL."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.base import Options
from tests.servers.disk import DiskServer
from tests.servers.relay import Relay, relaying

STORAGE_CLASS = "storages.backends.ftp.FTPStorage"


@dataclass(frozen=True, kw_only=True)
class User:
    """A user that only the server knows; the class takes @ and / in a password as they are."""

    name: str
    password: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(12) + " $%@/#")


@dataclass(frozen=True, kw_only=True)
class FtpServer(DiskServer):
    """`address` is scheme://%s@host:port/, for a user and the password."""

    address: str
    user: User
    reader: User

    def at(self, name: str) -> Options:
        return {**self.options, "location": self.url(self.user, name)}

    def url(self, user: User, path: str) -> str:
        return self.address % f"{user.name}:{user.password}" + path

    def folder(self, options: Options) -> Path:
        return self.home / str(options["location"]).removeprefix(self.url(self.user, "")).strip("/")

    def read_only(self, options: Options) -> Options:
        path = options["location"].removeprefix(self.url(self.user, ""))
        return {**options, "location": self.url(self.reader, path)}

    @contextmanager
    def relayed(self, options: Options) -> Iterator[tuple[Options, Relay]]:
        """Yield the options through a relay of their own."""
        port = urlsplit(self.address.replace("%s@", "")).port or 21
        with relaying(port) as relay:
            location = options["location"].replace(f":{port}/", f":{relay.port}/")
            yield {**options, "location": location}, relay
