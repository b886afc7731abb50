"""Harness: objects that change between their copy and their proof are named by that same run."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.proof.figures import Proof, Tally
from tests.proof.tamper import make_files
from tests.proof.wrong_judge import FORGIVING, SUSPICIOUS, Planted
from tests.servers.base import Headers, Options, Server
from tests.servers.dropbox import DropboxServer
from tests.servers.dropbox_account import Entry
from tests.servers.ftp import FtpServer
from tests.servers.trouble import Through, Trouble, flipped, flipping, unchanged
from tests.site import Result, Site

TAMPERED, SOUND = "tampered on the way", "sound beside these"
HTTP = ("moto", "rclone_s3", "minio", "azurite")
FTP = ("pyftpdlib", "proftpd")
SHARE = 3
KEPT = Headers(content_type="image/jpeg")


def wrong_in(server: Server, options: Options, files: Mapping[str, bytes]) -> set[str]:
    """Return the files whose object is not there or has other bytes."""
    found = {}
    for key in server.keys(options):
        name = key
        while name and name not in files:
            name = name.partition("/")[2]
        found[name] = server.peek(options, key).data
    return {name for name, data in files.items() if found.get(name) != data}


def told(proof: Proof, done: Result, files: Mapping[str, bytes], wrong: set[str]) -> None:
    tampered, sound = judge(done, files, wrong)
    proof.holds(TAMPERED, tampered)
    proof.holds(SOUND, sound)
    assert done.code in {6, 7}, done.out[-2000:]


def judge(done: Result, files: Mapping[str, bytes], wrong: set[str]) -> tuple[Tally, Tally]:
    """Hold the report against the store: it blames what is wrong there, and nothing else."""
    blamed = done.reasons()
    missed = sorted(wrong - blamed.keys())
    alarms = [f"{name}: {reason}" for name, reason in blamed.items() if name not in wrong]
    return (
        Tally(cases=len(wrong), missed=missed),
        Tally(cases=len(files) - len(wrong), false_alarms=alarms),
    )


def site_of(server: Server, options: Options, folder: Path, files: Mapping[str, bytes]) -> Site:
    site = Site.on(server, options, folder)
    for name, data in files.items():
        site.add(name, data)
    return site


def drawn(proof: Proof, server: Server) -> tuple[random.Random, dict[str, bytes], list[str]]:
    """Return the files, and those of them that shall not arrive as they are."""
    chance = random.Random(f"{proof.seed} on the way {server.name}")
    files = make_files(chance, proof.size(600, 60))
    return chance, files, chance.sample(sorted(files), len(files) // SHARE)


def sending(name: str) -> str:
    """Match the requests that have the file's bytes."""
    return rf"^PUT .*{re.escape(name.rpartition('/')[2])}(\?|$)"


def storing(server: Server, name: str) -> str:
    """Match the last request about the object before rclone leaves it."""
    method = "HEAD" if server.family == "azure" else "PUT"
    return rf"^{method} .*{re.escape(name.rpartition('/')[2])}(\?|$)"


@pytest.mark.on(*HTTP)
def test_an_object_that_changes_as_soon_as_it_is_stored_is_named(
    proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    chance, files, bad = drawn(proof, server)
    with server.proxied(bucket) as (options, proxy):
        for name in bad:
            put = partial(server.put, bucket, name, flipped(files[name], chance), **KEPT)
            proxy.trouble(Trouble(after=put), matching=storing(server, name))
        done = site_of(server, options, tmp_path, files).migrate("--no-thumbnails")
    wrong = wrong_in(server, bucket, files)
    assert wrong == set(bad)
    told(proof, done, files, wrong)


@pytest.mark.full
@pytest.mark.on(*HTTP)
def test_a_body_that_is_corrupted_on_its_way_is_sent_again_or_named(
    proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    chance, files, bad = drawn(proof, server)
    with server.proxied(bucket) as (options, proxy):
        for number, name in enumerate(bad):
            often = 1 if number else 100
            trouble = Trouble(up=partial(flipping, chance))
            proxy.trouble(trouble, matching=sending(name), times=often)
        done = site_of(server, options, tmp_path, files).migrate("--no-thumbnails")
    wrong = wrong_in(server, bucket, files)
    assert wrong
    told(proof, done, files, wrong)


@pytest.mark.on("dropbox")
def test_an_object_that_changes_in_dropbox_as_soon_as_it_is_stored_is_named(
    proof: Proof,
    server: Server,
    bucket: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(server, DropboxServer)
    chance, files, bad = drawn(proof, server)
    account = server.account(bucket)
    slots = {f"/{name}".lower(): name for name in bad}
    store = type(account.entries).__setitem__

    class Spoiled(dict[str, Entry]):
        """Entries of which some are spoiled as they come."""

        def __setitem__(self, slot: str, entry: Entry) -> None:
            if slot in slots and entry.data:
                data = flipped(entry.data, chance)
                entry = Entry(path=entry.path, data=data, modified=entry.modified)
            store(self, slot, entry)

    monkeypatch.setattr(account, "entries", Spoiled())
    done = site_of(server, bucket, tmp_path, files).migrate("--no-thumbnails")
    wrong = wrong_in(server, bucket, files)
    assert wrong == set(bad)
    told(proof, done, files, wrong)


@pytest.mark.on(*FTP)
def test_a_file_that_is_corrupted_on_its_way_by_ftp_is_named(
    proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    assert isinstance(server, FtpServer)
    chance, files, _ = drawn(proof, server)

    def some_are_flipped() -> Through:
        return unchanged if chance.randrange(SHARE) else flipping(chance)

    with server.relayed(bucket) as (options, relay):
        relay.data_up = some_are_flipped
        done = site_of(server, options, tmp_path, files).migrate("--no-thumbnails")
    wrong = wrong_in(server, bucket, files)
    assert wrong
    told(proof, done, files, wrong)


# The harness itself


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize(("defect", "sees"), [(FORGIVING, "missed"), (SUSPICIOUS, "false_alarms")])
def test_the_harness_sees_a_program_that_judges_wrongly(
    defect: str, sees: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    chance = random.Random(1)
    files = make_files(chance, 24)
    bad = chance.sample(sorted(files), len(files) // SHARE)
    with server.proxied(bucket) as (options, proxy):
        for name in bad:
            put = partial(server.put, bucket, name, flipped(files[name], chance), **KEPT)
            proxy.trouble(Trouble(after=put), matching=storing(server, name))
        site = site_of(server, options, tmp_path, files)
        done = Planted(**vars(site), defect=defect).migrate("--no-thumbnails")
    assert wrong_in(server, bucket, files) == set(bad)
    tampered, sound = judge(done, files, set(bad))
    assert {"missed": bool(tampered.missed), "false_alarms": bool(sound.false_alarms)} == {
        "missed": sees == "missed",
        "false_alarms": sees == "false_alarms",
    }
