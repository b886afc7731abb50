"""One shard: what is proven at once, what is left to the whole listing, how much is in flight."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compare import MOVED
from orchestrator.envfile import Settings
from orchestrator.errors import StuckError
from orchestrator.gate import Call, Flight
from orchestrator.inventory import Rules, walk
from orchestrator.job import Route, Wishes
from orchestrator.job import route as make_route
from orchestrator.ledger import Ledger, Row, State
from orchestrator.plan import address
from orchestrator.shard import Shard
from orchestrator.storage import Upload, load
from orchestrator.worker import Done, in_flight, work
from tests.conformance.observe import Held, wait_for
from tests.servers.base import Options, Server

NAMES = ("a/1.jpg", "a/2.jpg", "b.txt", "c/d/e")
MIB = 1 << 20


@contextmanager
def shard_on(server: Server, options: Options, folder: Path) -> Iterator[tuple[Route, Shard]]:
    """Yield the way to a server, and all files of a small source as one shard."""
    source, work_folder = folder / "media", folder / "run" / "work"
    work_folder.mkdir(parents=True)
    for name in NAMES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    settings = Settings(
        storage_class=server.storage_class, options=options, variables={}, disputed={}, source=None
    )
    target = load(settings)
    route = make_route(target, source, work_folder, Wishes(attempts=1), lambda _: None)
    ledger = Ledger(folder / "ledger.sqlite")
    ledger.walk(walk(source, Rules()))
    uploads = address(target, ledger)
    rows = tuple(ledger.rows())
    try:
        yield route, shard(rows, uploads)
    finally:
        route.close()
        ledger.close()


def shard(rows: tuple[Row, ...], uploads: dict[int, Upload]) -> Shard:
    nothing = frozenset[str]()
    return Shard(rows=rows, uploads=uploads, after="", sampled=nothing, pictured=nothing)


def states(done: Done) -> dict[str, State]:
    return {result.name: result.state for result in done.results}


@pytest.mark.on("moto", "minio", "rclone_s3")
def test_what_the_store_lists_with_its_hash_is_proven_at_once(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with shard_on(server, bucket, tmp_path) as (route, found):
        done = work(route, replace(found, sampled=frozenset({"a/1.jpg"})))
    assert states(done) == dict.fromkeys(NAMES, State.VERIFIED)
    assert {result.evidence for result in done.results} == {"hash"}
    assert {r.name: r.readback for r in done.results if r.readback} == {"a/1.jpg": "ok"}
    assert server.keys(bucket) == sorted(NAMES)


@pytest.mark.on("folder")
def test_what_has_no_hash_is_left_to_the_check(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with shard_on(server, bucket, tmp_path) as (route, found):
        assert states(work(route, found)) == dict.fromkeys(NAMES, State.PRESENT)


@pytest.mark.on("moto")
def test_what_the_keys_listing_does_not_show_is_left_to_the_whole_listing(
    server: Server, bucket: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every server sorts as S3 does, or knows where a listing shall begin."""
    with shard_on(server, bucket, tmp_path) as (route, found):
        seen = route.target.client.among
        monkeypatch.setattr(
            route.target.client,
            "among",
            lambda *where: [s for s in seen(*where) or () if s.key != "b.txt"],
        )
        done = work(route, replace(found, sampled=frozenset({"a/1.jpg", "b.txt"})))
    assert states(done) == {**dict.fromkeys(NAMES, State.VERIFIED), "b.txt": State.PRESENT}
    assert {r.name: r.readback for r in done.results if r.readback} == {"a/1.jpg": "ok"}


@pytest.mark.on("moto")
def test_a_file_that_is_not_what_the_plan_saw_is_not_proven(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with shard_on(server, bucket, tmp_path) as (route, found):
        (route.source / "b.txt").write_text("other")
        (route.source / "c/d/e").unlink()
        done = work(route, found)
    reasons = {r.name: r.reason for r in done.results if r.state is State.FAILED}
    assert reasons == {"b.txt": MOVED, "c/d/e": MOVED}


@pytest.mark.on("moto")
def test_a_shard_may_be_done_again(server: Server, bucket: Options, tmp_path: Path) -> None:
    with shard_on(server, bucket, tmp_path) as (route, found):
        first, second = work(route, found), work(route, found)
    assert first == second


@pytest.mark.on("moto")
def test_a_list_goes_out_in_pieces_and_only_what_was_not_sent_goes_again(
    server: Server, bucket: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.ROUNDS", 1)
    monkeypatch.setattr("orchestrator.job.PAUSES", (0.01,))
    sent: list[list[str]] = []
    with shard_on(server, bucket, tmp_path) as (route, found):
        copy = route.rclone.copy_names

        def watched(names: list[str], *rest: Any) -> Call:
            sent.append(sorted(names))
            missing = "a/1.jpg" in names and sent.count(sorted(names)) == 1
            path, away = route.source / "a/1.jpg", tmp_path / "away"
            if missing:
                path.rename(away)
            call = copy(names, *rest)
            if missing:
                away.rename(path)
            return call

        monkeypatch.setattr(route.rclone, "copy_names", watched)
        one = replace(route, wishes=replace(route.wishes, transfers=1, attempts=2))
        done = work(one, found)
    assert sorted(sent) == sorted([[name] for name in [*NAMES, "a/1.jpg"]])
    assert {result.reason for result in done.results} <= {"", MOVED}  # it was away for a moment


@pytest.mark.on("moto")
def test_files_in_flight_fit_into_the_memory(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with shard_on(server, bucket, tmp_path) as (route, found):
        row = found.rows[0]

        def fit(size: int, memory: int) -> int:
            wishes = replace(route.wishes, memory=memory * MIB)
            rows = [row._replace(size=size)] * 10
            return in_flight(replace(route, wishes=wishes), rows, parts=size >= 8 * MIB).start

        assert fit(30_000, 512) == 16
        assert 8 <= fit(4 * MIB, 512) <= 16
        assert fit(4 * MIB, 32) * 4 <= 32
        assert fit(100 * MIB, 512) * 32 <= 256
        assert fit(100 * MIB, 32) == 1
        wished = replace(route, wishes=replace(route.wishes, transfers=3))
        assert in_flight(wished, [row], parts=False) == Flight(start=3, most=3)


@pytest.mark.on("moto")
def test_a_store_that_takes_and_never_answers_does_not_hold_a_run_for_ever(
    server: Server, bucket: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.daemon.STUCK", 2.0)
    attempts = Wishes(attempts=3)  # of which one is enough
    with server.proxied(bucket) as (options, proxy):
        held = Held(proxy, monkeypatch, "PUT /")
        with (
            shard_on(server, options, tmp_path) as (route, found),
            pytest.raises(StuckError, match="nothing more has reached the store for 2 s"),
        ):
            work(replace(route, wishes=attempts), found)
        held.release()


@pytest.mark.on("moto")
def test_files_of_different_headers_do_not_wait_for_each_other(
    server: Server, bucket: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.proxied(bucket) as (options, proxy):
        held = Held(proxy, monkeypatch, "PUT /")
        with (
            shard_on(server, options, tmp_path) as (route, found),
            ThreadPoolExecutor() as pool,
        ):
            assert len({row.batch for row in found.rows}) > 1
            done = pool.submit(work, route, found)
            assert wait_for(lambda: held.waiting == len(NAMES), 10)
            held.release()
            assert states(done.result()) == dict.fromkeys(NAMES, State.VERIFIED)
