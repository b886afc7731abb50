"""What a store or a network can refuse on S3: one exit code, a short line, a tip; and soon."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.servers import process
from tests.servers.base import Options, Server
from tests.servers.certificates import make
from tests.site import Result, Site
from tests.typed import command, environ

EVER = 1_000_000
LONGEST = 240  # characters of a line that a person still reads
QUICK = 15  # seconds, on a busy machine
FILES = {f"{folder}/{n}.txt": b"%d" % n for folder in "ab" for n in range(5)}


def site_on(
    server: Server, options: Options, folder: Path, files: Mapping[str, bytes] = FILES
) -> Site:
    folder.mkdir(exist_ok=True)
    site = Site.on(server, options, folder)
    for name, data in files.items():
        site.add(name, data)
    return site


def problem(done: Result) -> dict[str, str]:
    """Return the one problem that a run has ended with."""
    events = [json.loads(line) for line in done.out.splitlines()]
    (found,) = (event for event in events if event["event"] == "error")
    assert found["exit_code"] == done.code
    (only,) = found["problems"]
    assert len(only["what"]) <= LONGEST
    assert "\n" not in only["what"]
    assert only["tip"]
    return dict(only)


def refused(done: Result, code: int, option: str, says: str) -> None:
    """Check the exit code, the option that the text begins with, and what it says."""
    assert done.code == code, done.out
    what = problem(done)["what"]
    assert what.startswith(f"{option}: {says} ("), what
    assert done.report["verdict"] == "failed"


def assert_grows(done: Result) -> None:
    """Check that the counts of each stage never fall and never exceed its totals."""
    stages: list[list[dict[str, Any]]] = []
    for event in map(json.loads, done.out.splitlines()):
        if event["event"] == "stage":
            stages.append([event])
        elif event["event"] == "progress":
            stages[-1].append(event)
    for total, *events in stages:
        for what in ("files", "bytes"):
            counts = [0, *(event[what] for event in events)]
            assert counts == sorted(counts)
            assert counts[-1] <= total[what]


def xml(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


# Before anything is sent

WRONG = {
    "access_key": ({"access_key": "AKIA0000000000000000"}, "the store does not know this access"),
    "secret_key": ({"secret_key": "no-such-secret"}, "secret_key does not fit access_key"),
    "bucket_name": ({"bucket_name": "no-such-bucket"}, "there is no such bucket"),
}


@pytest.mark.on("s3")
@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_option_is_named_at_once(
    option: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    values, says = WRONG[option]
    start = time.monotonic()
    done = site_on(server, {**bucket, **values}, tmp_path).migrate()
    assert time.monotonic() - start < QUICK
    assert done.code == 5, done.out
    assert problem(done)["what"].startswith(f"{option}: {says}")
    assert values[option] not in done.out or option == "bucket_name"


UNREACHABLE = {
    "closed": ("http://127.0.0.1:{free}", "nothing listens at the store's address"),
    "unknown": ("http://nope.invalid", "the store's host name cannot be resolved"),
    "no TLS": ("https://{there}", "the store speaks http where https is asked"),
}


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize("case", UNREACHABLE)
def test_an_address_without_a_store_is_told_at_once(
    case: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    url, says = UNREACHABLE[case]
    there = bucket["endpoint_url"].removeprefix("http://")
    free = process.free_address().partition(":")[2]
    endpoint = url.format(free=free, there=there)
    start = time.monotonic()
    done = site_on(server, {**bucket, "endpoint_url": endpoint}, tmp_path).migrate()
    assert time.monotonic() - start < QUICK
    refused(done, 5, "endpoint_url", says)


@pytest.mark.on("rclone_s3")
def test_http_to_a_port_that_speaks_tls_is_told(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket, tmp_path) as (options, proxy):
        plain = {**options, "endpoint_url": proxy.url.replace("https:", "http:")}
        done = site_on(server, plain, tmp_path).migrate()
    assert done.code == 5, done.out
    assert problem(done)["tip"]


@pytest.mark.on("rclone_s3")
def test_an_authority_of_ones_own_is_named_in_verify(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket, tmp_path) as (options, proxy):
        site = site_on(server, options, tmp_path)
        done = site.migrate()
        refused(done, 5, "verify", "the store's TLS certificate is not trusted")
        assert "verify" in problem(done)["tip"]
        trusting = {**options, "verify": str(proxy.authority)}
        done = site_on(server, trusting, tmp_path / "right").migrate()
        assert (done.code, done.states()) == (0, {"verified": len(FILES)}), done.out
        (tmp_path / "other").mkdir()
        other = {**options, "verify": str(make(tmp_path / "other").authority)}
        done = site_on(server, other, tmp_path / "other").migrate()
        refused(done, 5, "verify", "the store's TLS certificate is not trusted")


@pytest.mark.on("rclone_s3")
def test_another_region_is_told(server: Server, bucket: Options, tmp_path: Path) -> None:
    body = xml(
        "AuthorizationHeaderMalformed",
        "The header is malformed; the region 'us-east-1' is wrong; expecting 'eu-x-1'",
    )
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(400, body, times=EVER)
        done = site_on(server, options, tmp_path).migrate()
    refused(done, 5, "region_name", "the bucket is in another region")


@pytest.mark.on("rclone_s3")
def test_a_store_that_never_answers_does_not_keep_us_waiting(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(503, xml("SlowDown", "Reduce your request rate"), times=EVER)
        start = time.monotonic()
        done = site_on(server, options, tmp_path).migrate()
        assert len(proxy.requests) <= 3
    assert time.monotonic() - start < QUICK
    assert (done.code, problem(done)["what"].partition(" (")[0]) == (
        6,
        "the store asks us to slow down",
    )


# While files are sent


@pytest.mark.on("s3")
def test_a_key_that_may_only_read_ends_the_run_at_once(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    reader = server.read_only(bucket)
    if reader is None:
        pytest.skip(f"{server.name} has no users")
    many = {f"{n}.txt": b"%d" % n for n in range(3000)}
    with server.proxied(reader) as (options, proxy):
        start = time.monotonic()
        done = site_on(server, options, tmp_path, many).migrate()
        assert time.monotonic() - start < 2 * QUICK
        assert len(proxy.writes) < 200
    refused(done, 5, "access_key", "the key is valid but may not do this")
    assert done.report["unaccounted"] == 0
    assert server.keys(bucket) == []


@pytest.mark.on("moto")
def test_a_key_that_may_only_read_ends_direct_saves_at_once_too(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    reader = server.read_only(bucket)
    assert reader is not None
    many = {f"{n}.css": b"a {}" * 100 for n in range(300)}
    with server.proxied({**reader, "gzip": True}) as (options, proxy):
        done = site_on(server, options, tmp_path, many).migrate()
        assert len(proxy.writes) < 100
    refused(done, 5, "access_key", "the key is valid but may not do this")


@pytest.mark.on("rclone_s3")
def test_a_token_that_expires_on_the_way_is_told_and_the_run_goes_on_with_another(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        expired = xml("ExpiredToken", "The provided token has expired.")
        proxy.answer(400, expired, matching="^PUT .*/b/", times=EVER)
        site = site_on(server, options, tmp_path)
        done = site.migrate("--transfers", "1")
        refused(done, 5, "security_token", "the session token has expired or is not valid")
    with server.proxied(bucket) as (options, proxy):
        done = site_on(server, options, tmp_path).migrate()
        assert (done.code, done.states()) == (0, {"verified": len(FILES)}), done.out


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests")])
def test_a_store_that_asks_to_slow_down_is_asked_again_later(
    status: int, code: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(status, xml(code, "Reduce your request rate."), matching="^PUT", times=6)
        done = site_on(server, options, tmp_path).migrate()
        slowed = [request for request in proxy.writes if request.status == status]
    assert (done.code, done.states(), len(slowed)) == (0, {"verified": len(FILES)}, 6), done.out


@pytest.mark.on("rclone_s3")
def test_one_file_that_is_never_taken_does_not_keep_the_others(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        body = xml("InternalError", "We encountered an internal error. Please try again.")
        proxy.answer(500, body, matching="^PUT .*/a/3.txt", times=EVER)
        site = site_on(server, options, tmp_path)
        start = time.monotonic()
        done = site.migrate()
        assert time.monotonic() - start < 4 * QUICK
        assert (done.code, done.states()) == (6, {"verified": len(FILES) - 1, "failed": 1})
        assert list(done.reasons()) == ["a/3.txt"]
        assert_grows(done)
        assert done.reasons()["a/3.txt"].startswith("not sent: ")
        assert "InternalError" in done.reasons()["a/3.txt"]
        (run,) = site.runs.glob("2*")
        said = (run / "summary.txt").read_text()
        assert "next: run the same command again; if it stays so, see the store's status" in said


@pytest.mark.on("rclone_s3")
def test_a_full_store_is_told_with_what_to_do(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with server.proxied(bucket) as (options, proxy):
        body = xml("XMinioStorageFull", "Please delete a few objects to proceed.")
        proxy.answer(507, body, matching="^PUT .*/a/3.txt", times=EVER)
        site = site_on(server, options, tmp_path)
        done = site.migrate()
    assert done.code == 6
    assert done.reasons()["a/3.txt"].startswith("not sent: the store is full or its quota")
    (run,) = site.runs.glob("2*")
    assert "next: make room or raise the quota" in (run / "summary.txt").read_text()


@pytest.mark.on("rclone_s3")
def test_a_connection_that_is_cut_ends_the_run_and_the_next_one_goes_on(
    request: pytest.FixtureRequest, server: Server, bucket: Options, tmp_path: Path
) -> None:
    many = {f"{n:03}.bin": bytes(20_000) + b"%d" % n for n in range(200)}
    with server.proxied(bucket) as (options, proxy):
        site = site_on(server, options, tmp_path, many)
        site.write_env()
        running = subprocess.Popen(
            command("--json", "migrate", "--bwlimit", "1M", "--transfers", "4"),
            cwd=tmp_path,
            env=environ(**site.variables),
            stdout=subprocess.PIPE,
            text=True,
        )
        request.addfinalizer(running.kill)
        while len(server.keys(bucket)) < 20:
            assert running.poll() is None
            time.sleep(0.1)
    start = time.monotonic()
    out, _ = running.communicate(timeout=120)
    assert time.monotonic() - start < 6 * QUICK
    assert running.returncode == 6, out
    stored = len(server.keys(bucket))
    assert stored < len(many)
    last: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert (last["verdict"], last["unaccounted"]) == ("failed", 0)
    assert "the connection" in last["problems"][0]["what"] or "nothing listens" in out
    with server.proxied(bucket) as (options, proxy):
        done = site_on(server, options, tmp_path, {}).migrate()
        assert (done.code, done.states()) == (0, {"verified": len(many)}), done.out
        assert len(proxy.writes) == len(many) - stored
