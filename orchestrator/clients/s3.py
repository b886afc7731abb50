"""S3 through the boto3 client of the storage object itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import botocore.session
from botocore import handlers
from botocore.compat import unquote_str
from botocore.config import Config
from botocore.exceptions import ClientError

from orchestrator import clients
from orchestrator.clients import Acl, Stored
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
PAGE = 1000  # objects, the most that a store lists at once
ANSWERS = "before-parse.s3.*"
REPEATED = "before-call.s3.HeadObject"
TAKEN = "Objects"  # in a page, in the place of its Contents
# What botocore is told of an answer that is no listing; by the status it asks again.
NO_LISTING = {
    "status_code": HTTPStatus.BAD_GATEWAY,
    "body": b"<Error><Code>NoListing</Code><Message>this is no listing</Message></Error>",
}
OURS = {"mtime", "md5chksum"}
# What each canned ACL grants beyond the owners. Source: AWS, Access control list (ACL) overview.
CANNED: Mapping[str, frozenset[str]] = {
    "private": frozenset(),
    "public-read": frozenset({"AllUsers READ"}),
    "public-read-write": frozenset({"AllUsers READ", "AllUsers WRITE"}),
    "authenticated-read": frozenset({"AuthenticatedUsers READ"}),
    "aws-exec-read": frozenset(),
    "bucket-owner-read": frozenset(),
    "bucket-owner-full-control": frozenset(),
}
EVERYBODY = {"AllUsers", "AuthenticatedUsers"}

# Each thread has a session of its own, which would look for all of boto3's models and read them
# anew: 0.1 s of the processor's time each.
botocore.session.create_loader = cache(botocore.session.create_loader)


class Client(clients.Client):
    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._s3 = storage.connection.meta.client
        _take_first(self._s3.meta.events)
        _make_class_once(storage.bucket)
        transfer = storage.transfer_config = copy(storage.transfer_config)
        transfer.use_threads = False  # it starts some for each file; we read many files at once
        self._threshold, self._part = transfer.multipart_threshold, transfer.multipart_chunksize
        parameters = storage.get_object_parameters("")
        self._reading = {k: v for k, v in parameters.items() if k in READING}
        self._mute = ""  # what the store says instead of telling ACLs
        self._listing = {k: v for k, v in self._reading.items() if not k.startswith("SSE")}

    def _ask(self) -> dict[str, Any]:
        return {"Bucket": self._storage.bucket_name, **self._listing}

    def probe(self, prefix: str, source: Path) -> None:  # noqa: ARG002
        """Ask for a listing: Cloudflare R2 and narrow policies refuse head_bucket."""
        quick = copy(self._storage)  # with a connection of its own
        quick.client_config = self._storage.client_config.merge(QUICK)
        s3 = quick.connection.meta.client
        _take_first(s3.meta.events)
        s3.list_objects_v2(**self._ask(), Prefix=prefix, MaxKeys=1)

    def objects(self, prefix: str) -> Iterator[Stored]:
        return self._listed(Prefix=prefix)

    def among(self, prefix: str, after: str, keys: Sequence[str]) -> Iterator[Stored]:
        """List from one wanted key to the next; a gap of others' objects is passed over.

        A server that knows no StartAfter, or has another order, has its listing broken off.
        """
        left = deque(keys)
        while left:
            page = self._page(Prefix=prefix, StartAfter=after, MaxKeys=min(PAGE, len(left) + 1))
            last, wanted = after, len(left)
            for stored in page[TAKEN]:
                if stored.key <= last:
                    return
                last = stored.key
                yield stored
            if not page.get("IsTruncated"):
                return
            while left and left[0] <= last:
                left.popleft()
            if len(left) == wanted:
                last = left.popleft()
                yield from self._page(Prefix=last, MaxKeys=1)[TAKEN]
            after = last

    def _page(self, **where: Any) -> Any:
        asked = {name: value for name, value in where.items() if value != ""}
        return self._s3.list_objects_v2(**self._ask(), **asked)

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

    def acl(self, key: str, parameters: Mapping[str, Any]) -> Acl | None:
        asked = parameters.get("ACL", "")
        if asked not in CANNED or any(name.startswith("Grant") for name in parameters):
            return None
        untold = self._mute
        try:
            where = {**self._ask(), "Key": key}
            grants = () if untold else self._s3.get_object_acl(**where).get("Grants", ())
        except ClientError as error:
            grants, untold = (), error.response["Error"]["Code"]
            if error.response["ResponseMetadata"].get("MaxAttemptsReached"):
                self._mute = untold  # boto3 has asked again and again, and would for each object
        if not grants:  # the owner would have one
            return Acl(asked=asked, untold=f"{untold or 'nothing'} to GetObjectAcl")
        return Acl(asked=asked, given=CANNED[asked], found=frozenset(_to_everybody(grants)))

    def hasher(self) -> ETag:
        return ETag(self._threshold, self._part)

    def puts(self, size: int) -> int:
        if size < self._threshold:
            return 1
        parts: int = -(-size // self._part)
        return 2 + parts


def _take_first(events: Any) -> None:
    """Take the objects out of a page before botocore parses it, and before its look at the body.

    That look, for an error under a 200, parses all of it too; it then finds the rest.
    """
    events.register_first(ANSWERS, _take_objects, "objects")
    if look := getattr(handlers, "_handle_200_error", None):  # it was there first
        events.unregister(ANSWERS, look)
        events.register(ANSWERS, look)


def _make_class_once(bucket: Any) -> None:
    """Have open() use one class for all objects: boto3 makes a new one for each, in 3 ms."""
    kind: Any = type(bucket.Object("-"))
    _ask_once(kind, bucket.meta.client.meta.events)
    bucket.Object = partial(kind, bucket.name, client=bucket.meta.client)


def _ask_once(kind: Any, events: Any) -> None:
    """Have a download be told the size that open() was told just before, and not ask again."""
    download, known = kind.download_fileobj, {}

    def downloaded(opened: Any, *args: Any, **kwargs: Any) -> Any:
        known["answer"] = (_Answered, opened.meta.data) if opened.meta.data else None
        try:
            return download(opened, *args, **kwargs)
        finally:
            known.clear()

    kind.download_fileobj = downloaded
    events.register(REPEATED, lambda **_: known.get("answer"))


class _Answered:
    """What botocore looks at in a response: of one that was not asked for again."""

    status_code = HTTPStatus.OK


def _to_everybody(grants: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for grant in grants:
        group = grant["Grantee"].get("URI", "").rpartition("/")[2]
        if group in EVERYBODY:
            yield f"{group} {grant['Permission']}"


def _said(found: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = {k.lower(): v for k, v in found.get("Metadata", {}).items()}
    return {
        **{name: found.get(name) for name in HEADERS},
        "StorageClass": found.get("StorageClass", "STANDARD"),
        "Metadata": {k: v for k, v in metadata.items() if k not in OURS},
    }


def _take_objects(
    operation_model: Any,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Take the objects out of a page: botocore's parser needs 40 us for each, this one 4."""
    if operation_model.name != "ListObjectsV2":
        return
    customized_response_dict[TAKEN] = []
    root = _root(response_dict["body"])
    space, is_page, _rest = root.tag.partition("ListBucketResult")
    if not is_page:
        if root.tag != "Error" and response_dict["status_code"] == HTTPStatus.OK:
            response_dict.update(NO_LISTING)
        return
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


def _root(body: bytes) -> ET.Element:
    try:
        return ET.fromstring(body)  # noqa: S314  # as botocore does
    except ET.ParseError:  # broken off, or a web page
        return ET.Element("")


def _stored(fields: Mapping[str, str], space: str, plain: bool) -> Stored:
    key, tag = fields[f"{space}Key"], fields[f"{space}ETag"].strip('"')
    size = int(fields[f"{space}Size"])
    return Stored(key=key if plain else unquote_str(key), size=size, hash=tag, tag=tag)
