"""Run folders: the last one is found, whatever the clock did, and whatever a power cut left."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.site import Site

CLASS = "django.core.files.storage.FileSystemStorage"
LEDGER = "ledger.sqlite"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    store = tmp_path / "store"
    store.mkdir()
    made = Site(folder=tmp_path, options={"location": str(store)}, storage_class=CLASS)
    made.write_env()
    for number in range(40):
        made.add(f"{number}.jpg", b"%d" % number * 100)
    return made


def ledgers(site: Site) -> list[Path]:
    return sorted(site.runs.glob(f"2*/{LEDGER}"))


@pytest.mark.parametrize("end", [0.0, 0.3, 0.5, 0.9])
def test_a_ledger_that_was_cut_off_is_left_aside_and_named(site: Site, end: float) -> None:
    site.migrate()
    (ledger,) = ledgers(site)
    os.truncate(ledger, int(ledger.stat().st_size * end))
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 40}), done.err
    named = [note for note in done.report["notes"] if ledger.parent.name in note]
    assert len(named) == (1 if end else 0)
    again = site.migrate()
    assert not [note for note in again.report["notes"] if ledger.parent.name in note]


def test_a_ledger_whose_facts_are_of_another_kind_is_left_aside_and_named(site: Site) -> None:
    site.migrate()
    (ledger,) = ledgers(site)
    with closing(sqlite3.connect(ledger)) as opened, opened:
        opened.execute("UPDATE fact SET value = '[1]' WHERE name = 'summary'")
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 40}), done.err
    assert any(ledger.parent.name in note for note in done.report["notes"])


def damage_an_index(ledger: Path) -> None:
    """Flip a bit that only a thorough check sees, and that an update stumbles over."""
    whole = ledger.read_bytes()
    for place in range(4096, len(whole), 64):
        data = bytearray(whole)
        data[place] ^= 0x40
        ledger.write_bytes(data)
        with closing(sqlite3.connect(ledger, isolation_level=None)) as opened:
            try:
                if opened.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    continue
                opened.execute("BEGIN")
                opened.execute("UPDATE entry SET state = 'present', evidence = NULL")
                opened.execute("UPDATE entry SET state = 'verified'")
            except sqlite3.OperationalError:
                continue
            except sqlite3.DatabaseError:
                return
            finally:
                if opened.in_transaction:
                    opened.execute("ROLLBACK")
    raise AssertionError("no place was found")


def test_damage_that_is_met_in_the_middle_is_told_and_left_aside_by_the_next_run(
    site: Site,
) -> None:
    site.migrate()
    (ledger,) = ledgers(site)
    damage_an_index(ledger)
    done = site.run("check")
    assert done.code == 2
    assert "cannot be used" in done.out
    assert "leaves a damaged ledger aside" in done.out
    again = site.migrate()
    assert again.code == 0, again.out + again.err
    assert again.states() == {"verified": 40}
    assert any("damaged" in note for note in again.report["notes"])


def test_the_ledger_before_a_damaged_one_is_taken(site: Site) -> None:
    site.migrate()
    site.migrate()
    first, second = ledgers(site)
    os.truncate(second, second.stat().st_size // 2)
    site.add("0.jpg", b"edited since")
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 40}), done.reasons()
    assert any(second.parent.name in note for note in done.report["notes"])
    assert not any(first.parent.name in note for note in done.report["notes"])


def test_the_last_run_is_found_where_the_clock_went_back(site: Site) -> None:
    site.migrate()
    (ledger,) = ledgers(site)
    ledger.parent.rename(site.runs / "29990101T000000.000000Z-0000")
    for data in (b"edited", b"edited again"):
        site.add("0.jpg", data)
        done = site.migrate()
        assert (done.code, done.states()) == (0, {"verified": 40}), done.reasons()
    assert [path.parent.name[:4] for path in ledgers(site)] == ["2999"] * 3


def test_a_run_folder_from_the_end_of_time_ends_no_run(site: Site) -> None:
    (site.runs / "99991231T235959.999999Z-0000").mkdir(parents=True)
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 40}), done.err


def test_an_object_that_was_replaced_in_secret_is_not_taken_for_the_proven_one(site: Site) -> None:
    """Same folder, inode, size and time: only ctime, which nobody can set, tells it."""
    site.migrate()
    path = Path(site.options["location"], "39.jpg")
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = site.migrate("--sample=50%")
    assert (done.code, done.states()) == (7, {"verified": 39, "conflict": 1})


def test_a_store_that_refuses_costs_no_proof(site: Site) -> None:
    """The source is walked while the store is asked; what was walked then is not taken in."""
    site.migrate()
    store = Path(site.options["location"])
    store.rename(store.with_name("away"))
    refused = site.migrate()
    assert refused.code == 5, refused.err
    with closing(sqlite3.connect(ledgers(site)[-1])) as ledger:
        found = ledger.execute("SELECT state, count(evidence) FROM entry GROUP BY state").fetchall()
    assert found == [("verified", 40)]
