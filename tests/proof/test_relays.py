"""Harness: bad networks in front of servers that speak FTP or SFTP."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.conformance.observe import running, wait_for
from tests.proof.figures import Proof
from tests.proof.test_networks import (
    KIB,
    ended_clearly,
    migrated,
    proven,
    some_files,
    told_wrongly,
    well,
)
from tests.proof.test_on_the_way import site_of
from tests.servers.base import Options, Server
from tests.servers.ftp import FtpServer
from tests.servers.openssh import SshServer
from tests.servers.relay import Relay, first
from tests.servers.trouble import flipping, resetting, slowed
from tests.site import Result, report_in

BOUND = 120
FAILED = "connection|listens|reset|EOF|time|broken pipe"
Begin = Callable[[Relay, random.Random], None]


def refuse(relay: Relay, _: random.Random) -> None:
    relay.refuses = True


def reset_some(relay: Relay, _: random.Random) -> None:
    relay.up = first(3, partial(resetting, 3 * KIB))
    relay.data_up = first(3, partial(resetting, 5))


def slow(relay: Relay, _: random.Random) -> None:
    relay.up = relay.data_up = partial(slowed, 100 * KIB, relay.over)


def slow_for_a_while(relay: Relay, _: random.Random) -> None:
    relay.up = relay.data_up = first(4, partial(slowed, KIB, relay.over, 4 * KIB))


def corrupt_downloads(relay: Relay, chance: random.Random) -> None:
    relay.data_down = partial(flipping, chance)


CASES: dict[str, tuple[Begin, set[int], str]] = {
    "refused": (refuse, {5, 6}, FAILED),
    "some are reset": (reset_some, {0, 5, 6}, FAILED),
    "100 KiB a second": (slow, {0}, ""),
    "1 KiB a second for a while": (slow_for_a_while, {0}, ""),
}
OF_FTP: dict[str, tuple[Begin, set[int], str]] = {
    "downloads and listings with another byte": (corrupt_downloads, {2, 5, 6, 7}, ".")
}


@pytest.mark.full
@pytest.mark.on("pyftpdlib", "sshd_chroot")
@pytest.mark.parametrize("title", [*CASES, *OF_FTP])
def test_trouble_between_us_and_a_server_without_http(
    title: str, proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    assert isinstance(server, FtpServer | SshServer)
    if title in OF_FTP and not isinstance(server, FtpServer):
        pytest.skip("SSH notices it: a connection with a wrong byte ends")
    begin, codes, says = (CASES | OF_FTP)[title]
    chance = random.Random(f"{proof.seed} {title}")
    files = some_files(chance)
    with server.relayed(bucket) as (options, relay):
        site = site_of(server, options, tmp_path, files)
        begin(relay, chance)
        done, seconds = migrated(site)
        lies = told_wrongly(server, bucket, site, files)
        relay.heal()
        again = site.migrate("--no-thumbnails")
    proven(proof, lies, well(server, bucket, files, again))
    assert seconds < BOUND
    ended_clearly(done, frozenset(codes), says)


@pytest.mark.full
@pytest.mark.on("pyftpdlib", "sshd_chroot")
def test_connections_that_are_all_cut_once(
    proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    assert isinstance(server, FtpServer | SshServer)
    files = some_files(random.Random(proof.seed))
    with server.relayed(bucket) as (options, relay):
        site = site_of(server, options, tmp_path, files)
        with running(site, "migrate", "--no-thumbnails", "--bwlimit", "100K") as run:
            assert wait_for(lambda: len(server.keys(bucket)) > 5)
            relay.cut()
            code, said = run.end()
        lies = told_wrongly(server, bucket, site, files)
        again = site.migrate("--no-thumbnails")
    proven(proof, lies, well(server, bucket, files, again))
    done = Result(code=code, out=said, err="", report=report_in(said))
    ended_clearly(done, frozenset({0, 5, 6}), FAILED)
