"""Bring planned files into the store, shard by shard, and take what became of each into the ledger.

Several shards are under way at once: while some are sent, others are hashed, listed and read back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from orchestrator.clients import Client
from orchestrator.job import Job, Route
from orchestrator.known import said
from orchestrator.ledger import Row, State
from orchestrator.parallel import beside
from orchestrator.readback import Sample
from orchestrator.shard import MOST_FILES, Cut, Result, Shard, divide
from orchestrator.storage import Upload
from orchestrator.thumbnails import Picture
from orchestrator.worker import Done, Sent, prove, send

PLANNED: Final = "state = 'planned'"
AT_ONCE: Final = 8  # shards that are hashed and sent; and as many that are listed and read back
UNDER_WAY: Final = AT_ONCE * MOST_FILES  # files in memory: those that are still to be proven, too
TICK: Final = 0.5  # seconds between two looks at what was sent


class Crew(AbstractContextManager["Crew"], Protocol):
    """Who does the shards: threads of this process, or other machines."""

    def prepare(self) -> None:
        """Make ready in the background what takes a while: the store answers, the plan is made."""

    def results(self, shards: Iterable[Shard]) -> Iterator[Done | None]:
        """Yield what became of each shard, in any order, and None every now and then.

        Raise what a shard raised; then the others are of no interest any more.
        """

    @property
    def cut(self) -> Cut:
        """How finely the work is cut, so that all have something to do up to the end."""

    def sent(self) -> tuple[int, int]:
        """Return how many files and bytes were sent so far."""


@dataclass(kw_only=True)
class Threads:
    """The crew of one machine."""

    route: Route
    _senders: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "send")
    )
    _provers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "prove")
    )

    def prepare(self) -> None:
        beside(self.route.rclone.daemon)  # what it raises, who needs it meets again

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.route.close()
        for pool in (self._senders, self._provers):
            pool.shutdown(wait=kind is None, cancel_futures=True)

    @property
    def cut(self) -> Cut:
        return Cut()

    def sent(self) -> tuple[int, int]:
        return self.route.rclone.sent

    def results(self, shards: Iterable[Shard]) -> Iterator[Done | None]:
        """Send on while what was sent is read back: that may take longer."""
        stream = iter(shards)
        sending: dict[Future[Sent], Shard] = {}
        proving: dict[Future[Done], Shard] = {}
        while True:
            while len(sending) <= AT_ONCE and _files(sending, proving) < UNDER_WAY:
                if not (shard := next(stream, None)):
                    break
                sending[self._senders.submit(send, self.route, shard)] = shard
            if not sending and not proving:
                return
            under_way: list[Future[Any]] = [*sending, *proving]
            wait(under_way, TICK, FIRST_COMPLETED)
            for proof in [future for future in proving if future.done()]:
                del proving[proof]
                yield proof.result()
            for sent in [future for future in sending if future.done()]:
                proof = self._provers.submit(prove, self.route, sent.result())
                proving[proof] = sending.pop(sent)
            yield None


def _files(*under_way: Mapping[Any, Shard]) -> int:
    return sum(len(shard.rows) for shards in under_way for shard in shards.values())


def transfer(
    job: Job, uploads: Mapping[int, Upload], sample: Sample, crew: Crew
) -> Iterator[Picture]:
    """Send all planned files; yield the pictures that were read back on the way.

    Each file ends as verified, failed, or present where only another proof can tell.
    Raise AccessRefusedError as soon as the store shows that it will take none.
    """
    files, size = job.ledger.count(PLANNED)
    job.observer.stage("copying", files, size)
    if files:
        yield from _send(job, uploads, sample, crew)
        job.observer.advance(files, size)
    _settle(job)


def _send(job: Job, uploads: Mapping[int, Upload], sample: Sample, crew: Crew) -> Iterator[Picture]:
    _prepare(job)
    # Whose objects these will be is noted before they are sent: a kill may leave no time after.
    job.ledger.execute(f"UPDATE entry SET written = 1 WHERE {PLANNED}")  # noqa: S608  # ours
    with crew:
        shards = divide(job.ledger, PLANNED, uploads, sample, crew.cut)
        for done in crew.results(shards):
            _advance(job, crew)
            if done:
                job.ledger.update(
                    "state reason hashes evidence tags readback", _values(done.results)
                )
                yield from done.pictures


def _prepare(job: Job) -> None:
    rows = job.ledger.rows(f"{PLANNED} AND direct IS NULL")
    job.target.client.prepare(row.key for row in rows if row.key is not None)


def _advance(job: Job, crew: Crew) -> None:
    files, size = crew.sent()
    job.observer.advance(files, size)
    job.throughput.append((time.monotonic(), size))


def _values(results: Iterable[Result]) -> Iterator[tuple[object, ...]]:
    for r in results:
        yield r.state, r.reason, r.hashes, r.evidence, r.tags, r.readback, r.name


def _settle(job: Job) -> None:
    """Let the class's client finish what rclone cannot do to an object; most have nothing to do.

    An earlier run may have been killed before it came to that.
    """
    if type(job.target.client).settle is Client.settle:
        return
    rows = job.ledger.rows("state = 'present' AND direct IS NULL AND written")
    for name, wrong in job.map(lambda row: (row.name, _settled(job, row)), rows):
        if wrong:
            job.ledger.update("state reason", [(State.FAILED, wrong, name)])


def _settled(job: Job, row: Row) -> str:
    try:
        job.own_target().client.settle(row.name)
    except Exception as error:  # noqa: BLE001  # any error of any SDK
        job.forget_target()
        return job.target.redact(f"not settled: {said(error)}")
    return ""
