"""An ACL that was asked for is asked for again, and no store that ignores ACLs is blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.observe import save_by_django
from tests.servers.base import Options, Server
from tests.servers.moto import MotoServer
from tests.servers.proxy import Proxy
from tests.site import Result, Site

NAMES = ("a.jpg", "b.jpg", "c.jpg")
REFUSED = b"<Error><Code>%s</Code><Message>no</Message></Error>"
LOGIN = b"<html>Please log in</html>"
VERIFY = ("verify", "--no-thumbnails")


def migrated(server: Server, options: Options, folder: Path) -> Site:
    site = Site.on(server, options, folder)
    for name in NAMES:
        site.add(name, name.encode())
    done = site.migrate("--no-thumbnails")
    assert (done.code, done.states()) == (0, {"verified": 3}), done.out
    return site


def grant(server: Server, options: Options, acl: str, *names: str) -> None:
    assert isinstance(server, MotoServer)
    for name in names:
        server.grant(options, name, acl)


def asked(proxy: Proxy) -> int:
    return sum(request.query.startswith("acl") for request in proxy.requests)


def notices(done: Result) -> list[str]:
    return [note for note in done.report["notes"] if "ACL" in note]


@pytest.mark.on("moto")
@pytest.mark.parametrize("acl", ["private", "authenticated-read"])
@pytest.mark.parametrize("others", [0, 2])
def test_what_everybody_may_read_unasked_is_named_and_stored_anew(
    acl: str, others: int, server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = migrated(server, {**bucket, "default_acl": acl}, tmp_path)
    wrong = NAMES[: 3 - others]
    grant(server, bucket, "public-read", *wrong)
    done = site.run(*VERIFY)
    assert done.code == 7
    assert done.reasons() == dict.fromkeys(
        wrong, f"other headers: its ACL grants AllUsers READ, and {acl} does not"
    )
    again = site.migrate("--no-thumbnails")
    assert (again.code, again.states()) == (0, {"verified": 3}), again.out
    assert all("AllUsers READ" not in (server.peek(bucket, name).acl or ()) for name in NAMES)


@pytest.mark.on("moto")
def test_an_acl_that_others_have_and_one_has_not_is_a_fault(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    options = {**bucket, "object_parameters": {"ACL": "public-read"}}
    site = migrated(server, options, tmp_path)
    grant(server, bucket, "private", "b.jpg")
    done = site.run(*VERIFY)
    assert (done.code, notices(done)) == (7, [])
    assert done.reasons() == {
        "b.jpg": "other headers: its ACL lacks AllUsers READ, and Django would store public-read"
    }
    again = site.migrate("--no-thumbnails")
    assert (again.code, again.states()) == (0, {"verified": 3}), again.out
    assert "AllUsers READ" in (server.peek(bucket, "b.jpg").acl or ())


@pytest.mark.on("moto")
def test_an_acl_that_no_object_has_is_one_notice(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = migrated(server, {**bucket, "default_acl": "public-read"}, tmp_path)
    grant(server, bucket, "private", *NAMES)
    done = site.run(*VERIFY)
    assert (done.code, done.states()) == (0, {"verified": 3})
    (notice,) = notices(done)
    assert "not proven: no object that was read back has its grants" in notice
    assert done.report["header_notes"] == []


@pytest.mark.on("moto")
def test_the_acl_of_somebody_elses_object_is_told_and_left_alone(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    for name in NAMES:
        save_by_django(server, {**bucket, "default_acl": "public-read"}, name, name.encode())
    site = Site.on(server, {**bucket, "default_acl": "private"}, tmp_path)
    for name in NAMES:
        site.add(name, name.encode())
    for sample in ("all", "99%"):  # what was seen once is looked at again
        done = site.migrate("--no-thumbnails", "--sample", sample)
        assert (done.code, done.states()) == (7, {"failed": 3})
        assert all("change its ACL in the store" in why for why in done.reasons().values())
    assert "AllUsers READ" in (server.peek(bucket, "a.jpg").acl or ())


UNTOLD = {
    "AccessDenied": (403, REFUSED % b"AccessDenied"),
    "NotImplemented": (501, REFUSED % b"NotImplemented"),
    "AccessControlListNotSupported": (400, REFUSED % b"AccessControlListNotSupported"),
    "nothing": (200, LOGIN),
}


@pytest.mark.on("moto")
@pytest.mark.parametrize("says", UNTOLD)
def test_a_store_that_does_not_tell_acls_is_one_notice(
    says: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    status, body = UNTOLD[says]
    with server.proxied({**bucket, "default_acl": "public-read"}) as (options, proxy):
        proxy.answer(status, body, matching=r"^GET .*\?acl", times=1000)
        site = migrated(server, options, tmp_path)
        done = site.run(*VERIFY)
    assert (done.code, done.states()) == (0, {"verified": 3})
    (notice,) = notices(done)
    assert f"the store says {says} to GetObjectAcl" in notice


@pytest.mark.on("moto", "minio", "rclone_s3")
def test_no_acl_is_asked_for_where_the_settings_have_none(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        migrated(server, options, tmp_path)
    assert asked(proxy) == 0


@pytest.mark.on("minio", "rclone_s3")
@pytest.mark.parametrize("acl", ["private", "public-read", "authenticated-read"])
def test_a_store_that_ignores_acls_is_not_blamed(
    acl: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied({**bucket, "default_acl": acl}) as (options, proxy):
        site = migrated(server, options, tmp_path)
        done = site.run(*VERIFY)
    assert (done.code, done.states()) == (0, {"verified": 3})
    assert asked(proxy)
    told = server.name == "minio" and acl == "private"  # MinIO says so of each object
    assert len(notices(done)) == (0 if told else 1)
