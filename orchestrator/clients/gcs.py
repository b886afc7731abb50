"""Google Cloud Storage through the client of the storage object itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import BLOCK, Hash

PART = 16 << 20  # bytes: what the Go client sends at once
LISTED = "items(name,size,md5Hash,etag),nextPageToken"
HOW = {"rewind", "retry", "size"}
OURS = {"mtime", "goog-reserved-file-mtime"}
HEADERS = (
    "content_type",
    "content_encoding",
    "content_language",
    "content_disposition",
    "cache_control",
)


class _Saved:
    """Stands for the bucket and its blob while the class saves, and keeps what it is told."""

    def get_blob(self, _name: str, **_: Any) -> _Saved:
        return self

    def upload_from_file(self, _content: Any, **upload: Any) -> None:
        vars(self).update(upload)


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._bucket = storage.bucket

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        """Ask for one object, and only once: the SDK would try a wrong address for minutes."""
        next(iter(self._bucket.list_blobs(max_results=1, prefix=prefix, retry=None)), None)

    def objects(self, prefix: str) -> Iterator[Stored]:
        for blob in self._bucket.list_blobs(prefix=prefix, fields=LISTED):
            md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
            yield Stored(key=blob.name, size=blob.size, hash=md5, tag=md5 or blob.etag)

    def parameters(self, key: str) -> Mapping[str, Any]:
        """Let the class save an empty file to nowhere, before it would compress it."""
        from django.core.files.base import ContentFile
        from google.cloud.storage.acl import ACL

        storage, saved = copy(self._storage), _Saved()
        vars(storage).update(_bucket=saved, gzip=False, _normalize_name=lambda _: key)
        storage._save(key, ContentFile(b""))
        found = {name: value for name, value in vars(saved).items() if name not in HOW}
        found["acl"] = ACL.validate_predefined(found.pop("predefined_acl"))
        found["content_type"] = found["content_type"] or "application/octet-stream"
        found["metadata"] = {k: str(v) for k, v in (found.get("metadata") or {}).items()}
        return found

    def head(self, key: str) -> Mapping[str, Any]:
        blob = self._bucket.get_blob(key)
        metadata = {k.lower(): v for k, v in (blob.metadata or {}).items()}
        chosen = "storage_class" in self._storage.get_object_parameters(key)
        return {
            **{name: getattr(blob, name) for name in HEADERS},
            **({"storage_class": blob.storage_class} if chosen else {}),
            "metadata": {k: v for k, v in metadata.items() if k not in OURS},
        }

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes as they are stored: open() would unpack them."""
        from storages.utils import clean_name

        key = self._storage._normalize_name(clean_name(name))
        with self._bucket.blob(key).open("rb", raw_download=True) as file:
            while data := file.read(BLOCK):
                yield data

    def hasher(self) -> Hash:
        return Hash("md5")

    def puts(self, size: int) -> int:
        return 1 if size <= PART else 1 - (-size // PART)
