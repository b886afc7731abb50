"""What the Libcloud servers share: each bucket is a dictionary in LIBCLOUD_PROVIDERS."""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, Unpack

from tests.servers.base import Headers, Options, Server, Stored

Behind = TypeVar("Behind", bound=Server)

STORAGE_CLASS = "storages.backends.apache_libcloud.LibCloudStorage"
SETTING = "LIBCLOUD_PROVIDERS"
HINT = "Libcloud is not installed: run `make venv`, or `pip install apache-libcloud fasteners`"


@dataclass(frozen=True, kw_only=True)
class LibcloudServer(Server):
    """The options name a dictionary that `environ` holds: it grows with each new bucket."""

    provider: str
    environ: dict[str, str]

    @classmethod
    def started(cls, *, environ: Mapping[str, str] | None = None, **fields: Any) -> Self:
        made = cls(
            family="libcloud",
            storage_class=STORAGE_CLASS,
            options={"provider_name": "default"},
            environ={SETTING: "{}", **(environ or {})},
            **fields,
        )
        made.add("default")
        return made

    @abstractmethod
    def login(self) -> Mapping[str, str]:
        """Return user and key, and region where there is one."""

    @abstractmethod
    def create(self, bucket: str) -> None: ...

    def add(self, name: str) -> None:
        bucket = f"media-{uuid.uuid4().hex[:12]}"
        self.create(bucket)
        kind = f"libcloud.storage.types.Provider.{self.provider}"
        entry = {"type": kind, "bucket": bucket, **self.login()}
        self.environ[SETTING] = json.dumps({**self.providers(), name: entry})

    def providers(self) -> Mapping[str, Mapping[str, str]]:
        found: Mapping[str, Mapping[str, str]] = json.loads(self.environ[SETTING])
        return found

    def bucket(self, options: Options) -> str:
        return self.providers()[options["provider_name"]]["bucket"]

    def new_bucket(self) -> Options:
        name = uuid.uuid4().hex[:12]
        self.add(name)
        return {**self.options, "provider_name": name}


@dataclass(frozen=True, kw_only=True)
class ProxiedServer(LibcloudServer, Generic[Behind]):
    """What it holds is told by the server that the proxy leads to."""

    behind: Behind = field(repr=False)
    bucket_option: str

    def of(self, options: Options) -> Options:
        return {**self.behind.options, self.bucket_option: self.bucket(options)}

    def keys(self, options: Options) -> list[str]:
        return self.behind.keys(self.of(options))

    def peek(self, options: Options, key: str) -> Stored:
        return self.behind.peek(self.of(options), key)

    def put(self, options: Options, key: str, data: bytes, **headers: Unpack[Headers]) -> None:
        self.behind.put(self.of(options), key, data, **headers)

    def delete(self, options: Options, key: str) -> None:
        self.behind.delete(self.of(options), key)
