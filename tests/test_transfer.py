"""Shards under way: what one of them waits for is not waited for by the others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator import transfer
from orchestrator.ledger import Row
from orchestrator.shard import Shard
from orchestrator.transfer import AT_ONCE, Threads
from orchestrator.worker import Done, Sent
from tests.conformance.observe import wait_for
from tests.servers.base import Options, Server
from tests.servers.trouble import Trouble
from tests.site import Site

FILES = 2_400  # more shards than are sent at once
EVER = 1_000_000


@pytest.mark.on("rclone_s3")
def test_what_is_read_back_slowly_does_not_keep_the_others_from_being_sent(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    """Where all is read back, receiving takes longer than sending."""
    in_time: list[bool] = []
    with server.proxied(bucket) as (options, proxy):
        site = Site.on(server, options, tmp_path)
        for number in range(FILES):
            site.add(f"{number:04}.txt", f"{number}".encode())

        def until_all_are_sent() -> None:
            in_time.append(wait_for(lambda: len(proxy.writes) >= FILES, 20))

        proxy.trouble(Trouble(before=until_all_are_sent), matching=r"^GET .*\.txt", times=EVER)
        done = site.migrate("--no-thumbnails", "--seed", "1")
    assert done.states() == {"verified": FILES}
    assert len(in_time) > 2 * AT_ONCE
    assert all(in_time)


def test_no_more_is_sent_than_may_wait_in_memory_for_its_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Shard] = []
    may_end = threading.Event()
    most, shards = 20, 100

    def send(_: Any, shard: Shard) -> Sent:
        sent.append(shard)
        return Sent(shard=shard, hashes={}, wrong={})

    def prove(_: Any, __: Sent) -> Done:
        may_end.wait(30)
        return Done(results=(), pictures=())

    monkeypatch.setattr(transfer, "UNDER_WAY", most)
    monkeypatch.setattr(transfer, "TICK", 0.01)
    monkeypatch.setattr(transfer, "send", send)
    monkeypatch.setattr(transfer, "prove", prove)
    route: Any = None
    with Threads(route=route) as crew:
        results = crew.results(shard() for _ in range(shards))
        assert wait_for(lambda: next(results) is None and len(sent) >= most)
        assert [next(results) for _ in range(20)] == [None] * 20
        assert len(sent) == most
        may_end.set()
        assert sum(done is not None for done in results) == shards


def shard() -> Shard:
    rows = (Row._make([""] * len(Row._fields)),)
    return Shard(rows=rows, uploads={}, after="", sampled=frozenset(), pictured=frozenset())
