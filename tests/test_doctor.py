"""doctor: a good set-up, and broken ones, each named with what to do, none hiding another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.servers.base import Options, Server
from tests.servers.process import free_address
from tests.site import Site

both = pytest.mark.on("rclone_s3", "moto")

ON_THE_WAY = (
    "rclone",
    "permissions of .env",
    "MEDIA_STORAGE and its options",
    "network",
    "clock",
    "credentials and container",
    "a probe object",
    "source",
    "names",
    "sizes",
    "disk",
)


def checks(site: Site, *args: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and each check by its title."""
    site.write_env()
    (site.folder / ".env").chmod(0o600)
    done = site.run("doctor", *args)
    found = [json.loads(line) for line in done.out.splitlines()]
    return done.code, {check["title"]: check for check in found}


def a_site(server: Server, options: Options, folder: Path) -> Site:
    site = Site.on(server, options, folder)
    site.add("a.jpg")
    site.write_env()
    return site


@both
def test_a_good_set_up_passes_and_leaves_nothing_behind(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    code, found = checks(a_site(server, bucket, tmp_path))
    assert code == 0
    assert tuple(found)[: len(ON_THE_WAY)] == ON_THE_WAY
    wrong = {title for title in ON_THE_WAY if found[title]["status"] != "ok"}
    assert wrong <= {"permissions of .env"}
    assert server.keys(bucket) == []


@both
def test_a_wrong_secret_is_named_and_the_source_is_looked_at_all_the_same(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = a_site(server, {**bucket, "secret_key": "not-the-secret-key-at-all"}, tmp_path)
    code, found = checks(site)
    refused = found["credentials and container"]
    assert (code, refused["status"]) == (5, "failed")
    assert "secret_key" in refused["detail"]
    assert "copy secret_key again" in refused["tip"]
    assert found["a probe object"]["status"] == "not checked"
    assert found["source"]["status"] == "ok"


@both
def test_a_missing_bucket_is_named_and_not_made(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    code, found = checks(a_site(server, {**bucket, "bucket_name": "no-such-bucket"}, tmp_path))
    assert code == 5
    assert "bucket_name" in found["credentials and container"]["detail"]


@both
def test_a_closed_port_is_named(server: Server, bucket: Options, tmp_path: Path) -> None:
    nowhere = {**bucket, "endpoint_url": f"http://{free_address()}"}
    code, found = checks(a_site(server, nowhere, tmp_path))
    assert code == 5
    assert "nothing listens" in found["network"]["detail"]


@both
def test_a_wrong_option_and_a_missing_source_are_told_together(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, {**bucket, "buckett_name": "x"}, tmp_path)
    site.write_env()
    done = site.run("--source", "nowhere", "doctor")
    found = {json.loads(line)["title"]: json.loads(line) for line in done.out.splitlines()}
    assert done.code == 2
    assert "did you mean 'bucket_name'" in found["MEDIA_STORAGE and its options"]["tip"]
    assert found["source"]["status"] == "failed"
    assert found["the store"]["status"] == "not checked"


@both
def test_an_env_file_that_others_can_read_is_a_warning(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = a_site(server, bucket, tmp_path)
    done = site.run("doctor", "--no-write")
    warned = json.loads(done.out.splitlines()[1])
    assert (done.code, warned["status"]) == (0, "warning")
    assert "chmod 600" in warned["tip"]


@pytest.mark.on("folder")
def test_a_folder_passes_unless_the_source_lies_in_it(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = a_site(server, bucket, tmp_path)
    code, found = checks(site)
    assert (code, found["a probe object"]["status"]) == (0, "ok")
    inside = {**site.options, "location": str(site.media / "store")}
    (site.media / "store").mkdir()
    code, found = checks(Site.on(server, inside, tmp_path))
    assert code == 2
    assert "share files" in found["credentials and container"]["detail"]


@pytest.mark.on("moto")
def test_a_key_that_may_only_read_fails_at_the_probe_object(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    reader = server.read_only(bucket)
    assert reader is not None
    code, found = checks(a_site(server, reader, tmp_path))
    assert (code, found["a probe object"]["status"]) == (5, "failed")
    assert "may not do this" in found["a probe object"]["detail"]


@pytest.mark.on("rclone_s3")
def test_a_clock_that_is_wrong_is_told(server: Server, bucket: Options, tmp_path: Path) -> None:
    with server.proxied(bucket) as (options, proxy):
        long_ago = {"Date": "Sun, 22 Nov 2020 00:00:00 GMT"}
        proxy.answer(200, matching="^HEAD /$", headers=long_ago)
        code, found = checks(a_site(server, options, tmp_path))
    assert (code, found["clock"]["status"]) == (5, "failed")
    assert "NTP" in found["clock"]["tip"]


@pytest.mark.on("rclone_s3")
def test_without_writing_it_only_reads(server: Server, bucket: Options, tmp_path: Path) -> None:
    with server.proxied(bucket) as (options, proxy):
        code, found = checks(a_site(server, options, tmp_path), "--no-write")
        assert (code, found["a probe object"]["status"]) == (0, "not checked")
        assert proxy.requests
        assert not proxy.writes


@pytest.mark.on("rclone_s3")
def test_names_that_cannot_be_migrated_are_counted(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = a_site(server, bucket, tmp_path)
    site.add(b"not utf-8 \xff.jpg")
    site.add("line\nend.jpg")
    code, found = checks(site)
    assert (code, found["names"]["status"]) == (0, "warning")
    assert "1 cannot be migrated" in found["names"]["detail"]
