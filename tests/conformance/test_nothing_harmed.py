"""Promise 4: the source is never written, no bucket is made, nobody else's object is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.observe import key_of, save_by_django, stored, tree, watched
from tests.servers.base import Options, Server
from tests.servers.proxy import Proxy
from tests.site import Result, Site


class Guarded(Site):
    """Asserts after each call of the program that bytes, modes and times of media are as before."""

    def run(self, *args: str, **environ: str) -> Result:
        before = tree(self.media)
        result = super().run(*args, **environ)
        assert tree(self.media) == before
        return result


def guarded(server: Server, options: Options, folder: Path, **files: bytes) -> Guarded:
    site = Guarded.on(server, options, folder)
    for name, data in files.items():
        site.add(f"{name}.jpg", data)
    assert isinstance(site, Guarded)
    return site


def writes(proxy: Proxy | None) -> set[str]:
    """Return the last part of each key that was written to, where the server speaks HTTP."""
    return {r.name for r in proxy.writes} if proxy else set()


def touch(path: Path) -> None:
    time = path.stat().st_mtime_ns + 10**10
    os.utime(path, ns=(time, time))


@pytest.mark.on("s3")
def test_a_missing_bucket_is_refused_by_name_and_not_made(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    missing = {**bucket, "bucket_name": f"{bucket['bucket_name']}-x"}
    with server.proxied(missing) as (options, proxy):
        result = guarded(server, options, tmp_path, a=b"a").migrate()
        assert proxy.writes == ()
    assert result.code == 5
    assert "bucket_name" in result.out + result.err
    assert '"tip": "make the bucket' in result.out
    with pytest.raises(Exception, match="NoSuchBucket"):
        server.keys(missing)


@pytest.mark.on("s3")
def test_nothing_asks_for_the_bucket_so_as_to_make_it(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    """What asks whether a bucket is there before it writes is what makes those that are not."""
    with server.proxied(bucket) as (options, proxy):
        assert guarded(server, options, tmp_path, a=b"a").migrate().code == 0
        asked = {r.method for r in proxy.requests if r.path.strip("/") == bucket["bucket_name"]}
    assert asked == {"GET"}


@pytest.mark.on("s3")
def test_a_dry_run_only_reads(server: Server, bucket: Options, tmp_path: Path) -> None:
    server.put(bucket, "other.jpg", b"theirs")
    with server.proxied(bucket) as (options, proxy):
        site = guarded(server, options, tmp_path, a=b"a", other=b"ours")
        for result in (site.plan(), site.migrate("--dry-run"), site.plan("--overwrite-conflicts")):
            assert result.code == 0, result.err
            assert result.report["verdict"] == "planned"
        assert {request.method for request in proxy.requests} <= {"GET", "HEAD"}
        assert len(proxy.requests) >= 3


def test_a_dry_run_leaves_the_store_as_it_is(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = guarded(server, bucket, tmp_path, a=b"a")
    planned = site.plan()
    assert (planned.code, planned.states()) == (0, {"planned": 1})
    assert server.keys(bucket) == []


def test_an_object_of_somebody_else_is_a_conflict_until_told_otherwise(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    for name, data in {"same": b"same", "longer": b"1234567", "other": b"theirs"}.items():
        save_by_django(server, bucket, f"{name}.jpg", data)
    before = stored(server, bucket)
    files = {"same": b"same", "longer": b"123456", "other": b"ours!!", "new": b"new"}
    with watched(server, bucket) as (options, proxy):
        site = guarded(server, options, tmp_path, **files)
        done = site.migrate()
        assert done.code == 7, done.err
        assert done.states() == {"verified": 2, "conflict": 2}
        assert done.reasons().keys() == {"longer.jpg", "other.jpg"}
        assert before.items() <= stored(server, bucket).items()
        assert writes(proxy) <= {"new.jpg"}

        forced = site.migrate("--overwrite-conflicts")
        assert (forced.code, forced.states()) == (0, {"verified": 4}), forced.err
        assert writes(proxy) <= {"new.jpg", "longer.jpg", "other.jpg"}
    held = {key: item.data for key, item in stored(server, bucket).items()}
    assert held == {key_of(server, bucket, f"{n}.jpg"): data for n, data in files.items()}


def test_a_run_again_writes_only_what_has_changed_and_is_ours(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    names = ("quiet", "touched", "edited", "theirs", "both", "alike")
    with watched(server, bucket) as (options, proxy):
        site = guarded(server, options, tmp_path, **dict.fromkeys(names, b"first"))
        assert site.migrate().code == 0
        first, sent = stored(server, bucket), len(proxy.writes) if proxy else 0

        again = site.migrate()
        assert (again.code, again.states()) == (0, {"verified": 6}), again.err
        assert again.report["changes"].keys() == {"same"}
        assert stored(server, bucket) == first
        assert (len(proxy.writes) if proxy else 0) == sent

        keys = {name: key_of(server, bucket, f"{name}.jpg") for name in names}
        for name, data in {"theirs": b"THIRD", "both": b"THIRD", "alike": b"second"}.items():
            server.put(bucket, keys[name], data, content_type="image/jpeg")
        between = stored(server, bucket)
        touch(site.media / "touched.jpg")
        for name in ("edited", "both", "alike"):
            site.add(f"{name}.jpg", b"second")
        last = site.migrate()
        assert last.code == 7, last.err
        assert last.reasons().keys() == {"theirs.jpg", "both.jpg"}
        assert last.states() == {"verified": 4, "conflict": 2}
        assert {k: v["files"] for k, v in last.report["changes"].items()} == {
            "same": 3,
            "changed": 1,
            "conflict": 2,
        }
        after = stored(server, bucket)
        assert after.pop(keys["edited"]).data == b"second"
        assert after.items() <= between.items()
        if proxy:
            assert {r.name for r in proxy.writes[sent:]} == {"edited.jpg"}


@pytest.mark.on("s3")
def test_headers_that_the_site_would_store_otherwise_are_told_and_kept(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    cached = {**bucket, "object_parameters": {"CacheControl": "max-age=86400"}}
    save_by_django(server, cached, "saved.jpg", b"saved")
    before = server.peek(bucket, "saved.jpg")
    assert before.cache_control == "max-age=86400"
    with server.proxied(bucket) as (options, proxy):
        site = guarded(server, options, tmp_path, saved=b"saved")
        done = site.migrate()
        touch(site.media / "saved.jpg")
        again = site.migrate()
        assert proxy.writes == ()
    assert (done.code, again.code) == (0, 0), done.err
    assert [note["name"] for note in again.report["header_notes"]] == ["saved.jpg"]
    assert server.peek(bucket, "saved.jpg") == before


def test_a_plan_does_not_make_what_the_site_saves_meanwhile_ours(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = guarded(server, bucket, tmp_path, photo=b"first")
    assert site.plan().states() == {"planned": 1}
    save_by_django(server, bucket, "photo.jpg", b"first")
    before = stored(server, bucket)
    assert site.migrate().report["changes"].keys() == {"same"}
    site.add("photo.jpg", b"second")
    result = site.migrate()
    assert (result.code, result.states()) == (7, {"conflict": 1})
    assert stored(server, bucket) == before
