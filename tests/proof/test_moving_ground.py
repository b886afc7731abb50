"""Source and store may move while a migration is at work: it says nothing that is not true."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.proof.figures import Proof, Tally
from tests.proof.moving import COMMAND, after_moving, case, go_through, settled
from tests.servers.base import Server

pytestmark = pytest.mark.on("rclone_s3", "folder", "sshd")


def test_what_moves_during_a_run_is_told_and_the_next_run_settles_it(
    server: Server, proof: Proof, tmp_path: Path
) -> None:
    tally = Tally()
    for number in range(proof.size(8, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        seed = proof.seed + number
        tally.add(go_through(case(server, folder, seed, proof.size(150, 60)), seed))
    proof.holds("moving ground", tally)


@pytest.mark.on("folder")
def test_the_harness_sees_what_is_not_true(server: Server, tmp_path: Path) -> None:
    """A wrong object under a verified file, one that nobody accounts for, one in conflict."""
    one = case(server, tmp_path, seed=1, files=12)
    with one.trial.cleared():
        run = one.trial.go(*COMMAND)
        assert run.code == 0
        assert [*after_moving(one, run), *settled(one, run)] == []
        names = sorted(one.source.versions)
        one.trial.put(names[0], b"other")
        (first,) = after_moving(one, run)
        assert "another version is in the store" in first
        (one.source.folder / "late.jpg").write_bytes(b"nobody saw it")
        ledger = sqlite3.connect(one.trial.newest("ledger.sqlite"))
        with closing(ledger), ledger:
            ledger.execute("UPDATE entry SET state = 'conflict' WHERE name = ?", names[1:2])
        said = "\n".join(settled(one, run))
        for wrong in (f"verified, and differs: {names[0]}", "not in the ledger: late.jpg"):
            assert wrong in said
        assert f"conflict, : {names[1]}" in said
