"""Harness: the server itself fails on the way: it dies, its disk is full, its bucket goes away."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from tests.servers import process, rclone_s3
from tests.servers.base import Options, Server
from tests.servers.disk import DiskServer
from tests.servers.trouble import Trouble
from tests.site import Result, report_in

SLOWLY = ("migrate", "--no-thumbnails", "--bwlimit", "100K", "--transfers", "2")


@pytest.mark.full
@pytest.mark.parametrize("back", ["at once", "later"])
def test_a_server_that_is_killed(back: str, proof: Proof, tmp_path: Path) -> None:
    """The server forgets content types when it ends, and guesses another one for text."""
    made = some_files(random.Random(proof.seed))
    files = {name: data for name, data in made.items() if not name.endswith(".txt")}
    address, keys = process.free_address(), rclone_s3.new_keys()
    with ExitStack() as stack:
        serving = stack.enter_context(ExitStack())
        serving.enter_context(rclone_s3.serving(tmp_path, address, keys))
        server = stack.enter_context(rclone_s3.connected(tmp_path, address, keys))
        site = site_of(server, server.options, tmp_path, files)
        with running(site, *SLOWLY) as run:
            assert wait_for(lambda: len(server.keys(server.options)) > 5)
            serving.close()
            if back == "at once":
                serving.enter_context(rclone_s3.serving(tmp_path, address, keys))
            code, said = run.end()
        if back == "later":
            serving.enter_context(rclone_s3.serving(tmp_path, address, keys))
        lies = told_wrongly(server, server.options, site, files)
        proven(proof, lies, well(server, server.options, files, site.migrate("--no-thumbnails")))
    done = Result(code=code, out=said, err="", report=report_in(said))
    ended_clearly(done, frozenset({0, 6} if back == "at once" else {6}), "listens|connection")


MUTE = {"pyftpdlib": "426", "sshd": "SSH_FX_FAILURE", "sshd_chroot": "SSH_FX_FAILURE"}
"""What servers say that do not tell why they take no more; SFTP has no code for a full disk."""


@contextmanager
def small_disk(folder: Path, owner: tuple[int, int], size: int) -> Iterator[None]:
    """Mount a disk of so many bytes."""
    options = f"size={size},uid={owner[0]},gid={owner[1]},mode=755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)


@pytest.mark.full
@pytest.mark.on("pyftpdlib", "proftpd", "sshd", "sshd_chroot")
def test_a_server_whose_disk_is_full(
    proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    assert isinstance(server, DiskServer)
    files = some_files(random.Random(proof.seed))
    folder = server.folder(bucket)
    site = site_of(server, bucket, tmp_path, files)
    with small_disk(folder, server.owner, 160 * KIB):
        done, seconds = migrated(site)
        lies = told_wrongly(server, bucket, site, files)
        enlarge(folder)
        proven(proof, lies, well(server, bucket, files, site.migrate("--no-thumbnails")))
    assert seconds < 120
    ended_clearly(done, frozenset({2, 6}), MUTE.get(server.name, "full|space|room"))


@pytest.mark.full
def test_an_s3_server_whose_disk_is_full(proof: Proof, tmp_path: Path) -> None:
    files = some_files(random.Random(proof.seed))
    address, keys = process.free_address(), rclone_s3.new_keys()
    disk = tmp_path / "buckets"
    disk.mkdir()
    with (
        small_disk(disk, (0, 0), 160 * KIB),
        rclone_s3.serving(tmp_path, address, keys),
        rclone_s3.connected(tmp_path, address, keys) as server,
    ):
        site = site_of(server, server.options, tmp_path, files)
        done, seconds = migrated(site, 300)
        lies = told_wrongly(server, server.options, site, files)
        enlarge(disk)
        proven(proof, lies, well(server, server.options, files, site.migrate("--no-thumbnails")))
    assert seconds < 120
    ended_clearly(done, frozenset({6}), "full|space|room")


@pytest.mark.full
@pytest.mark.on("rclone_s3")
def test_a_bucket_that_goes_away(
    proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    files = some_files(random.Random(proof.seed))
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, tmp_path, files)
        proxy.trouble(Trouble(before=partial(remove, server, bucket)), matching="^PUT .*Img00020")
        done = site.migrate("--no-thumbnails", "--transfers", "1")
        server.s3.create_bucket(Bucket=bucket["bucket_name"])  # type: ignore[attr-defined]
        lies = told_wrongly(server, bucket, site, files)
        proven(proof, lies, well(server, bucket, files, site.migrate("--no-thumbnails")))
    ended_clearly(done, frozenset({5}), "there is no such bucket")


def remove(server: Server, options: Options) -> None:
    for key in server.keys(options):
        server.delete(options, key)
    server.s3.delete_bucket(Bucket=options["bucket_name"])  # type: ignore[attr-defined]
