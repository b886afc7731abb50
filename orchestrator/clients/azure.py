"""Azure Blob Storage through the container client of the storage object itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import Hash

PART = 4 << 20  # bytes: rclone's chunk_size
SETTINGS = (
    "content_type",
    "content_encoding",
    "content_language",
    "content_disposition",
    "cache_control",
)


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.container = storage.client

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        """Ask for one page, and only once: the SDK would try a wrong address for a minute."""
        blobs = self.container.list_blobs(prefix, results_per_page=1, retry_total=0)
        next(blobs.by_page(), None)

    def objects(self, prefix: str) -> Iterator[Stored]:
        for blob in self.container.list_blobs(prefix):
            md5 = blob.content_settings.content_md5
            value = bytes(md5).hex() if md5 else None
            yield Stored(key=blob.name, size=blob.size, hash=value, tag=value or blob.etag)

    def head(self, key: str) -> Mapping[str, Any]:
        found = self.container.get_blob_client(key).get_blob_properties()
        metadata = {k: v for k, v in found.metadata.items() if k.lower() != "mtime"}
        return {"metadata": metadata, **{n: getattr(found.content_settings, n) for n in SETTINGS}}

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes as they are stored: open() would unpack them."""
        path = self._storage._get_valid_path(name)
        stream = self.container.download_blob(path, decompress=False)
        return cast("Iterator[bytes]", stream.chunks())

    def hasher(self) -> Hash:
        return Hash("md5")

    def puts(self, size: int) -> int:
        return 1 if size <= PART else 1 - (-size // PART)
