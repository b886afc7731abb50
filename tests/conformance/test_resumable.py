"""Promise 5: killed at any point, the same command goes on and ends in the same state."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import servers
from tests.conformance.observe import ONE_OF_EACH, Held, key_of, rclones, running, wait_for
from tests.proof.wrong_judge import Planted
from tests.servers.base import Options, Server
from tests.site import Site

MANY = 400
SLOWLY = ("--bwlimit=1M", "--sample=5%")  # 400 files of 4 KiB take about two seconds
STAGES = ("asking", "listing", "comparing", "copying", "checking", "reading back")
SECONDS_TO_DIE = 3.0


def test_there_is_one_of_each_family() -> None:
    kinds = servers.kinds().values()
    assert {kind.family for kind in kinds if kind.name in ONE_OF_EACH} == {k.family for k in kinds}
    assert len(ONE_OF_EACH) == len({kind.family for kind in kinds})


def many(server: Server, options: Options, folder: Path) -> Site:
    site = Site.on(server, options, folder)
    for number in range(MANY):
        site.add(f"{number % 20}/{number}.jpg", b"%d " % number * 1000)
    return site


@pytest.mark.on(*ONE_OF_EACH)
def test_a_run_killed_in_each_stage_ends_as_an_undisturbed_one(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = many(server, bucket, tmp_path)
    for stage in STAGES[:-2]:
        with running(site, "migrate", *SLOWLY) as run:
            run.await_stage(stage)
            run.kill()
    with running(site, "migrate", *SLOWLY) as run:
        run.await_stage("copying")
        assert wait_for(lambda: len(server.keys(bucket)) > MANY / 4)
        run.kill()
    assert len(server.keys(bucket)) < MANY
    for stage in STAGES[-2:]:
        with running(site, "migrate", *SLOWLY) as run:
            run.await_stage(stage)
            run.kill()
    assert wait_for(lambda: not rclones(site), SECONDS_TO_DIE)

    done = site.migrate("--sample=5%")
    assert (done.code, done.states(), done.report["unaccounted"]) == (0, {"verified": MANY}, 0)
    assert len(server.keys(bucket)) == MANY
    for number in range(0, MANY, 25):
        key = key_of(server, bucket, f"{number % 20}/{number}.jpg")
        assert server.peek(bucket, key).data == b"%d " % number * 1000
    site.add("0/0.jpg", b"edited")
    edited = site.migrate("--sample=5%")
    assert (edited.code, edited.states()) == (0, {"verified": MANY}), edited.reasons()
    assert {k: v["files"] for k, v in edited.report["changes"].items()} == {
        "same": MANY - 1,
        "changed": 1,
    }


@pytest.mark.on("s3")
@pytest.mark.parametrize("after", [("PUT /",), ("PUT /", "list-type=2")])  # the proof
def test_no_rclone_outlives_a_run_that_was_killed(
    server: Server,
    bucket: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: Sequence[str],
) -> None:
    """It copies, or waits for the proof, and must end all the same if the store does not answer."""
    with server.proxied(bucket) as (options, proxy):
        site = Site.on(server, options, tmp_path)
        site.add("photo.jpg")
        held = Held(proxy, monkeypatch, *after)
        with running(site, "migrate") as run:
            assert wait_for(lambda: held.waiting)
            assert rclones(site)
            run.kill()
            died = wait_for(lambda: not rclones(site), SECONDS_TO_DIE)
            held.release()
        assert died
        assert wait_for(lambda: not rclones(site))


@pytest.mark.on("s3")
def test_an_interrupted_run_waits_for_no_store(
    server: Server, bucket: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.proxied(bucket) as (options, proxy):
        site = Site.on(server, options, tmp_path)
        site.add("photo.jpg")
        held = Held(proxy, monkeypatch, "PUT /")
        with running(site, "migrate") as run:
            assert wait_for(lambda: held.waiting)
            run.signal(signal.SIGINT)
            code, _ = run.end()
            left = rclones(site)
            held.release()
    assert (code, left) == (130, {})


@pytest.mark.on(*ONE_OF_EACH)
def test_an_interrupted_run_says_how_to_go_on_and_keeps_what_it_knows(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = many(server, bucket, tmp_path)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with running(site, "migrate", *SLOWLY) as run:
            run.await_stage("copying")
            assert wait_for(lambda: rclones(site))
            run.signal(number)
            code_of_run, said = run.end()
            assert code_of_run == code
            assert not rclones(site)
            assert "goes on where it was" in said
        newest = max(site.runs.glob("2*"))
        assert {"ledger.sqlite", "report.json", "report.md"} <= {p.name for p in newest.iterdir()}
        assert not (newest / "work").exists()
    done = site.migrate("--sample=5%")
    assert (done.code, done.states()) == (0, {"verified": MANY}), done.err


@pytest.mark.on(*ONE_OF_EACH)
def test_one_run_at_a_time_and_a_dead_one_holds_nobody_up(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = many(server, bucket, tmp_path)
    with running(site, "migrate", "--bwlimit=100k") as run:
        run.await_stage("copying")
        second = site.migrate()
        assert second.code == 2
        assert "another run is at work" in second.out + second.err
        run.kill()
    assert (site.runs / ".lock").exists()
    assert site.plan().code == 0


KILLED_IN_SAVE = """
import os, signal, sys
from django.core.files.base import File
def chunks(self, chunk_size=None):
    yield self.file.read(3)
    os.kill(os.getpid(), signal.SIGKILL)
File.chunks = chunks
"""


@pytest.mark.on("folder")
@pytest.mark.parametrize(
    ("stored", "ends"), [(None, "verified"), (b"", "verified"), (b"other", "conflict")]
)
def test_what_a_killed_save_left_is_stored_anew_and_what_somebody_else_put_there_is_not(
    stored: bytes | None, ends: str, server: Server, bucket: Options, tmp_path: Path
) -> None:
    """The class writes in place a file whose name rclone would take for another one."""
    name, data = "a\u2401.jpg", b"much longer than what was stored"
    site = Site.on(server, bucket, tmp_path)
    site.add(name, data)
    assert Planted(**vars(site), defect=KILLED_IN_SAVE).migrate().code == -signal.SIGKILL
    place = Path(bucket["location"], name)
    assert place.read_bytes() in (b"", data[:3])
    if stored is not None:
        place.write_bytes(stored)
    done = site.migrate()
    assert done.states() == {ends: 1}, done.reasons()
    assert place.read_bytes() == (data if ends == "verified" else stored)
