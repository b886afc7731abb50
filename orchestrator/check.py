"""Prove what is in the store: rclone check, then our hashes against the store's own listing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.clients import Stored
from orchestrator.compare import EQUAL, MARKS, by_bytes, by_rclone, same_name
from orchestrator.job import Job
from orchestrator.ledger import Row, State
from orchestrator.parallel import chunks
from orchestrator.plan import BYTES_AT_ONCE, observe
from orchestrator.storage import Upload

PRESENT = "state = 'present'"
MOVED = "changed in the source during the run; run the same command again"


def check(job: Job, uploads: Mapping[int, Upload]) -> None:
    """Bring every present file into the state verified, with its evidence, or failed.

    Two judges must agree: rclone check, and our own hash (or the bytes) against the listing of
    the class's own client. A hash that could not be checked counts for nothing.
    """
    job.observer.stage("checking", *job.ledger.count(PRESENT))
    observe(job)
    _check_hashes(job, *_rclone_check(job, uploads))
    _check_bytes(job, uploads)
    job.ledger.set_fact("extra", job.ledger.extra())


def _rclone_check(job: Job, uploads: Mapping[int, Upload]) -> tuple[Mapping[str, str], bool]:
    """Return the mark of each file that rclone does not find equal, and if its hashes are proof.

    They are where only rclone can ask for the store's hashes, and it missed none.
    """
    rows = job.ledger.rows(f"{PRESENT} AND direct IS NULL")
    marks, missed = by_rclone(job, rows, uploads, download=False)
    job.ledger.set_fact("rclone_check", {"equal": _equal(marks), "without_hash": missed})
    expected = (row.name for row in job.ledger.rows(f"{PRESENT} AND direct IS NULL"))
    unequal = {n: marks.get(n, "!") for n in expected if marks.get(n) != EQUAL}
    return unequal, job.target.template.rclone_hashes and not missed


def _equal(marks: Mapping[str, str]) -> int:
    return sum(mark == EQUAL for mark in marks.values())


def _check_hashes(job: Job, marks: Mapping[str, str], proof: bool) -> None:
    pairs = job.ledger.pairs("e.state = 'present'")
    judged = job.map(
        lambda pair: (pair[0].size, *_judge(job, marks, proof, *pair), pair[0].name), pairs
    )
    job.ledger.update("state reason hashes evidence tags", _advancing(job, judged))


def _advancing(job: Job, judged: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Tell the observer of each row, whose first value is its size, as it passes by."""
    size = 0
    for files, row in enumerate(judged, 1):
        size += row[0]
        job.observer.advance(files, size)
        yield row[1:]


def _judge(
    job: Job, marks: Mapping[str, str], proof: bool, row: Row, stored: Stored | None
) -> tuple[Any, ...]:
    hashes = job.hashes(row)
    if not job.unchanged(row):
        return State.FAILED, MOVED, None, None, row.tags
    if stored is None or not same_name(stored, row):
        return State.FAILED, "it is not in the store", hashes, None, row.tags
    if stored.size != row.size and not row.packed:
        reason = f"its size in the store is {stored.size} instead of {row.size} bytes"
        return State.FAILED, reason, hashes, None, row.tags
    if row.name in marks and marks[row.name] != "*":
        return State.FAILED, f"rclone check: {MARKS[marks[row.name]]}", hashes, None, row.tags
    equal = (hashes and stored.hash in hashes.split()) or (proof and not row.direct)
    if equal and row.name not in marks:
        return State.VERIFIED, "", hashes, "hash", stored.tag
    return State.PRESENT, "", hashes, row.evidence, stored.tag


def _check_bytes(job: Job, uploads: Mapping[int, Upload]) -> None:
    """Download and compare what no hash could prove."""
    job.ledger.execute(
        "UPDATE entry SET state = 'verified' WHERE state = 'present' AND evidence = 'bytes'"
    )
    for rows in chunks(job.ledger.rows(PRESENT), BYTES_AT_ONCE):
        judged = list(_compared(job, rows, uploads))
        job.ledger.update("state reason evidence tags", judged)


def _compared(job: Job, rows: list[Row], uploads: Mapping[int, Upload]) -> Iterator[Any]:
    for row, wrong in by_bytes(job, rows, uploads):
        if not job.unchanged(row):
            yield State.FAILED, MOVED, None, None, row.name
        elif wrong:
            yield State.FAILED, wrong, None, None, row.name
        else:
            yield State.VERIFIED, "", "bytes", row.tags, row.name
