"""Harness: two runs that know nothing of each other on one bucket claim only what is there."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.proof.figures import Proof, Tally
from tests.proof.kills import Case, ground, side_by_side
from tests.servers.base import Server

pytestmark = pytest.mark.on("rclone_s3")


def test_two_runs_with_folders_of_their_own_on_one_bucket(
    server: Server, proof: Proof, tmp_path: Path
) -> None:
    prepared = ground(server, tmp_path, proof.size(2000, 300), proof.seed)
    tally, draw = Tally(), Random(proof.seed)
    for number in range(proof.size(10, 1)):
        gap = draw.uniform(0, prepared.undisturbed.seconds / 2)
        tally.add(side_by_side(prepared, number, gap))
    proof.holds("two runs on one bucket", tally)


def spoil(case: Case) -> None:
    max(case.trial.store.folder.rglob("*.jpg")).write_bytes(b"other")


def test_the_harness_sees_an_object_that_both_runs_claim_and_that_is_another(
    server: Server, tmp_path: Path
) -> None:
    (told,) = side_by_side(ground(server, tmp_path, 40, 1), "spoilt", between=spoil).missed
    assert told.count("1 are called verified and are not there") == 2
