"""What the S3 servers share: options of S3Storage, and objects as HTTP headers tell them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers.base import Headers, Options, Server, Stored

STORAGE_CLASS = "storages.backends.s3.S3Storage"
REGION = "us-east-1"
META = "x-amz-meta-"
KMS_KEY = "-aws-kms-key-id"


def bucket_name() -> str:
    return f"media-{uuid.uuid4().hex[:12]}"


def storage_options(url: str, access_key: str, secret_key: str, bucket: str) -> Options:
    return {
        "access_key": access_key,
        "secret_key": secret_key,
        "bucket_name": bucket,
        "endpoint_url": url,
        "region_name": REGION,
        "addressing_style": "path",
    }


def stored(
    data: bytes,
    headers: Mapping[str, str],
    *,
    acl: tuple[str, ...] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Stored:
    """Read an object off the headers of its GET or HEAD answer."""
    of = {name.lower(): value for name, value in headers.items()}
    sse, kms_key = (of.get(f"x-amz-server-side-encryption{end}", "") for end in ("", KMS_KEY))
    return Stored(
        data=data,
        content_type=of.get("content-type", ""),
        content_encoding=of.get("content-encoding", ""),
        content_language=of.get("content-language", ""),
        content_disposition=of.get("content-disposition", ""),
        cache_control=of.get("cache-control", ""),
        expires=of.get("expires", ""),
        metadata={name.removeprefix(META): of[name] for name in of if name.startswith(META)},
        etag=of.get("etag", "").strip('"'),
        acl=acl,
        tags=tags,
        storage_class=of.get("x-amz-storage-class", ""),
        encryption=f"{sse} {kms_key}".strip(),
    )


@contextmanager
def client(
    service: str,
    url: str,
    access_key: str,
    secret_key: str,
    *,
    verify: str | None = None,
    attempts: int = 1,
) -> Iterator[Any]:
    """A low-level boto3 client with no checksums that a small server may not know."""
    config = Config(
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": attempts},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session: Any = boto3.session.Session(access_key, secret_key, region_name=REGION)
    made = session.client(service, endpoint_url=url, verify=verify, config=config)
    with closing(made):
        yield made


@dataclass(frozen=True, kw_only=True)
class BotoServer(Server):
    """An S3 server whose truth a low-level boto3 client tells."""

    endpoint_option: ClassVar[str] = "endpoint_url"

    s3: Any = field(repr=False)

    def new_bucket(self) -> Options:
        bucket = bucket_name()
        self.s3.create_bucket(Bucket=bucket)
        return {**self.options, "bucket_name": bucket}

    def keys(self, options: Options) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=options["bucket_name"])
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))

    def peek(self, options: Options, key: str) -> Stored:
        where = {"Bucket": options["bucket_name"], "Key": key}
        try:
            answer = self.s3.get_object(**where)
        except ClientError as error:
            raise LookupError(key) from error
        with closing(answer["Body"]) as body:
            data = body.read()
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return stored(data, headers, acl=self._acl(where), tags=self._tags(where))

    def _acl(self, where: Mapping[str, str]) -> tuple[str, ...] | None:
        grants = self.s3.get_object_acl(**where)["Grants"]
        return tuple(sorted(_grant(grant) for grant in grants))

    def _tags(self, where: Mapping[str, str]) -> Mapping[str, str] | None:
        tags = self.s3.get_object_tagging(**where)["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in tags}

    def put(self, options: Options, key: str, data: bytes, **headers: Unpack[Headers]) -> None:
        parameters = {_parameter(name): value for name, value in headers.items()}
        self.s3.put_object(Bucket=options["bucket_name"], Key=key, Body=data, **parameters)

    def delete(self, options: Options, key: str) -> None:
        self.s3.delete_object(Bucket=options["bucket_name"], Key=key)


def _grant(grant: Mapping[str, Any]) -> str:
    """Write a grant as "AllUsers READ", or "owner FULL_CONTROL" for whoever has an id."""
    who = grant["Grantee"].get("URI", "owner").rpartition("/")[2]
    return f"{who} {grant['Permission']}"


def _parameter(name: str) -> str:
    return name.title().replace("_", "")
