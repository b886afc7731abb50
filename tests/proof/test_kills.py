"""A migration may be killed at any moment: the same command ends as if nothing had happened."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from tests.proof import power
from tests.proof.figures import Proof, Tally
from tests.proof.kills import (
    Blow,
    Case,
    Ground,
    both_at_once,
    go_through,
    go_through_all,
    ground,
    interruptions,
    kills,
    kills_in_rows,
)
from tests.proof.power import cuts
from tests.servers.base import Server

pytestmark = pytest.mark.on("rclone_s3", "folder")


@pytest.fixture(scope="session")
def grounds() -> dict[str, Ground]:
    return {}


@pytest.fixture
def prepared(
    server: Server,
    proof: Proof,
    grounds: dict[str, Ground],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ground:
    if server.name not in grounds:
        folder: Path = tmp_path_factory.mktemp("kills")
        grounds[server.name] = ground(server, folder, proof.size(2000, 300), proof.seed)
    return grounds[server.name]


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so would our children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_killed_anywhere_ends_as_an_undisturbed_one(prepared: Ground, proof: Proof) -> None:
    seconds = prepared.undisturbed.seconds
    if proof.full:
        number = 330 if prepared.server.name == "rclone_s3" else 60
        drawn = kills_in_rows(proof.seed, seconds, number, row=6)
    else:
        drawn = kills(proof.seed, seconds, 4)
    tally, fell = go_through_all(prepared, drawn)
    proof.says(f"kills {fell}")
    proof.holds("kill anywhere", tally)


def test_an_interrupted_run_says_so_and_the_next_ends_as_an_undisturbed_one(
    prepared: Ground, proof: Proof
) -> None:
    drawn = interruptions(
        proof.seed,
        prepared.undisturbed.seconds,
        proof.size(30, 1 if prepared.server.name == "rclone_s3" else 2),
    )
    tally, fell = go_through_all(prepared, drawn)
    proof.says(f"signals {fell}")
    proof.holds("interrupt anywhere", tally)


def test_a_ledger_that_a_power_cut_left_never_leads_to_a_false_verified(
    prepared: Ground, proof: Proof
) -> None:
    tally = Tally()
    for number, cut in enumerate(cuts(proof.seed, prepared.undisturbed.seconds, proof.size(60, 2))):
        tally.add(power.go_through(prepared, number, cut))
    proof.holds("power cut", tally)


def test_two_runs_at_once_are_one_run_and_one_refusal(prepared: Ground, proof: Proof) -> None:
    tally = Tally()
    draw = Random(proof.seed)
    longest = min(1.0, prepared.undisturbed.seconds / 4)  # the first is at work when both start
    for number in range(proof.size(10, 1)):
        tally.add(both_at_once(prepared, number, draw.uniform(0, longest)))
    proof.holds("two runs at once", tally)


def spoil_before(case: Case) -> None:
    """Leave a secret and a process, and write an object again that is there."""
    folder = case.trial.site.folder
    (folder / "tmp" / "left").write_text(f"password={case.trial.site.other}")
    subprocess.run("sleep 60 &", shell=True, cwd=folder, check=True)
    key = next(key for key in case.left[-1])
    path = case.trial.store.folder / key
    path.rename(path.with_name("old"))
    path.write_bytes(path.with_name("old").read_bytes())
    path.with_name("old").unlink()


def spoil_after(case: Case) -> None:
    """Change an object, and what the ledger says of a file."""
    max(case.trial.store.folder.rglob("*.jpg")).write_bytes(b"other")
    with closing(sqlite3.connect(case.trial.newest("ledger.sqlite"))) as ledger, ledger:
        ledger.execute("UPDATE entry SET evidence = 'size' WHERE name LIKE '%/1.%'")


def test_the_harness_sees_what_goes_wrong(prepared: Ground) -> None:
    blow = Blow(moment=0, objects=100, patient=True)
    case = go_through(
        prepared.case("spoilt", [blow]), prepared.undisturbed, spoil_before, spoil_after
    )
    said = case.told()
    for wrong in ("a secret lies", "are left", "sent again", "the store dif", "the ledger dif"):
        assert wrong in said
    assert "1 are called verified and are not there" in said
    assert len(case.wrong) == 6, said
