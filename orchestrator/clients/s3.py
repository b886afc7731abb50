"""S3 through the boto3 client of the storage object itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

from botocore.config import Config

from orchestrator import clients
from orchestrator.clients import Stored
from orchestrator.digest import ETag

HEADERS = (
    "ContentType",
    "ContentEncoding",
    "ContentLanguage",
    "ContentDisposition",
    "CacheControl",
    "WebsiteRedirectLocation",
)
READING = {
    "RequestPayer",
    "ExpectedBucketOwner",
    "SSECustomerAlgorithm",
    "SSECustomerKey",
    "SSECustomerKeyMD5",
}
# boto3's own patience is 5 minutes for an address that swallows what is sent to it.
QUICK = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 2})
OURS = {"mtime", "md5chksum"}


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._s3 = storage.connection.meta.client
        parameters = storage.get_object_parameters("")
        self._reading = {k: v for k, v in parameters.items() if k in READING}
        self._listing = {k: v for k, v in self._reading.items() if not k.startswith("SSE")}

    def _ask(self) -> dict[str, Any]:
        return {"Bucket": self._storage.bucket_name, **self._listing}

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        """Ask for a listing: Cloudflare R2 and narrow policies refuse head_bucket."""
        quick = copy(self._storage)  # with a connection of its own
        quick.client_config = self._storage.client_config.merge(QUICK)
        quick.connection.meta.client.list_objects_v2(**self._ask(), Prefix=prefix, MaxKeys=1)

    def objects(self, prefix: str) -> Iterator[Stored]:
        return self._listed(Prefix=prefix)

    def between(self, prefix: str, after: str, last: str) -> Iterator[Stored]:
        """Yield a range of keys; a server that knows no StartAfter has its listing broken off."""
        for stored in self._listed(Prefix=prefix, **({"StartAfter": after} if after else {})):
            if not after < stored.key <= last:
                return
            yield stored

    def _listed(self, **where: str) -> Iterator[Stored]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(**self._ask(), **where)
        for page in pages:
            for item in page.get("Contents", ()):
                tag = item["ETag"].strip('"')
                yield Stored(key=item["Key"], size=item["Size"], hash=tag, tag=tag)

    def head(self, key: str) -> Mapping[str, Any]:
        found = self._s3.head_object(Bucket=self._storage.bucket_name, Key=key, **self._reading)
        metadata = {k.lower(): v for k, v in found.get("Metadata", {}).items()}
        return {
            **{name: found.get(name) for name in HEADERS},
            "StorageClass": found.get("StorageClass", "STANDARD"),
            "Metadata": {k: v for k, v in metadata.items() if k not in OURS},
        }

    def hasher(self) -> ETag:
        transfer = self._storage.transfer_config
        return ETag(transfer.multipart_threshold, transfer.multipart_chunksize)

    def puts(self, size: int) -> int:
        transfer = self._storage.transfer_config
        if size < transfer.multipart_threshold:
            return 1
        parts: int = -(-size // transfer.multipart_chunksize)
        return 2 + parts
