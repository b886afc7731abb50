"""What every test server offers: options that work, and its own truth about what it holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

from tests.servers.proxy import Proxy, proxying

Options = Mapping[str, Any]


class MissingServerError(Exception):
    """The server's program is not on this machine; the text says how to install it."""


class Headers(TypedDict, total=False):
    """What `Server.put` can store beside the bytes, in the words of `Stored`."""

    content_type: str
    content_encoding: str
    content_language: str
    content_disposition: str
    cache_control: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One object as its server holds it; empty text where it holds nothing.

    `metadata` has lower-case keys. `acl` and `tags` are None where the server keeps none.
    """

    data: bytes = field(repr=False)
    content_type: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""
    expires: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    etag: str = ""
    acl: tuple[str, ...] | None = None
    tags: Mapping[str, str] | None = None
    storage_class: str = ""
    encryption: str = ""


@dataclass(frozen=True, kw_only=True)
class Server(ABC):
    """A running server; nothing here goes through rclone or django-storages."""

    endpoint_option: ClassVar[str] = ""
    """The option that holds the URL; empty where the server does not speak HTTP."""

    name: str
    family: str
    storage_class: str
    options: Options
    """Complete options of the storage class, for a bucket that is there and empty at the start."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables that the site's process needs to reach this server: a CA, a proxy, an emulator."""

    @abstractmethod
    def new_bucket(self) -> Options:
        """Return `options` for a fresh, empty bucket that no other test knows."""

    @abstractmethod
    def keys(self, options: Options) -> list[str]:
        """List all the keys of the bucket, sorted, whatever `location` says."""

    @abstractmethod
    def peek(self, options: Options, key: str) -> Stored:
        """Return what is stored under the whole key; LookupError if there is nothing."""

    @abstractmethod
    def put(self, options: Options, key: str, data: bytes, **headers: Unpack[Headers]) -> None:
        """Store an object behind everybody's back."""

    @abstractmethod
    def delete(self, options: Options, key: str) -> None:
        """Remove an object behind everybody's back."""

    def read_only(self, options: Options) -> Options | None:  # noqa: ARG002
        """Return the options of a user who may only list and read; None if the server has none."""
        return None

    @contextmanager
    def proxied(
        self, options: Options, folder: Path | None = None
    ) -> Iterator[tuple[Options, Proxy]]:
        """Yield the options through a proxy of their own; with a `folder` for its CA it has TLS."""
        with proxying(options[self.endpoint_option], folder) as proxy:
            yield {**options, self.endpoint_option: proxy.url}, proxy
