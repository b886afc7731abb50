"""The unit of work: files that follow each other by name, small enough to be done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.ledger import Ledger, Row, State
from orchestrator.readback import Sample
from orchestrator.storage import Upload

MOST_FILES: Final = 4_000
LARGEST: Final = 1 << 20  # times the fewest; from then on only the part counts


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How finely the work is cut: a shard is a part of what is left, and no less than so many.

    On one machine smaller ones drain before the next is under way. `of_each` are the files of each
    batch, on average: a list costs 10 ms, however short.
    """

    parts: int = 8
    files: int = 128
    of_each: int = 16
    bytes: int = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Files to copy, in the order of their names, with all that is needed to do it anywhere."""

    rows: tuple[Row, ...]
    uploads: Mapping[int, Upload]
    after: str  # the key of the file before the first one, or ''
    sampled: frozenset[str]  # names to read back
    pictured: frozenset[str]  # of these, those to show in the report

    @property
    def bytes(self) -> int:
        return sum(row.size for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a file; `readback` is None where it was not read."""

    name: str
    state: State
    reason: str = ""
    hashes: str | None = None
    evidence: str | None = None
    tags: str | None = None
    readback: str | None = None


def divide(
    ledger: Ledger,
    where: str,
    uploads: Mapping[int, Upload],
    sample: Sample,
    cut: Cut,
) -> Iterator[Shard]:
    """Cut the files into shards that are small where nothing else is done meanwhile.

    At the start they are hashed before anything is sent; at the end the last one is waited for.
    """
    files, size = ledger.count(where)
    after = ""
    rows: list[Row] = []
    factor = 1
    cut = replace(cut, files=max(cut.files, cut.of_each * len(uploads)))
    room = _room(files, size, cut, factor)
    for row in ledger.rows(where):
        rows.append(row)
        room = room[0] - 1, room[1] - row.size
        files, size = files - 1, size - row.size
        if room[0] <= 0 or room[1] <= 0:
            yield _shard(rows, uploads, after, sample)
            factor = min(2 * factor, LARGEST)
            after, rows, room = row.key or "", [], _room(files, size, cut, factor)
    if rows:
        yield _shard(rows, uploads, after, sample)


def _room(files: int, size: int, cut: Cut, factor: int) -> tuple[int, int]:
    """Return how many files and bytes the next shard may have: `factor` of the fewest at most."""
    return (
        min(MOST_FILES, cut.files * factor, max(cut.files, files // cut.parts)),
        min(cut.bytes * factor, max(cut.bytes, size // cut.parts)),
    )


def _shard(rows: list[Row], uploads: Mapping[int, Upload], after: str, sample: Sample) -> Shard:
    batches = {row.batch for row in rows if row.batch is not None}
    sampled = sample.names & {row.name for row in rows}
    return Shard(
        rows=tuple(rows),
        uploads={number: uploads[number] for number in batches},
        after=after,
        sampled=sampled,
        pictured=sample.pictured & sampled,
    )
