"""Source and store may move while a migration is at work: it says nothing that is not true."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof.figures import Proof, Tally
from tests.proof.moving import case, go_through
from tests.servers.base import Server

pytestmark = [pytest.mark.on("rclone_s3", "folder", "sshd"), pytest.mark.xdist_group("moving")]


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
