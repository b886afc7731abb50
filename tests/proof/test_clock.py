"""A clock may be wrong, and may be set while the program runs: files and runs are told apart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.conformance.observe import running
from tests.proof.clock import DAY, HOUR, YEAR, Clock, drawn, early, go_through, site, until
from tests.proof.figures import Proof, Tally
from tests.servers.base import MissingServerError, Options, Server
from tests.site import Result, Site

HARNESS = "clock steps"


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    folder = tmp_path / "clock"
    folder.mkdir()
    try:
        return Clock.made(folder)
    except MissingServerError as missing:
        if "all" in os.environ.get("REQUIRED_SERVERS", "").split(","):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.mark.on("folder", "sshd")
def test_a_clock_that_is_set_changes_nothing(
    server: Server, clock: Clock, proof: Proof, tmp_path: Path
) -> None:
    tally = Tally()
    for number in range(proof.size(6, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = site(server, clock, folder, proof.size(100, 30))
        seed = proof.seed + number
        steps = drawn(Random(seed), proof.size(6, 3)) if number else early()
        tally.add(go_through(trial, clock, seed, steps))
    proof.holds(HARNESS, tally)


DEFECTS = {
    "durations": "import time\ntime.monotonic = time.time\n",
    "order": (
        "from orchestrator import runs\nruns.Path.glob, kept = "
        "lambda self, found: kept(self, found) if 'ledger' in found else [], runs.Path.glob\n"
    ),
}


@pytest.mark.on("folder")
@pytest.mark.parametrize("defect", DEFECTS)
def test_the_harness_sees_what_goes_wrong(
    server: Server, clock: Clock, tmp_path: Path, defect: str
) -> None:
    trial = site(server, clock, tmp_path, 30, DEFECTS[defect])
    said = "; ".join(go_through(trial, clock, 1, [(DAY, HOUR), (0, -YEAR), (0, YEAR)]).missed)
    assert {"durations": "durations of", "order": "is not behind"}[defect] in said


@pytest.mark.on("minio", "rclone_s3")
def test_a_store_that_refuses_our_clock_is_understood(
    server: Server, bucket: Options, clock: Clock, proof: Proof, tmp_path: Path
) -> None:
    """Set right, the same command goes on where it was."""
    tally = Tally()
    for number, step in enumerate((until(0), HOUR, -HOUR, 10 * YEAR, -DAY)[: proof.size(5, 1)]):
        mine = Site.on(server, server.new_bucket(), tmp_path / str(number))
        for file in range(30):
            mine.add(f"{file}.bin", os.urandom(30_000))
        clock.step(step)
        clocked = replace(mine, variables={**mine.variables, **clock.variables})
        tally.cases += 2
        tally.missed += [f"{step:+} s, {w}" for w in refused(clocked.migrate())]
        clock.step(0)
        with running(clocked, "migrate", "--bwlimit=300k") as run:
            run.await_stage("copying")
            clock.step(step)
            code, said = run.end()
        if code not in (0, 5) or "Traceback" in said or (code and "NTP" not in said):
            tally.missed.append(f"{step:+} s in the middle, {code}: {said[-1500:]}")
        done = mine.migrate()
        if done.code or done.states() != {"verified": 30}:
            tally.missed.append(f"{step:+} s, and right again: {done}")
    proof.holds(HARNESS, tally)


def refused(done: Result) -> list[str]:
    said = str(done.report.get("problems"))
    wanted = "clock is wrong" in said and "NTP" in said
    return [] if done.code == 5 and wanted else [f"{done.code}: {done}"]
