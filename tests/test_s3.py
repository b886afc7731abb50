"""How S3 is listed: errors under a 200 are still seen, and gaps are passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.envfile import Settings
from orchestrator.storage import Target, load
from tests.servers.base import Options, Server
from tests.servers.proxy import Proxy
from tests.servers.trouble import Trouble, resetting
from tests.site import Site

ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>later</Message></Error>"
LOGIN = b"<html><body>Please log in</body></html>"
PAGE = b"<!doctype html><title>Welcome</title><p>Please log in<br>to this network"
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


@pytest.mark.parametrize("page", [ERROR, LOGIN, PAGE, b"<ListBucketResult><Contents><Key>a</Key>"])
def test_a_page_that_is_an_error_or_no_listing_or_broken_off_is_asked_for_again(
    server: Server, bucket: Options, page: bytes
) -> None:
    with target_on(server, bucket) as (target, proxy):
        proxy.answer(200, page, matching=LISTING)
        assert [stored.key for stored in target.client.objects("")] == KEYS
        assert sum("list-type=2" in request.query for request in proxy.requests) == 2


@pytest.mark.parametrize(
    ("page", "says"), [(ERROR, "InternalError"), (LOGIN, "NoListing"), (PAGE, "NoListing")]
)
def test_a_store_that_answers_with_no_listing_has_no_empty_one(
    server: Server, bucket: Options, page: bytes, says: str, tmp_path: Path
) -> None:
    with target_on(server, bucket) as (target, proxy):
        proxy.answer(200, page, matching=LISTING, times=100)
        with pytest.raises(Exception, match=says):
            list(target.client.objects(""))
        with pytest.raises(Exception, match=says):
            target.client.probe("", tmp_path)


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_a_web_page_in_the_place_of_the_store_is_told_at_once(
    command: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(200, PAGE, times=100)
        site = Site.on(server, options, tmp_path)
        site.add("a.jpg")
        done = site.run(command)
    assert done.code == 5
    assert "endpoint_url: what answers there is not the store" in done.out
    assert "a network may ask you to log in first" in done.out


@pytest.mark.parametrize(
    ("wanted", "after", "requests"),
    [
        (KEYS[5:10], KEYS[4], 1),
        (KEYS, "", 1),
        ([KEYS[0], KEYS[29]], "", 3),  # a page, a page of others only, and the one looked for
        ([KEYS[3], *KEYS[20:25]], KEYS[2], 4),
        ([KEYS[29]], KEYS[0], 2),
        (["a/0005.jpg", KEYS[29], "z"], "a", 4),
    ],
)
def test_keys_are_listed_without_all_that_is_between_them(
    server: Server, bucket: Options, wanted: list[str], after: str, requests: int
) -> None:
    with target_on(server, bucket) as (target, proxy):
        found = target.client.among("", after, wanted)
        assert found is not None
        assert {stored.key for stored in found} & {*wanted} == {*wanted} & {*KEYS}
        assert sum(LISTING in request.query for request in proxy.requests) == requests


def test_a_page_holds_no_more_than_a_store_gives(server: Server, bucket: Options) -> None:
    with target_on(server, bucket) as (target, proxy):
        keys = [f"a/{n:06}" for n in range(5000)]
        list(target.client.among("", "", keys) or ())
        first = next(r for r in proxy.requests if LISTING in r.query)
        assert "max-keys=1000" in first.query


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


def test_an_object_that_is_read_is_asked_for_once_before(server: Server, bucket: Options) -> None:
    """The class asks for it when it opens it, and boto3 for its size when it downloads it."""
    with target_on(server, bucket) as (target, proxy):
        for key in (KEYS[0], KEYS[1], KEYS[0]):
            assert target.client  # changes how the class reads
            with target.storage.open(key, "rb") as file:
                assert target.client.told(file)
                assert file.read() == key.encode()
        assert [request.method for request in proxy.requests] == ["HEAD", "GET"] * 3
        server.put(bucket, KEYS[0], b"longer than before")  # what was told is not kept
        with target.storage.open(KEYS[0], "rb") as file:
            assert file.read() == b"longer than before"
        with pytest.raises(FileNotFoundError):
            target.storage.open("a/none.jpg", "rb")
        assert target.client.head(KEYS[2])["ContentType"]


def test_a_download_that_is_reset_again_and_again_names_its_cause(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    """boto3 says "Max Retries Exceeded" alone."""
    with server.proxied(bucket) as (options, proxy):
        site = Site.on(server, options, tmp_path)
        site.add("a.jpg")
        proxy.trouble(Trouble(down=partial(resetting, 2)), matching="^GET .*a.jpg", times=100)
        done = site.migrate("--no-thumbnails")
    assert done.code == 7
    assert re.search(r"Max Retries Exceeded \(.*[Cc]onnection", done.reasons()["a.jpg"])
