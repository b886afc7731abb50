"""Compare local files with objects byte by byte, where no hash of the store can say it."""

from __future__ import annotations

import gzip
import hashlib
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

from orchestrator.clients import Stored
from orchestrator.digest import BLOCK
from orchestrator.job import Job
from orchestrator.ledger import Row
from orchestrator.storage import Upload

EQUAL = "="
MARKS = {
    "*": "the object's content differs",
    "+": "it is not in the store",
    "!": "rclone could not read it",
}


def same_name(stored: Stored, row: Row) -> bool:
    """Return whether an object in the row's slot has its name, and not one that only folds to it.

    A folder has the case of whoever came first, and composition is the store's: both find it.
    """
    names = (key.rpartition("/")[2] for key in (stored.key, row.key or ""))
    ours, theirs = (unicodedata.normalize("NFC", name) for name in names)
    return ours == theirs


def by_rclone(
    job: Job, rows: Iterable[Row], uploads: Mapping[int, Upload], *, download: bool
) -> tuple[dict[str, str], int]:
    """Return rclone check's mark of each file, and the number of hashes that it missed."""
    marks: dict[str, str] = {}
    missed = 0
    for config, group in groupby(rows, key=lambda row: _config(uploads, row)):
        found, count = job.rclone.check_names(
            (row.name for row in group), Upload(config=config), download=download
        )
        marks |= found
        missed += count
    return marks, missed


def _config(uploads: Mapping[int, Upload], row: Row) -> tuple[tuple[str, str], ...]:
    """Checking needs the same keys as copying did: of an encryption, say."""
    return uploads[row.batch or 0].config if row.batch in uploads else ()


def by_bytes(job: Job, rows: list[Row], uploads: Mapping[int, Upload]) -> Iterator[tuple[Row, str]]:
    """Yield each row with '' if the object's bytes are the file's, else with what is wrong."""
    bulk = [row for row in rows if not row.direct]
    marks, _ = by_rclone(job, bulk, uploads, download=True) if bulk else ({}, 0)
    for row in bulk:
        mark = marks.get(row.name, "!")
        yield row, "" if mark == EQUAL else MARKS.get(mark, mark)
    yield from job.map(lambda row: (row, by_client(job, row)), (r for r in rows if r.direct))


def by_class(job: Job, row: Row) -> str:
    """Read the object through the storage class; return '' if its bytes are the file's."""
    return _equal(job, row, _opened)


def by_client(job: Job, row: Row) -> str:
    """Read it past the class's own open(), where the client can; else through the class."""
    return _equal(job, row, _fetched)


def _equal(job: Job, row: Row, read: Callable[[Job, str], Iterator[bytes]]) -> str:
    try:
        got = _digest(read(job, row.name))
    except Exception as error:  # noqa: BLE001  # any error of any SDK is a failed read
        job.forget_target()
        return job.target.redact(f"reading it failed: {type(error).__name__}: {error}")
    return "" if got in _digests_of_file(job, row) else "the object's content differs"


def _opened(job: Job, name: str) -> Iterator[bytes]:
    with job.own_target().storage.open(name, "rb") as file:
        while data := file.read(BLOCK):
            yield data


def _fetched(job: Job, name: str) -> Iterator[bytes]:
    return job.own_target().client.read(name) or _opened(job, name)


def _digest(parts: Iterable[bytes]) -> bytes:
    found = hashlib.sha256()
    for data in parts:
        found.update(data)
    return found.digest()


def _digests_of_file(job: Job, row: Row) -> Iterator[bytes]:
    """A class that unpacks what it reads does so to any body that was stored packed."""
    found = hashlib.sha256()
    with job.path(row).open("rb") as file:
        while data := file.read(BLOCK):
            found.update(data)
    yield found.digest()
    if not row.packed and job.own_target().unpacks(row.key or ""):
        try:
            with gzip.open(job.path(row)) as file:
                yield hashlib.sha256(file.read()).digest()
        except (OSError, EOFError, zlib.error):
            return
