"""Compare local files with objects byte by byte, where no hash of the store can say it."""

from __future__ import annotations

import gzip
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

from orchestrator.clients import Stored
from orchestrator.digest import BLOCK
from orchestrator.job import Route
from orchestrator.known import said
from orchestrator.ledger import Row
from orchestrator.storage import Upload

Readable = BinaryIO | gzip.GzipFile
READS = 2  # an object that is there gets a second one, over a connection of its own
EQUAL = "="
MOVED = "changed in the source during the run; run the same command again"
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


def proven(row: Row, stored: Stored, hashes: str | None) -> bool:
    """Return whether a hash that the store itself made of the whole object equals ours."""
    sized = stored.size == row.size or row.packed
    return bool(sized and hashes and stored.hash in hashes.split() and same_name(stored, row))


def by_rclone(
    route: Route, rows: Iterable[Row], uploads: Mapping[int, Upload], *, download: bool
) -> tuple[dict[str, str], int]:
    """Return rclone check's mark of each file, and the number of hashes that it missed."""
    marks: dict[str, str] = {}
    missed = 0
    for config, group in groupby(rows, key=lambda row: _config(uploads, row)):
        found, count = route.rclone.check_names(
            (row.name for row in group), Upload(config=config), download=download
        )
        marks |= found
        missed += count
    return marks, missed


def _config(uploads: Mapping[int, Upload], row: Row) -> tuple[tuple[str, str], ...]:
    """Checking needs the same keys as copying did: of an encryption, say."""
    return uploads[row.batch or 0].config if row.batch in uploads else ()


def by_bytes(
    route: Route, rows: list[Row], uploads: Mapping[int, Upload]
) -> Iterator[tuple[Row, str]]:
    """Yield each row with '' if the object's bytes are the file's, else with what is wrong."""
    bulk = [row for row in rows if not row.direct]
    marks, _ = by_rclone(route, bulk, uploads, download=True) if bulk else ({}, 0)
    for row in bulk:
        mark = marks.get(row.name, "!")
        yield row, "" if mark == EQUAL else MARKS.get(mark, mark)
    yield from route.map(lambda row: (row, by_client(route, row)), (r for r in rows if r.direct))


def begun(route: Route, row: Row) -> bool:
    """Return whether the object is a beginning of the file, as a killed save() leaves it."""
    try:
        with route.path(row).open("rb") as file:
            return all(file.read(len(data)) == data for data in _fetched(route, row))
    except Exception:  # noqa: BLE001  # any error of any SDK: it cannot be told
        route.forget_target()
        return False


@dataclass(kw_only=True)
class Seen:
    """What a read through the class shows beside the bytes; `body` gets a copy of them."""

    body: BinaryIO | None = None
    headers: Mapping[str, Any] | None = None


def by_class(route: Route, row: Row, seen: Seen) -> str:
    """Read the object through the storage class; return '' if its bytes are the file's."""
    return _equal(route, row, lambda route, row: _opened(route, row, seen))


def by_client(route: Route, row: Row) -> str:
    """Read it past the class's own open(), where the client can; else through the class."""
    return _equal(route, row, _fetched)


def _equal(route: Route, row: Row, read: Callable[[Route, Row], Iterator[bytes]]) -> str:
    """Read the object and the file side by side, up to the first byte that differs."""
    failed = ""
    for _ in range(READS):
        try:
            return _differs(route, row, read)
        except Exception as error:  # noqa: BLE001  # any error of any SDK is a failed read
            route.forget_target()
            failed = route.target.redact(f"reading it failed: {said(error)}")
            if isinstance(error, FileNotFoundError):
                break
    return failed


def _differs(route: Route, row: Row, read: Callable[[Route, Row], Iterator[bytes]]) -> str:
    with ExitStack() as stack:
        try:
            files = [*_contents(route, row)]
            for file in files:
                stack.callback(file.close)
        except OSError:
            return MOVED
        for data in read(route, row):
            files = [file for file in files if _read(file, len(data)) == data]
            if not files:
                break
        if any(_read(file, 1) == b"" for file in files):
            return ""
    return "the object's content differs" if route.unchanged(row) else MOVED


def _opened(route: Route, row: Row, seen: Seen) -> Iterator[bytes]:
    """Read through the class, most of which have the whole of an open object in memory."""
    target = route.own_target()
    room = route.reading.holding(row.size, route.wishes.memory)
    with room, target.storage.open(row.name, "rb") as file:
        seen.headers = target.client.told(file)
        if seen.body:
            seen.body.seek(0)  # a read before this one may have failed
        while data := file.read(BLOCK):
            if seen.body:
                seen.body.write(data)
            yield data


def _fetched(route: Route, row: Row) -> Iterator[bytes]:
    return route.own_target().client.read(row.name) or _opened(route, row, Seen())


def _contents(route: Route, row: Row) -> Iterator[Readable]:
    """Open the file; where the class unpacks what was stored packed, also what is in it."""
    yield route.path(row).open("rb")
    if not row.packed and route.own_target().unpacks(row.key or ""):
        yield gzip.open(route.path(row))  # noqa: SIM115  # _equal closes it


def _read(file: Readable, size: int) -> bytes | None:
    """Return None for what cannot be read, or is not packed."""
    try:
        return file.read(size)
    except (OSError, EOFError, zlib.error):
        return None
