"""Decide for each file what a migration does with it: copy, leave, refuse, or report a conflict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, Final

from django.core.exceptions import SuspiciousOperation
from django.core.files.utils import validate_file_name

from orchestrator.clients import Stored
from orchestrator.compare import begun, by_bytes, same_name
from orchestrator.errors import TransferError
from orchestrator.job import Job, upload_key
from orchestrator.ledger import OTHER_HEADERS, Change, Ledger, Row, State, decoded
from orchestrator.limits import Limits
from orchestrator.parallel import chunks
from orchestrator.progress import human
from orchestrator.readback import PLAIN
from orchestrator.storage import Target, Upload
from orchestrator.transforms import Transform, text

BYTES_AT_ONCE = 2000  # files in one byte comparison
ASKED_AT_ONCE = 50  # files that a thread compares in one go: handing over one costs more
NOTED_AT_ONCE = 10_000  # files between two writes, as SQLite is slow while other threads work
ADDRESS: Final = ("key", "folded", "type", "batch", "direct", "packed", "state", "reason")
# What needs no look at any content is decided by SQLite alone: it is most of all files.
NEW: Final = """
UPDATE entry SET state = 'planned', change = 'new', reason = '', evidence = NULL, tags = NULL
WHERE state = 'candidate' AND NOT EXISTS (SELECT 1 FROM stored s WHERE s.slot = entry.slot)
"""
SAME: Final = """
UPDATE entry SET state = 'verified', change = 'same', reason = ''
WHERE state = 'candidate' AND evidence IS NOT NULL AND readback IS NULL AND EXISTS
(SELECT 1 FROM stored s WHERE s.slot = entry.slot AND s.key = entry.key AND s.tag = entry.tags)
"""


class _RefusedNameError(Exception):
    pass


def plan(job: Job, listing: Iterable[Stored]) -> dict[int, Upload]:
    """Bring every candidate into a planned, present, verified, refused or conflict state.

    `listing` is that of the store. Return the batches: under one number, all files with equal
    headers and remote keys.
    """
    uploads = address(job.target, job.ledger)
    refuse_collisions(job.ledger)
    observe(job, listing)
    _compare(job)
    _compare_bytes(job, uploads)
    return uploads


def require_room(job: Job) -> None:
    """Raise TransferError if the store says that it cannot hold what is planned."""
    _, size = job.ledger.count("state = 'planned' AND change = 'new'")
    room = job.target.client.room()
    if room is not None and size > room:
        what = f"the files to copy take {human(size)}, and the store has {human(room)} left"
        raise TransferError(what, tip="make room there, or copy a part with --include")


def objects(target: Target) -> Iterator[Stored]:
    """List the store through a client of the class of its own, which is asked as it is read."""
    own = target.fresh()
    return own.client.objects(own.prefix)


def observe(job: Job, listing: Iterable[Stored]) -> None:
    """Take a listing of the store into the ledger."""
    fold = job.target.template.names.fold
    job.ledger.observe(listing, slot=fold)
    if fold is not text:
        _judge_folders(job, fold)


def _judge_folders(job: Job, fold: Transform) -> None:
    """Keep from rclone what lies in a folder with several spellings: it passes over all but one.

    Refuse a file in whose place there is, or would be, a folder.
    """
    keys = chain(
        job.ledger.values("name, key", "key IS NOT NULL AND state <> 'gone'"),
        job.ledger.each("SELECT NULL, key FROM stored"),
    )
    folders = {folder for _, key in keys for folder in _folders(key)}
    spellings = Counter(map(fold, folders))
    several = {folder for folder in folders if spellings[fold(folder)] > 1}
    rows = job.ledger.rows("key IS NOT NULL AND state <> 'gone'")
    judged = ((row, _judge_folder(row, spellings, several)) for row in rows)
    changed = (
        (*values, row.name)
        for row, values in judged
        if values != (row.direct, row.state, row.reason)
    )
    job.ledger.update("direct state reason", changed)


def _folders(key: str) -> Iterator[str]:
    while key := key.rpartition("/")[0]:
        yield key


def _judge_folder(row: Row, spellings: Container[str | None], several: set[str]) -> tuple[Any, ...]:
    """Return direct, state and reason of a file."""
    if row.state == State.CANDIDATE and row.slot in spellings:
        return row.direct, State.REFUSED, "the store can have only a folder of this name"
    spelled = (
        "the store has its folder under another name"
        if several & {*_folders(row.key or "")}
        else None
    )
    return row.direct or spelled, row.state, row.reason


def address(
    target: Target, ledger: Ledger, where: str = "state = 'candidate'"
) -> dict[int, Upload]:
    """Ask the class for the key and the headers of each file."""
    batches = _Batches(limits=Limits.of(target))
    ledger.update(" ".join(ADDRESS), _addresses(target, ledger, where, batches))
    return {number: upload for upload, number in batches.numbers.items()}


@dataclass(kw_only=True)
class _Batches:
    """Numbers uploads by what one `rclone copy` has in common; neighbours are mostly alike."""

    limits: Limits
    numbers: dict[Upload, int] = field(default_factory=dict)
    last: tuple[Upload | None, int] = (None, 0)

    def number(self, upload: Upload) -> int:
        if upload is not self.last[0]:
            number = self.numbers.setdefault(upload_key(upload), len(self.numbers) + 1)
            self.last = upload, number
        return self.last[1]


def _addresses(
    target: Target, ledger: Ledger, where: str, batches: _Batches
) -> Iterator[tuple[Any, ...]]:
    """Yield only what is not in the ledger yet: of a file that a run has seen that is nothing."""
    for stored_name, size, *known in ledger.values(f"name, size, {', '.join(ADDRESS)}", where):
        name = decoded(stored_name)
        values = _addressed(target, batches, name, size, known[-2:])
        if [*values] != known:
            yield *values, name


def _addressed(
    target: Target, batches: _Batches, name: str, size: int, state: Sequence[Any]
) -> tuple[Any, ...]:
    """Return the values of ADDRESS."""
    try:
        key = _key(target, name)
    except _RefusedNameError as error:
        return None, None, None, None, None, 0, State.REFUSED, str(error)
    upload = target.upload(key)
    batch = batches.number(upload)
    direct = upload.direct or _beyond_rclone(target, name, key)
    if too_big := batches.limits.refusal(size, by_class=bool(direct)):
        return None, None, None, None, None, 0, State.REFUSED, too_big
    slot = target.template.names.fold(key)
    folded = None if slot == key else slot
    return key, folded, upload.content_type, batch, direct or None, int(upload.packed), *state


def _key(target: Target, name: str) -> str:
    """Return the key of a name that Django can save and open."""
    names = target.template.names
    try:
        if not PLAIN.fullmatch(name):  # of these Django refuses none, and takes 10 us for each
            validate_file_name(name, allow_relative_path=True)
        key = target.key(name)
    except (SuspiciousOperation, ValueError) as error:
        raise _RefusedNameError(f"Django cannot address it: {error}") from error
    within = key.removeprefix(target.prefix)
    if not within or key.endswith("/") or name.endswith("\\"):
        raise _RefusedNameError("Django cannot address it: its key would be that of a folder")
    if "\\" in within:
        raise _RefusedNameError("Django would save it with / in the place of the backslash")
    if (length := len(key.encode())) > names.max_bytes:
        raise _RefusedNameError(
            f"its key is {length} bytes long, and the store takes {names.max_bytes}"
        )
    if names.forbidden and names.forbidden.search(key):
        raise _RefusedNameError("the store does not allow this name")
    if refusal := target.client.refusal(key):
        raise _RefusedNameError(refusal)
    return key


def _beyond_rclone(target: Target, name: str, key: str) -> str:
    """Say why rclone would not store this name under Django's key, or ''."""
    if key != target.prefix + name:
        return "rclone would give it another key"
    for pattern in target.beyond_rclone:
        if pattern.search(name) or pattern.search(target.prefix):
            return "rclone cannot be given this name"
    return ""


def refuse_collisions(ledger: Ledger) -> None:
    """Refuse all files that would share an object."""
    found = ledger.select(
        "SELECT slot, name FROM entry WHERE state = 'candidate' AND slot IN "
        "(SELECT slot FROM entry GROUP BY slot HAVING count(*) > 1) ORDER BY slot, name"
    )
    groups = groupby(found, key=itemgetter(0))
    colliding = (_colliding(slot, [name for _, name in group]) for slot, group in groups)
    ledger.update("state reason", chain.from_iterable(colliding))


def _colliding(slot: str, names: list[str]) -> Iterator[tuple[Any, ...]]:
    reason = f"{len(names)} files would be the one object {slot}: {', '.join(names[:3])}"
    return ((State.REFUSED, reason, name) for name in names if len(names) > 1)


def _compare(job: Job) -> None:
    """Compare each file with what is in its place; what only its bytes can tell stays candidate."""
    job.ledger.execute(NEW)
    job.ledger.execute(SAME)
    for pairs in chunks(job.ledger.pairs("e.state = 'candidate'"), NOTED_AT_ONCE):
        decided = job.map(lambda some: _decided(job, some), chunks(pairs, ASKED_AT_ONCE))
        values = list(chain.from_iterable(decided))
        job.ledger.update("state change reason hashes evidence tags", values)


def _decided(job: Job, pairs: Iterable[tuple[Row, Stored | None]]) -> list[tuple[Any, ...]]:
    return [(*_decide(job, row, stored), row.name) for row, stored in pairs]


def _decide(job: Job, row: Row, stored: Stored | None) -> tuple[Any, ...]:
    """Return state, change, reason, hashes, evidence and tags of a file."""
    if stored is None:
        return State.PLANNED, Change.NEW, "", row.hashes, None, None
    if not same_name(stored, row):
        reason = f"the store takes it for {stored.key}, which is there"
        return State.CONFLICT, Change.CONFLICT, reason, row.hashes, None, row.tags
    proven = stored.tag is not None and stored.tag in (row.tags or "").split()
    if proven and row.written and (row.readback or "").startswith(OTHER_HEADERS):
        return State.PLANNED, Change.CHANGED, "", row.hashes, None, row.tags
    if proven and row.evidence:
        return State.VERIFIED, Change.SAME, "", row.hashes, row.evidence, row.tags
    unfinished = not proven and row.written and row.direct and stored.size < row.size
    if stored.size != row.size and not row.packed and not unfinished:
        return _differs(job, row, ours=proven and row.written)
    return _compared(row, stored, job.hashes(row), ours=proven and row.written)


def _compared(row: Row, stored: Stored, hashes: str | None, *, ours: bool) -> tuple[Any, ...]:
    if hashes and stored.hash in hashes.split():
        return State.PRESENT, Change.SAME, "", hashes, None, row.tags
    if ours and stored.hash:
        return State.PLANNED, Change.CHANGED, "", hashes, None, row.tags
    return State.CANDIDATE, Change.CHANGED if ours else None, "", hashes, None, row.tags


def _differs(job: Job, row: Row, *, ours: bool) -> tuple[Any, ...]:
    if ours or job.wishes.overwrite_conflicts:
        return State.PLANNED, Change.CHANGED, "", row.hashes, None, row.tags
    reason = "another object is in its place, and no run of ours put it there"
    return State.CONFLICT, Change.CONFLICT, reason, row.hashes, None, row.tags


def _compare_bytes(job: Job, uploads: Mapping[int, Upload]) -> None:
    for rows in chunks(job.ledger.rows("state = 'candidate'"), BYTES_AT_ONCE):
        decided = list(_by_bytes(job, rows, uploads))
        job.ledger.update("state change reason evidence", decided)


def _unfinished(job: Job, row: Row) -> bool:
    return bool(row.written and row.direct and begun(job, row))


def _by_bytes(job: Job, rows: list[Row], uploads: Mapping[int, Upload]) -> Iterator[Any]:
    for row, wrong in by_bytes(job, rows, uploads):
        if not wrong:
            yield State.PRESENT, Change.SAME, "", "bytes", row.name
        else:
            ours = row.change is Change.CHANGED or _unfinished(job, row)
            state, change, reason, *_ = _differs(job, row, ours=ours)
            yield state, change, reason, None, row.name
