"""A Libcloud driver, that of the storage object itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.clients.filesystem import Folder
from orchestrator.digest import ETag
from orchestrator.errors import ConfigurationError

PART = 5 << 20  # bytes, of Libcloud's and of rclone's uploads to S3
LOCAL = "libcloud.storage.types.Provider.LOCAL"


def entry(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the dictionary that LibCloudStorage will choose, or say that it is not there."""
    from django.conf import settings

    name = options.get("provider_name")
    if name is None:
        name = getattr(settings, "DEFAULT_LIBCLOUD_PROVIDER", "default")
    providers = getattr(settings, "LIBCLOUD_PROVIDERS", None)
    found = providers.get(str(name)) if isinstance(providers, Mapping) else None
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"LIBCLOUD_PROVIDERS has no dictionary {name!r}",
            tip=f"""LIBCLOUD_PROVIDERS='{{"{name}": {{"type": "{LOCAL}", "user": …}}}}'""",
        )
    return found


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._driver = storage.driver
        local = storage.provider["type"] == LOCAL
        self._folder = Folder(f"{storage.provider['user']}/{storage.bucket}") if local else None

    def probe(self, prefix: str, source: Path) -> None:
        next(iter(self.objects(prefix)), None)
        if self._folder:
            self._folder.probe(prefix, source)

    def room(self) -> int | None:
        return self._folder.room() if self._folder else None

    def refusal(self, key: str) -> str:
        return self._folder.refusal(key) if self._folder else ""

    def objects(self, prefix: str) -> Iterator[Stored]:
        container = self._driver.get_container(self._storage.bucket)
        for found in self._driver.iterate_container_objects(container, prefix=prefix or None):
            tag = found.extra.get("etag") or found.hash
            # Azure gives an MD5 beside its ETag; the hash of LOCAL is one of the time only.
            digest = None if self._folder else found.extra.get("md5_hash", found.hash)
            yield Stored(key=found.name, size=found.size, hash=digest, tag=f"{tag}-{found.size}")

    def parameters(self, key: str) -> Mapping[str, Any]:
        """Ask the driver, as its upload_object_via_stream does; LOCAL keeps bytes only."""
        if self._folder:
            return {}
        return {"ContentType": self._driver._determine_content_type(None, key)}

    def head(self, key: str) -> Mapping[str, Any]:
        if self._folder:
            return {}
        found = self._driver.get_object(self._storage.bucket, key)
        return {"ContentType": found.extra.get("content_type")}

    def read(self, name: str) -> Iterator[bytes]:
        """Join all the parts of the driver's stream; the class takes the first one only."""
        found = self._storage._get_object(name)
        if found.size:
            yield from self._driver.download_object_as_stream(found)

    def puts(self, size: int) -> int:
        return 1 if size <= PART else 2 + -(-size // PART)

    def hasher(self) -> ETag:
        return ETag(0, PART)
