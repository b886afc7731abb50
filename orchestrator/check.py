"""Prove what the shards could not: by a listing of all, then rclone check, then the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.clients import Stored
from orchestrator.compare import EQUAL, MARKS, MOVED, by_bytes, by_rclone, proven, same_name
from orchestrator.job import Job
from orchestrator.ledger import Change, Row, State
from orchestrator.parallel import chunks
from orchestrator.plan import BYTES_AT_ONCE, objects, observe
from orchestrator.storage import Upload

PRESENT = "state = 'present'"


def check(job: Job, uploads: Mapping[int, Upload]) -> None:
    """Bring every present file into the state verified, with its evidence, or failed.

    A hash that could not be checked counts for nothing.
    """
    files, size = job.ledger.count(PRESENT)
    job.observer.stage("checking", files, size)
    if files:
        observe(job, objects(job.target))
        _check_listing(job)
        if job.target.template.rclone_hashes:
            _check_by_rclone(job, uploads)
        _check_bytes(job, uploads)
    job.ledger.set_fact("extra", job.ledger.extra())


def _check_listing(job: Job) -> None:
    """Compare with the listing of the class's own client, which rclone has no part in."""
    judged = job.map(lambda pair: _judge(job, *pair), job.ledger.pairs("e.state = 'present'"))
    job.ledger.update("state reason hashes evidence tags", _advancing(job, judged))


def _advancing(job: Job, judged: Iterator[tuple[Row, tuple[Any, ...]]]) -> Iterator[Any]:
    """Tell the observer of each row as it passes by."""
    size = 0
    for files, (row, values) in enumerate(judged, 1):
        size += row.size
        job.observer.advance(files, size)
        yield *values, row.name


def _judge(job: Job, row: Row, stored: Stored | None) -> tuple[Row, tuple[Any, ...]]:
    """Return the row with its new state, reason, hashes, evidence and tags."""
    hashes = job.hashes(row) if stored and stored.hash else row.hashes
    if not job.unchanged(row):
        tags = stored.tag if stored and _sent(row) else row.tags
        return row, (State.FAILED, MOVED, None, None, tags)
    if stored is None or not same_name(stored, row):
        return row, (State.FAILED, "it is not in the store", hashes, None, row.tags)
    if stored.size != row.size and not row.packed:
        reason = f"its size in the store is {stored.size} instead of {row.size} bytes"
        return row, (State.FAILED, reason, hashes, None, row.tags)
    if proven(row, stored, hashes):
        return row, (State.VERIFIED, "", hashes, "hash", stored.tag)
    return row, (State.PRESENT, "", hashes, row.evidence, stored.tag)


def _sent(row: Row) -> bool:
    """Return whether this run put the object there: then the next one must know it for ours."""
    return row.written and row.change in (Change.NEW, Change.CHANGED)


def _check_by_rclone(job: Job, uploads: Mapping[int, Upload]) -> None:
    """Have rclone ask for the hashes that only it can ask for."""
    where = f"{PRESENT} AND direct IS NULL"
    marks, missed = by_rclone(job, job.ledger.rows(where), uploads, download=False)
    judged = (
        (*_marked(job, row, marks.get(row.name, "!"), missed), row.name)
        for row in job.ledger.rows(where)
    )
    job.ledger.update("state reason evidence", judged)


def _marked(job: Job, row: Row, mark: str, missed: int) -> tuple[Any, ...]:
    """Return state, reason and evidence by rclone's mark, which is proof if it missed no hash."""
    if not job.unchanged(row):
        return State.FAILED, MOVED, None
    if mark == EQUAL and not missed:
        return State.VERIFIED, "", "hash"
    if mark in (EQUAL, "*"):
        return State.PRESENT, "", row.evidence
    return State.FAILED, f"rclone check: {MARKS[mark]}", None


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
            yield State.FAILED, MOVED, None, row.tags if _sent(row) else None, row.name
        elif wrong:
            yield State.FAILED, wrong, None, None, row.name
        else:
            yield State.VERIFIED, "", "bytes", row.tags, row.name
