"""A file that no object of the store can hold is told before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.template import Limit, load_all
from tests.servers.base import Options, Server
from tests.servers.connect_proxy import connecting
from tests.site import Site
from tests.test_vendors import BUCKET, KEYS, VENDORS, Recorder, recording

GIB, TIB = 1 << 30, 1 << 40
MOST = {
    "Cloudflare R2": 5 * TIB - 5 * GIB,
    "Backblaze B2": 10 * 10**12,
    "DigitalOcean Spaces": 5 * 10**12,
    "Oracle Cloud": 10 * TIB,
    "Scaleway": 5 * 10**12,
}
"""Not Amazon's 48.8 TiB: the file system of the tests takes 16."""
CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
WITH_CHECKSUMS = ("Cloudflare R2", "Backblaze B2", "Oracle Cloud")


def add(site: Site, name: str, size: int) -> None:
    """Add a file of so many bytes that takes none of the disk."""
    with site.add(name, b"").open("r+b") as file:
        file.truncate(size)


@contextmanager
def at(name: str, folder: Path) -> Iterator[tuple[Site, Recorder]]:
    """Yield a site whose store has the vendor's own host name."""
    vendor = VENDORS[name]
    certificates = folder / "certificates"
    certificates.mkdir()
    with (
        recording() as recorder,
        connecting(dict.fromkeys(vendor.hosts, recorder.url), certificates) as environ,
    ):
        options = {**KEYS, "bucket_name": BUCKET, **vendor.options}
        yield Site(folder=folder, options=options, variables=environ), recorder


def told(site: Site, *args: str, **environ: str) -> dict[str, str]:
    """Return what doctor says, by title; what the site will meet in one text."""
    found: dict[str, str] = {}
    for line in site.run("doctor", *args, **environ).out.splitlines():
        check = json.loads(line)
        found[check["title"]] = (
            f"{found.get(check['title'], '')}{check['detail']} TIP: {check['tip']}\n"
        )
    return found


@pytest.mark.parametrize("name", MOST)
def test_a_file_larger_than_the_vendor_takes_is_refused_and_no_smaller_one(
    name: str, tmp_path: Path
) -> None:
    with at(name, tmp_path) as (site, recorder):
        add(site, "fits.mp4", MOST[name])
        add(site, "too-big.mp4", MOST[name] + 1)
        planned = site.plan()
        checked = told(site, "--no-write")
    assert planned.states() == {"planned": 1, "refused": 1}
    assert "one object of the store can have" in planned.reasons()["too-big.mp4"]
    assert "too-big.mp4" in checked["sizes"]
    assert "--exclude" in checked["sizes"]
    assert recorder.puts == []


@pytest.mark.on("gcs")
def test_migrate_copies_nothing_before_the_large_file_was_decided_upon(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    site.add("a.jpg")
    add(site, "big.mp4", 5 * TIB + 1)
    done = site.migrate()
    assert (done.code, done.states()) == (7, {"planned": 1, "refused": 1})
    assert server.keys(bucket) == []
    assert site.migrate("--skip-refused").states() == {"verified": 1, "refused": 1}
    assert site.migrate("--exclude", "*.mp4").code == 0


def test_what_rclone_cannot_carry_must_fit_into_what_the_class_saves(tmp_path: Path) -> None:
    with at("Scaleway", tmp_path) as (site, _):
        add(site, "by rclone.mp4", 10 * GIB)
        add(site, "by\x01class.mp4", 1000 * (8 << 20) + 1)
        add(site, "by\x02class.mp4", 1000 * (8 << 20))
        planned = site.plan()
        checked = told(site, "--no-write")
    assert planned.states() == {"planned": 2, "refused": 1}
    assert "the class can save 7.8 GiB" in planned.reasons()[r"by\x01class.mp4"]
    assert "the site itself can save only 7.8 GiB" in checked["what the site will meet"]


@pytest.mark.on("azurite")
def test_azure_counts_the_blocks_of_its_sdk(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    add(site, "big.mp4", 50_000 * (4 << 20) + 1)
    checked = told(site)
    assert "190.7 TiB" in checked["sizes"]
    assert "can save only 195.3 GiB" in checked["what the site will meet"]


@pytest.mark.on("folder")
def test_where_there_is_no_limit_doctor_says_so(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    add(site, "big.mp4", 100 * GIB)
    assert (
        "big.mp4, has 100.0 GiB; the store has no limit of its own"
        in told(site, "--no-write")["sizes"]
    )


@pytest.mark.parametrize("name", MOST)
def test_boto3_s_checksums_are_told_where_they_fail_and_only_while_they_are_sent(
    name: str, tmp_path: Path
) -> None:
    with at(name, tmp_path) as (site, _):
        site.add("a.jpg")
        sent = told(site, "--no-write").get("what the site will meet", "")
        quiet = told(replace(site, variables={**site.variables, CHECKSUMS: "when_required"}))
    assert (f"{CHECKSUMS}=when_required" in sent) is (name in WITH_CHECKSUMS)
    assert CHECKSUMS not in quiet.get("what the site will meet", "")


@pytest.mark.on("moto")
def test_a_store_that_refuses_the_checksums_is_mended_by_the_variable(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    site.add("a\x01.jpg")  # saved by the class
    refusal = (
        b"<Error><Code>InvalidArgument</Code><Message>Unsupported header "
        b"'x-amz-sdk-checksum-algorithm' received for this API call.</Message></Error>"
    )
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(400, refusal, matching="^PUT", times=99, sent="x-amz-sdk-checksum-algorithm")
        beside = replace(site, options=options)
        failed = beside.migrate()
        assert CHECKSUMS in failed.out
        (beside.folder / ".env").unlink()
        mended = beside.migrate(**{CHECKSUMS: "when_required"})
    assert failed.code == 2
    assert mended.code == 0


def limits() -> Iterator[tuple[str, Limit]]:
    for template in load_all():
        for rule in template.rules:
            found = (rule.largest, rule.largest_saved, template.largest, template.largest_saved)
            yield from ((template.family, limit) for limit in found if limit)


def test_every_limit_says_where_it_is_documented_and_can_be_computed() -> None:
    known = {t.family: {**t.options, **t.derived} for t in load_all()}
    for family, limit in limits():
        assert limit.source
        assert bool(limit.bytes) is not bool(limit.parts and limit.part in known[family])
