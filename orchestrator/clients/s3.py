"""S3 through the boto3 client of the storage object itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import botocore.session
from botocore.compat import unquote_str
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
TAKEN = "Objects"  # in a page, in the place of its Contents
OURS = {"mtime", "md5chksum"}

# Each thread has a session of its own, which would look for all of boto3's models and read them
# anew: 0.1 s of the processor's time each.
botocore.session.create_loader = cache(botocore.session.create_loader)


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._s3 = storage.connection.meta.client
        self._s3.meta.events.register("before-parse.s3.ListObjectsV2", _take_objects, "objects")
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
            yield from page[TAKEN]

    def head(self, key: str) -> Mapping[str, Any]:
        return _said(
            self._s3.head_object(Bucket=self._storage.bucket_name, Key=key, **self._reading)
        )

    def told(self, file: Any) -> Mapping[str, Any] | None:
        """Take the answer to the class's own head_object, which it asks for each file it opens."""
        found = file.obj.meta.data
        return None if found is None else _said(found)

    def hasher(self) -> ETag:
        transfer = self._storage.transfer_config
        return ETag(transfer.multipart_threshold, transfer.multipart_chunksize)

    def puts(self, size: int) -> int:
        transfer = self._storage.transfer_config
        if size < transfer.multipart_threshold:
            return 1
        parts: int = -(-size // transfer.multipart_chunksize)
        return 2 + parts


def _said(found: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = {k.lower(): v for k, v in found.get("Metadata", {}).items()}
    return {
        **{name: found.get(name) for name in HEADERS},
        "StorageClass": found.get("StorageClass", "STANDARD"),
        "Metadata": {k: v for k, v in metadata.items() if k not in OURS},
    }


def _take_objects(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Take the objects out of a page: botocore's parser needs 40 us for each, this one 4."""
    customized_response_dict[TAKEN] = []
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314  # as botocore does
    except ET.ParseError:
        return  # botocore says what is wrong
    space = root.tag.removesuffix("ListBucketResult")
    plain = root.findtext(f"{space}EncodingType") != "url"
    found, others = [], []
    for node in root:
        if node.tag == f"{space}Contents":
            found.append(_stored({child.tag: child.text or "" for child in node}, space, plain))
        else:
            others.append(node)
    customized_response_dict[TAKEN] = found
    root[:] = others
    response_dict["body"] = ET.tostring(root)


def _stored(fields: Mapping[str, str], space: str, plain: bool) -> Stored:
    key, tag = fields[f"{space}Key"], fields[f"{space}ETag"].strip('"')
    size = int(fields[f"{space}Size"])
    return Stored(key=key if plain else unquote_str(key), size=size, hash=tag, tag=tag)
