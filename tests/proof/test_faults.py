"""Harness: a store is tampered with in every way, and each object is named, and no sound one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proof.figures import Proof, Tally
from tests.proof.tamper import (
    CACHING,
    EARLIER,
    Fault,
    Store,
    content,
    judge,
    kinds,
    make_files,
)
from tests.proof.wrong_judge import BLIND, FORGIVING, SUSPICIOUS, Planted
from tests.servers.base import Server
from tests.site import Result, Site

SERVERS = (
    *("moto", "rclone_s3", "minio", "azurite", "dropbox"),
    *("sshd", "sshd_chroot", "pyftpdlib", "proftpd"),
)
TAMPERED, SOUND = "tampered objects", "sound objects"
QUICK = ("--no-thumbnails", "--sample", "50%")
EACH = 60  # files that are just enough for one of each kind of fault
MANY, STALE, ROUNDS = 1800, 80, 2
SHARE = 3
"""One in so many objects is tampered with."""


def store_on(server: Server, chance: random.Random, count: int, earlier: int = 0) -> Store:
    options = {**server.new_bucket(), **CACHING.get(server.family, {})}
    files = make_files(chance, count)
    drawn = chance.sample(sorted(files), earlier)
    return Store(
        server=server,
        options=options,
        files=files,
        chance=chance,
        earlier={name: content(chance) for name in drawn},
    )


def migrated(store: Store, folder: Path) -> Site:
    """Migrate the store's files; of some, an earlier version too."""
    site = Site.on(store.server, store.options, folder)
    for name, data in {**store.files, **store.earlier}.items():
        site.add(name, data)
    done = site.migrate(*QUICK)
    assert (done.code, done.states()) == (0, {"verified": len(store.files)}), done.out[-2000:]
    store.find_keys()
    if store.earlier:
        for name in store.earlier:
            site.add(name, store.files[name])
        done = site.migrate(*QUICK)
        assert (done.code, done.states()) == (0, {"verified": len(store.files)}), done.out[-2000:]
    return site


def tampered(store: Store) -> list[Fault]:
    """Tamper with a third of the objects, those with an earlier version among them."""
    others = sorted(store.files.keys() - store.earlier.keys())
    names = store.chance.sample(others, len(store.files) // SHARE - len(store.earlier))
    return [
        *store.tamper(names[: len(names) // 2 * 2], kinds(store.server)),
        *store.tamper(sorted(store.earlier), [EARLIER]),
    ]


def told(proof: Proof, store: Store, result: Result, faults: list[Fault]) -> None:
    """Hold what a command reports against what was done to the store."""
    tally = judge(result, faults, store.files.keys())
    sound = len(store.files) - tally.cases
    proof.holds(TAMPERED, replace(tally, false_alarms=[]))
    proof.holds(SOUND, Tally(cases=sound, false_alarms=tally.false_alarms))
    assert result.code == 7, result.out[-2000:]
    assert result.states() == {"verified": sound, "failed": tally.cases}


@pytest.mark.on(*SERVERS)
def test_the_read_back_and_the_check_name_each_object_that_was_tampered_with(
    proof: Proof, server: Server, tmp_path: Path
) -> None:
    chance = random.Random(f"{proof.seed} {server.name}")
    store = store_on(server, chance, proof.size(360, EACH))
    site = migrated(store, tmp_path)
    faults = tampered(store)
    told(proof, store, site.run("verify", "--no-thumbnails", "--sample", "all"), faults)
    told(proof, store, site.run("check"), faults)


@pytest.mark.full
@pytest.mark.on(*(name for name in SERVERS if name != "moto"))  # it is slow with many objects
def test_check_names_each_of_very_many_objects_that_were_tampered_with(
    proof: Proof, server: Server, tmp_path: Path
) -> None:
    chance = random.Random(f"{proof.seed} many {server.name}")
    store = store_on(server, chance, MANY, earlier=STALE)
    site = migrated(store, tmp_path)
    for _ in range(ROUNDS):
        faults = tampered(store)
        result = site.run("check")
        told(proof, store, result, faults)
        assert result.report["extra"] == sum(fault.kind.extra for fault in faults)
        store.repair()
    repaired = site.run("check")
    assert (repaired.code, repaired.states()) == (0, {"verified": len(store.files)})


# The harness itself


def on_small_store(server: Server, folder: Path) -> tuple[Store, Site]:
    store = store_on(server, random.Random(1), 36)
    return store, migrated(store, folder)


@pytest.mark.on("folder")
@pytest.mark.parametrize(("defect", "sees"), [(FORGIVING, "missed"), (SUSPICIOUS, "false_alarms")])
def test_the_harness_sees_a_program_that_judges_wrongly(
    defect: str, sees: str, server: Server, tmp_path: Path
) -> None:
    store, site = on_small_store(server, tmp_path)
    faults = tampered(store)
    wrong = Planted(**vars(site), defect=defect)
    for args in (["verify", "--sample", "all"], ["check"]):
        tally = judge(wrong.run(*args), faults, store.files.keys())
        assert {n for n in ("missed", "false_alarms") if getattr(tally, n)} == {sees}, args


@pytest.mark.on("folder")
def test_the_harness_sees_a_fault_that_was_not_done_and_one_that_it_was_not_told_of(
    server: Server, tmp_path: Path
) -> None:
    store, site = on_small_store(server, tmp_path)
    told_of = tampered(store)
    undone, untold = told_of[0], told_of.pop()
    store.put(undone.name, store.files[undone.name])
    tally = judge(site.run("check"), told_of, store.files.keys())
    assert tally.missed == [f"{undone.kind.title}: {undone.name}: not named"]
    assert [line.partition(":")[0] for line in tally.false_alarms] == [untold.name]


@pytest.mark.on("moto")
def test_the_harness_sees_a_program_that_asks_for_no_acl(server: Server, tmp_path: Path) -> None:
    store = store_on(server, random.Random(1), EACH)
    blind = Planted(**vars(migrated(store, tmp_path)), defect=BLIND)
    faults = tampered(store)
    tally = judge(blind.run("verify", "--sample", "all"), faults, store.files.keys())
    kinds_missed = {line.partition(":")[0] for line in tally.missed}
    assert kinds_missed == {"ACL made public-read", "ACL made private"}
    assert tally.false_alarms == []
