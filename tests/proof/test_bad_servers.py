"""Harness: the server itself fails on the way: it dies, its disk is full, its bucket goes away."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from botocore.exceptions import ClientError
from minio import S3Error

from tests.conformance.observe import running, wait_for
from tests.proof.figures import Proof
from tests.proof.test_networks import (
    BOUND,
    KIB,
    ended_clearly,
    migrated,
    proven,
    some_files,
    told_wrongly,
    well,
)
from tests.proof.test_on_the_way import site_of
from tests.proof.wrong_judge import BOASTFUL, FORGIVING, Planted
from tests.servers import minio, process, proftpd, pyftpdlib, rclone_s3, sshd, sshd_chroot
from tests.servers.azurite import AzuriteServer
from tests.servers.base import Options, Server
from tests.servers.disk import DiskServer
from tests.servers.minio import MinioServer
from tests.servers.proxy import Proxy
from tests.servers.s3 import BotoServer
from tests.servers.trouble import Trouble
from tests.site import Result, report_in

MIB = 1 << 20
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


UNANSWERED = 240
"""Seconds: pyftpdlib leaves some uploads without an answer, and a run then waits three minutes."""
SFTP = "SSH_FX_FAILURE|sizes differ"
MUTE = {"pyftpdlib": "426", "sshd": SFTP, "sshd_chroot": SFTP}
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


def named(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


@pytest.mark.full
@pytest.mark.parametrize("module", [pyftpdlib, proftpd, sshd, sshd_chroot], ids=named)
def test_a_server_whose_disk_is_full(module: ModuleType, proof: Proof, tmp_path: Path) -> None:
    files = some_files(random.Random(proof.seed))
    own = tmp_path / "server"  # pyftpdlib does not get over a full disk
    own.mkdir()
    with module.start(own) as server:
        assert isinstance(server, DiskServer)
        site = site_of(server, server.options, tmp_path, files)
        folder = server.folder(server.options)
        with small_disk(folder, server.owner, 160 * KIB):
            done, seconds = migrated(site, UNANSWERED)
            lies = told_wrongly(server, server.options, site, files)
            enlarge(folder)
            again = site.migrate("--no-thumbnails")
            proven(proof, lies, well(server, server.options, files, again))
    assert seconds < UNANSWERED
    ended_clearly(done, frozenset({2, 6}), MUTE.get(server.name, "full|space|room"))


def fill(folder: Path, left: int) -> Path:
    """Leave so many bytes on a disk; what takes the others can be removed again."""
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - left))
    return filler


@dataclass(frozen=True, kw_only=True)
class Disk:
    """An S3 server, where in its folder it keeps all, how much of a disk it leaves free.

    `says` is what it answers when the disk is full, `bound` when a run that hears it has ended.
    """

    start: Callable[[Path], AbstractContextManager[Server]]
    within: str
    spare: int = 0
    says: str = "the store is full"
    bound: float = BOUND


SIZE = 32 * MIB
DISKS = {
    "minio": Disk(start=minio.start, within="drive", spare=SIZE // 100),
    "rclone_s3": Disk(start=rclone_s3.start, within="buckets", says="InternalError", bound=300),
}


def on_a_full_disk(
    name: str, folder: Path, chance: random.Random, defect: str = ""
) -> tuple[Result, float, list[str], list[str]]:
    """Migrate to a disk with little room, then again when there is more.

    Return how the first run ended, after how many seconds, what it lied about, what was not well.
    """
    files = some_files(chance)
    kind = DISKS[name]
    disk = folder / "server" / kind.within
    disk.mkdir(parents=True)
    with small_disk(disk, (0, 0), SIZE), kind.start(disk.parent) as server:
        site = site_of(server, server.options, folder, files)
        filler = fill(disk, kind.spare + 160 * KIB)
        spoilt = Planted(**vars(site), defect=defect) if defect else site
        done, seconds = migrated(spoilt, 300)
        lies = told_wrongly(server, server.options, site, files)
        filler.unlink()
        unwell = well(server, server.options, files, site.migrate("--no-thumbnails"))
    return done, seconds, lies, unwell


@pytest.mark.full
@pytest.mark.parametrize("name", DISKS)
def test_an_s3_server_whose_disk_is_full(name: str, proof: Proof, tmp_path: Path) -> None:
    done, seconds, lies, unwell = on_a_full_disk(name, tmp_path, random.Random(proof.seed))
    proven(proof, lies, unwell)
    assert seconds < DISKS[name].bound
    ended_clearly(done, frozenset({6}), DISKS[name].says)
    tips = [done.report["advice"], *(problem["tip"] for problem in done.report["problems"])]
    assert re.search("make room|overloaded or full|its disk", "".join(tips))


GONE = "there is no such (bucket|container)"
SENT, LISTED = "^PUT .*Img0002", "^GET .*(list-type=2|comp=list)"
MOMENTS = {"while files are sent": (SENT,), "when they are listed": (SENT, LISTED)}
"""Before which request a bucket goes away: the last of these, once the one before it was made."""


def taken_away(
    server: Server, moment: str, folder: Path, chance: random.Random, defect: str = ""
) -> tuple[Result, float, list[str], list[str]]:
    """Migrate to a bucket that goes away meanwhile, then again when there is one of its name."""
    bucket, files = server.new_bucket(), some_files(chance)
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, folder, files)
        once(proxy, MOMENTS[moment], partial(remove, server, bucket))
        spoilt = Planted(**vars(site), defect=defect) if defect else site
        done, seconds = migrated(spoilt)
        make_again(server, bucket)
        lies = told_wrongly(server, bucket, site, files)
        unwell = well(server, bucket, files, site.migrate("--no-thumbnails"))
    return done, seconds, lies, unwell


@pytest.mark.full
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.on("moto", "minio", "rclone_s3", "azurite")
def test_a_bucket_that_goes_away(moment: str, proof: Proof, server: Server, tmp_path: Path) -> None:
    chance = random.Random(proof.seed)
    done, seconds, lies, unwell = taken_away(server, moment, tmp_path, chance)
    proven(proof, lies, unwell)
    assert seconds < BOUND
    ended_clearly(done, frozenset({5}), GONE)


def once(proxy: Proxy, requests: Sequence[str], do: Callable[[], None]) -> None:
    first, *others = requests
    before = partial(once, proxy, others, do) if others else do
    proxy.trouble(Trouble(before=before), matching=first)


def remove(server: Server, options: Options) -> None:
    """Empty a bucket and remove it, though others write to it meanwhile."""
    assert wait_for(lambda: removed(server, options))


def removed(server: Server, options: Options) -> bool:
    with suppress(ClientError, S3Error):  # it is not empty again
        for key in server.keys(options):
            server.delete(options, key)
        delete_bucket(server, options)
        return True
    return False


def delete_bucket(server: Server, options: Options) -> None:
    match server:
        case BotoServer():
            server.s3.delete_bucket(Bucket=options["bucket_name"])
        case MinioServer():
            server.client.remove_bucket(options["bucket_name"])
        case AzuriteServer():
            server.service.delete_container(options["azure_container"])


def make_again(server: Server, options: Options) -> None:
    match server:
        case BotoServer():
            server.s3.create_bucket(Bucket=options["bucket_name"])
        case MinioServer():
            server.client.make_bucket(options["bucket_name"])
        case AzuriteServer():
            server.service.create_container(options["azure_container"])


# The harness itself


@pytest.mark.on("rclone_s3")
def test_the_harness_sees_a_program_that_calls_verified_what_went_away(
    server: Server, tmp_path: Path
) -> None:
    moment = "while files are sent"
    done, _, lies, _ = taken_away(server, moment, tmp_path, random.Random(1), BOASTFUL)
    assert len(lies) > 30
    with pytest.raises(AssertionError):
        ended_clearly(done, frozenset({5}), GONE)


@pytest.mark.full
def test_the_harness_sees_a_program_that_calls_verified_what_found_no_room(
    tmp_path: Path,
) -> None:
    _, _, lies, _ = on_a_full_disk("minio", tmp_path, random.Random(1), FORGIVING)
    assert lies
