"""How S3 is listed: what botocore looks for in a page is still looked for, and ranges are exact."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.clients import s3
from orchestrator.envfile import Settings
from orchestrator.storage import Target, load
from tests.servers.base import Options, Server
from tests.servers.proxy import Proxy

ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>later</Message></Error>"
LISTING = "list-type=2"
KEYS = [f"a/{n:03}.jpg" for n in range(30)]
pytestmark = pytest.mark.on("rclone_s3")


@contextmanager
def target_on(server: Server, bucket: Options) -> Iterator[tuple[Target, Proxy]]:
    for key in KEYS:
        server.put(bucket, key, key.encode())
    with server.proxied(bucket) as (options, proxy):
        settings = Settings(
            storage_class=server.storage_class,
            options=options,
            variables={},
            disputed={},
            source=None,
        )
        yield load(settings), proxy


@pytest.mark.parametrize("page", [ERROR, b"<ListBucketResult><Contents><Key>a</Key>"])
def test_a_page_that_is_an_error_or_broken_off_is_asked_for_again(
    server: Server, bucket: Options, page: bytes
) -> None:
    with target_on(server, bucket) as (target, proxy):
        proxy.answer(200, page, matching=LISTING)
        assert [stored.key for stored in target.client.objects("")] == KEYS
        assert sum("list-type=2" in request.query for request in proxy.requests) == 2


def test_a_store_that_answers_with_errors_only_has_no_empty_listing(
    server: Server, bucket: Options
) -> None:
    with target_on(server, bucket) as (target, proxy):
        proxy.answer(200, ERROR, matching=LISTING, times=100)
        with pytest.raises(Exception, match="InternalError"):
            list(target.client.objects(""))


@pytest.mark.parametrize("expected", [1, 5, 2000])
def test_a_range_is_exact_however_many_were_expected(
    server: Server, bucket: Options, expected: int
) -> None:
    with target_on(server, bucket) as (target, proxy):
        found = target.client.between("", KEYS[4], KEYS[9], expected)
        assert found
        assert [stored.key for stored in found] == KEYS[5:10]
        first = next(r for r in proxy.requests if LISTING in r.query)
        asked = re.search(r"max-keys=(\d+)", first.query)
        assert (int(asked[1]) if asked else s3.PAGE) == min(expected + 1, s3.PAGE)


def test_all_objects_of_the_class_are_of_one_class(server: Server, bucket: Options) -> None:
    """boto3 would make a class for each; that must change neither what is read nor from where."""
    with target_on(server, bucket) as (target, _):
        plain: Any = target.fresh().storage.bucket.Object(KEYS[0])
        assert target.client  # it is this that changes the bucket
        storage = target.storage
        ours: Any = storage.bucket.Object(KEYS[0])
        assert type(ours) is type(storage.bucket.Object(KEYS[1]))
        assert (ours.bucket_name, ours.key) == (plain.bucket_name, plain.key)
        assert ours.meta.client is storage.bucket.meta.client
        for key in KEYS[:2]:
            with storage.open(key, "rb") as file:
                assert file.read() == key.encode()
