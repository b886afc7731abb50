"""How the work is cut: everything once, in order, smaller to the end, within the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.inventory import Entry, Fate, Kind
from orchestrator.ledger import Ledger, Row
from orchestrator.readback import Sample
from orchestrator.shard import (
    MOST_FILES,
    Cut,
    Shard,
    divide,
)
from orchestrator.storage import Upload

NOTHING = Sample(names=frozenset(), drawn=frozenset(), pictured=frozenset(), seed=0)
UPLOADS = {1: Upload(content_type="image/jpeg"), 2: Upload(content_type="text/plain")}

CUT = Cut()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def filled(ledger: Ledger, sizes: list[int]) -> list[Row]:
    entries = (
        Entry(
            name=f"{n:06}",
            kind=Kind.FILE,
            size=size,
            mtime_ns=0,
            ctime_ns=0,
            fate=Fate.CANDIDATE,
        )
        for n, size in enumerate(sizes)
    )
    ledger.walk(entries)
    ledger.execute("UPDATE entry SET key = name, batch = 1 + rowid % 2, state = 'planned'")
    return list(ledger.rows("state = 'planned'"))


def shards(ledger: Ledger, sample: Sample = NOTHING, cut: Cut = CUT) -> list[Shard]:
    return list(divide(ledger, "state = 'planned'", UPLOADS, sample, cut))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(0, 40 << 20), min_size=1, max_size=400))
def test_each_file_is_in_one_shard_and_they_follow_each_other(
    ledger: Ledger, sizes: list[int]
) -> None:
    rows = filled(ledger, sizes)
    found = shards(ledger)
    assert [row for shard in found for row in shard.rows] == rows
    for before, shard in pairwise(found):
        assert shard.after == before.rows[-1].key
    assert found[0].after == ""


def test_shards_become_larger_and_then_smaller_to_the_end(ledger: Ledger) -> None:
    filled(ledger, [1] * 60_000)
    counts = [len(shard.rows) for shard in shards(ledger)]
    largest = counts.index(MOST_FILES)
    assert counts[0] == CUT.files
    assert sorted(counts[:largest]) == counts[:largest]
    assert sorted(counts[largest:], reverse=True) == counts[largest:]
    assert max(counts[-3:]) <= CUT.files


def test_shards_are_larger_where_there_are_many_batches(ledger: Ledger) -> None:
    filled(ledger, [1] * 60_000)
    many = dict.fromkeys(range(50), Upload())
    found = list(divide(ledger, "state = 'planned'", many, NOTHING, CUT))
    assert min(len(shard.rows) for shard in found[:-1]) == CUT.of_each * 50
    assert max(len(shard.rows) for shard in found) == MOST_FILES


def test_the_last_shards_are_as_small_as_is_asked_for(ledger: Ledger) -> None:
    filled(ledger, [1] * 6_000)
    found = shards(ledger, cut=Cut(parts=32, files=16, of_each=8, bytes=1 << 20))
    assert max(len(shard.rows) for shard in found[-10:]) <= 16
    assert max(len(shard.rows) for shard in found) <= 6_000 // 32


def test_a_few_large_files_are_not_one_shard(ledger: Ledger) -> None:
    filled(ledger, [100 << 20] * 10)
    assert [len(shard.rows) for shard in shards(ledger)][-3:] == [1, 1, 1]
    filled(ledger, [1 << 20] * 100)
    last = shards(ledger)[-1]
    assert sum(row.size for row in last.rows) <= CUT.bytes


def test_a_shard_knows_its_headers_and_its_part_of_the_sample(ledger: Ledger) -> None:
    filled(ledger, [1] * 300)
    names = frozenset({"000003", "000290"})
    found = shards(ledger, replace(NOTHING, names=names, pictured=frozenset({"000290"})))
    assert [shard.sampled for shard in found] == [{"000003"}, frozenset(), {"000290"}]
    assert [shard.pictured for shard in found] == [frozenset(), frozenset(), {"000290"}]
    assert all(shard.uploads == UPLOADS for shard in found)
