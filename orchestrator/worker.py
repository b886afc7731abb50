"""Do one shard: send its files, then prove them by the store's own listing, and read some back.

Knows no ledger and keeps nothing: the same shard may be done again, here or on another machine.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.clients import Client, Stored
from orchestrator.compare import MOVED, proven
from orchestrator.daemon import EndedError
from orchestrator.errors import OrchestratorError, StuckError, TransferError
from orchestrator.gate import Flight
from orchestrator.job import PAUSES, Route
from orchestrator.known import meaning, said, words
from orchestrator.ledger import Row, State
from orchestrator.parallel import beside
from orchestrator.readback import Reading, judge, noted
from orchestrator.shard import Result, Shard
from orchestrator.storage import Upload
from orchestrator.thumbnails import Picture

IN_FLIGHT: Final = 64 << 20  # bytes of small files under way at once; more gain nothing
FEWEST: Final = 8  # transfers, where memory allows
ROUNDS: Final = 8  # files in one list, for each that may be in flight


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A shard whose files are in the store, but for those that went wrong, each with its reason."""

    shard: Shard
    hashes: Mapping[str, str | None]
    wrong: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a shard."""

    results: tuple[Result, ...]
    pictures: tuple[Picture, ...]


def work(route: Route, shard: Shard) -> Done:
    """Bring a shard's files into a final state, or `present` where other proof is needed."""
    return prove(route, send(route, shard))


def send(route: Route, shard: Shard) -> Sent:
    """Hash and send a shard's files.

    Raise AccessRefusedError as soon as the store shows that it will take none.
    """
    with route.hashing:
        hashes = {row.name: route.hashes(row) for row in shard.rows}
    return Sent(shard=shard, hashes=hashes, wrong=_send(route, shard))


def prove(route: Route, sent: Sent) -> Done:
    """List what was sent, compare it with the hashes, and read back what is sampled."""
    shard, hashes, wrong = sent.shard, sent.hashes, sent.wrong
    reading = beside(lambda: _read(route, shard, wrong))
    listed = _listed(route, shard)
    found = [
        _result(route, row, hashes[row.name], wrong.get(row.name), listed) for row in shard.rows
    ]
    verified = {result.name for result in found if result.state is State.VERIFIED}
    readings = {name: one for name, one in reading.result().items() if name in verified}
    return Done(
        results=tuple(_noted(result, readings.get(result.name)) for result in found),
        pictures=tuple(reading.picture for reading in readings.values() if reading.picture),
    )


def _result(
    route: Route,
    row: Row,
    hashes: str | None,
    wrong: str | None,
    listed: Mapping[str, Stored],
) -> Result:
    name, stored, moved = row.name, listed.get(row.key or ""), not route.unchanged(row)
    if moved and (stored or wrong):
        tags = stored.tag if stored and not wrong else row.tags  # so that the next run knows it
        return Result(name=name, state=State.FAILED, reason=MOVED, tags=tags)
    if wrong:
        return Result(name=name, state=State.FAILED, reason=wrong, hashes=hashes, tags=row.tags)
    if stored and proven(row, stored, hashes):
        return Result(
            name=name, state=State.VERIFIED, hashes=hashes, evidence="hash", tags=stored.tag
        )
    return Result(name=name, state=State.PRESENT, hashes=hashes, tags=row.tags)


def _read(route: Route, shard: Shard, wrong: Container[str]) -> dict[str, Reading]:
    """Read back what is sampled, and what had other headers before, while the shard is listed.

    What no listing proves then, is read later: when it is verified.
    """
    if type(route.target.client).among is Client.among:  # nothing will be proven here
        return {}
    rows = [
        row
        for row in shard.rows
        if row.name not in wrong and (row.name in shard.sampled or noted(row))
    ]
    readings = route.map(lambda row: judge(route, row, row.name in shard.pictured), rows)
    return {reading.row.name: reading for reading in readings}


def _noted(result: Result, reading: Reading | None) -> Result:
    if reading is None:
        return result
    if reading.fault:
        result = replace(result, state=State.FAILED, reason=reading.fault)
    return replace(result, readback=reading.result)


def _listed(route: Route, shard: Shard) -> dict[str, Stored]:
    """Return the shard's objects, where the store can list some keys only; else nothing."""
    wanted = {row.key for row in shard.rows if row.key is not None}
    if not wanted:
        return {}
    keys = sorted(wanted)
    after = shard.after if shard.after < keys[0] else keys[0][:-1]
    found = route.target.client.among(route.target.prefix, after, keys) or ()
    return {stored.key: stored for stored in found if stored.key in wanted}


# Sending.


def _send(route: Route, shard: Shard) -> dict[str, str]:
    """Return why each file that could not be sent was not."""
    wrong: dict[str, str] = {}
    bulk = [row for row in shard.rows if not row.direct]
    lists = (
        ([row.name for row in rows], shard.uploads[batch], flight)
        for (batch, flight), rows in _lists(route, bulk).items()
    )
    for unsent in route.send(lambda wanted: _copy(route, *wanted), lists):
        wrong |= unsent
    direct = (row for row in shard.rows if row.direct)
    saved = route.map(lambda row: (row.name, _save(route, row)), direct)
    return wrong | {name: why for name, why in saved if why}


def _lists(route: Route, rows: Sequence[Row]) -> dict[tuple[int, Flight], list[Row]]:
    """Group files by their headers, and by whether they are sent in parts, which take memory."""
    tuning = route.target.template.tuning
    groups: dict[tuple[int, bool], list[Row]] = {}
    for row in rows:
        parts = bool(tuning.part_from) and row.size >= tuning.part_from
        groups.setdefault((row.batch or 0, parts), []).append(row)
    found: dict[tuple[int, Flight], list[Row]] = {}
    for (batch, parts), group in groups.items():
        found.setdefault((batch, in_flight(route, group, parts=parts)), []).extend(group)
    return found


def in_flight(route: Route, rows: Sequence[Row], *, parts: bool) -> Flight:
    """Return how many of these files may be in flight at once, within the memory that we may use.

    Source: small files wait for round trips and large ones for the wire; facts were measured in
    docs/performance.md.
    """
    tuning, memory = route.target.template.tuning, route.wishes.memory
    if wished := route.wishes.transfers:
        return Flight(start=wished, most=wished)
    if parts:
        start = max(1, min(tuning.transfers, memory // 2 // tuning.part_memory))
        return Flight(start=start, most=start)
    mean = sum(row.size for row in rows) // len(rows) + 1
    fit = max(1, min(max(FEWEST, IN_FLIGHT // mean), memory // mean))
    return Flight(start=min(tuning.transfers, fit), most=min(tuning.most_transfers, fit))


def _copy(route: Route, names: Sequence[str], upload: Upload, flight: Flight) -> dict[str, str]:
    """Have rclone send a list, and again what of it was not sent; return what remains, and why.

    It gets it in pieces: how many of one are in flight does not change any more once it is begun.
    """
    left = dict.fromkeys(names, "")
    for attempt in range(route.wishes.attempts):
        last: OrchestratorError | None = None
        waiting, left = list(left), {}
        try:
            while waiting:
                piece = waiting[: ROUNDS * route.rclone.limit(flight)]
                left |= route.rclone.copy_names(piece, upload, flight).unsent()
                del waiting[: len(piece)]
        except EndedError as ended:
            last = _final(route, ended)
            left |= dict.fromkeys(waiting, "")
        if not left:
            return {}
        if attempt + 1 < route.wishes.attempts:
            route.pause(attempt, last.problems[0].what if last else next(iter(left.values())))
    if last:
        raise last
    template = route.target.template
    return {name: f"not sent: {meaning(template, why)}" for name, why in left.items()}


def _final(route: Route, ended: EndedError) -> OrchestratorError:
    """Raise what rclone was ended for, unless another attempt may help; then return it."""
    cause = ended.cause or TransferError(
        "rclone ended unexpectedly", tip="see rclone.log.jsonl in the run folder"
    )
    final = isinstance(cause, StuckError) or not isinstance(cause, TransferError)
    if final or route.stopped.is_set():
        raise cause
    return cause


def _save(route: Route, row: Row) -> str:
    """Save one file through the class; return '' or why it could not be."""
    wrong = _unreadable(route, row)
    for attempt in range(0 if wrong else route.wishes.attempts):
        try:
            route.own_target().save(row.name, route.path(row))
        except Exception as error:  # any error of any SDK
            route.forget_target()
            if fatal := route.fatal(route.target.redact(words(error))):
                raise fatal from error
            wrong = route.target.redact(f"not sent: {said(error)}")
            last = attempt + 1 == route.wishes.attempts
            route.stopped.wait(0 if last else PAUSES[attempt])
        else:
            return ""
    return wrong


def _unreadable(route: Route, row: Row) -> str:
    """Say why a file cannot be read, which no store is to blame for."""
    try:
        route.path(row).open("rb").close()
    except OSError as error:
        return f"not sent: it cannot be read: {error.strerror}"
    return ""
