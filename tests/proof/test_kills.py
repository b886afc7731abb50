"""A migration may be killed at any moment: the same command ends as if nothing had happened."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof.figures import Proof
from tests.proof.kills import Ground, blows, go_through_all, ground, interruptions
from tests.servers.base import Server

pytestmark = [pytest.mark.on("rclone_s3"), pytest.mark.xdist_group("kills")]


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
    drawn = blows(proof.seed, prepared.undisturbed.seconds, proof.size(300, 8))
    tally, fell = go_through_all(prepared, drawn)
    proof.says(f"kills {fell}")
    proof.holds("kill anywhere", tally)


def test_an_interrupted_run_says_so_and_the_next_ends_as_an_undisturbed_one(
    prepared: Ground, proof: Proof
) -> None:
    drawn = interruptions(proof.seed, prepared.undisturbed.seconds, proof.size(60, 3))
    tally, fell = go_through_all(prepared, drawn)
    proof.says(f"signals {fell}")
    proof.holds("interrupt anywhere", tally)
