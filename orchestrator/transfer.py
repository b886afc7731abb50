"""Bring planned files into the store: by rclone in batches, by the class where rclone cannot."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestrator.clients import Client
from orchestrator.errors import OrchestratorError
from orchestrator.job import Job
from orchestrator.known import explain, recognise, words
from orchestrator.ledger import Row, State
from orchestrator.rclone import Event
from orchestrator.storage import Upload

PAUSES: Final = (1.0, 5.0, 15.0)  # seconds before each further attempt
STALL = 5.0  # seconds without a byte sent, after which we look whether the store is still there
FLUSH = 500  # files noted in the ledger at once


@dataclass(kw_only=True)
class _Batch:
    """Follows one `rclone copy` through its log."""

    job: Job
    before: tuple[int, int]
    done: list[str] = field(default_factory=list)
    sent: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    last: str = ""
    fatal: OrchestratorError | None = None
    size: int = 0
    moved: float = field(default_factory=time.monotonic)
    gone: OrchestratorError | None = None

    def __call__(self, event: Event) -> bool:
        """Take in one line of the log; return True to end rclone."""
        if event.stats:
            self._advance(int(event.stats.get("bytes", 0)))
        elif event.name and "Copied (" in event.message:
            self._copied(event.name)
        elif event.level in ("error", "critical"):
            self._failed(event)
        return bool(self.fatal or self.gone)

    def _advance(self, size: int) -> None:
        files, before = self.before
        self.job.observer.advance(files + self.sent, before + size)
        now = time.monotonic()
        self.job.throughput.append((now, before + size))
        if size != self.size:
            self.size, self.moved = size, now
        elif now - self.moved > STALL:
            self.gone = _unreachable(self.job)
            self.moved = time.monotonic()

    def _copied(self, name: str) -> None:
        self.sent += 1
        self.done.append(name)
        if len(self.done) >= FLUSH:
            self.flush()

    def _failed(self, event: Event) -> None:
        self.last = event.message
        if event.name:
            self.errors[event.name] = event.message
        self.fatal = self.fatal or _fatal(self.job, event.message)

    def flush(self) -> None:
        rows = [(State.PRESENT, "", True, name) for name in self.done]
        self.job.ledger.update("state reason written", rows)
        self.done.clear()


def _fatal(job: Job, said: str) -> OrchestratorError | None:
    """Return the error to end with if the store would say the same of every file."""
    known = recognise(job.target.template, said)
    fatal = known and known.kind in ("access", "configuration")
    return explain(job.target.template, said) if fatal else None


def _unreachable(job: Job) -> OrchestratorError | None:
    """Return the error to end with if the store cannot be reached any more.

    rclone goes on for hours without a network: it tries each file 10 times, at last 2 s apart.
    """
    try:
        job.target.client.probe(job.target.prefix, job.source)
    except Exception as error:  # noqa: BLE001  # any error of any SDK
        said = job.target.redact(words(error))
        known = recognise(job.target.template, said)
        if known and known.kind == "network":
            return explain(job.target.template, said, amid=True)
    return None


def copy(job: Job, uploads: Mapping[int, Upload]) -> None:
    """Send all planned files; what could not be sent is `failed` with its reason.

    Raise AccessRefusedError as soon as the store shows that it will take none.
    """
    _prepare(job)
    files, size = job.ledger.count("state = 'planned'")
    job.observer.stage("copying", files, size)
    sent = (0, 0)
    for number, upload in uploads.items():
        where = f"batch = {number} AND direct IS NULL"
        before = job.ledger.count(f"state = 'planned' AND {where}")
        if before[0]:
            _copy_batch(job, upload, where, sent)
            sent = sent[0] + before[0], sent[1] + before[1]
            job.observer.advance(*sent)
    _save_direct(job, sent)
    _settle(job)


def _prepare(job: Job) -> None:
    rows = job.ledger.rows("state = 'planned' AND direct IS NULL")
    job.target.client.prepare(row.key for row in rows if row.key is not None)


def _copy_batch(job: Job, upload: Upload, where: str, sent: tuple[int, int]) -> None:
    planned = f"state = 'planned' AND {where}"
    _claim(job, planned)
    for attempt in range(job.wishes.attempts):
        batch = _Batch(job=job, before=sent)
        names = (row.name for row in job.ledger.rows(planned))
        try:
            job.rclone.copy_names(names, upload, batch)
        finally:
            batch.flush()
        if batch.fatal:
            raise batch.fatal
        if not job.ledger.count(planned)[0]:
            return
        if attempt + 1 < job.wishes.attempts:
            _pause(job, attempt, str(batch.gone.problems[0].what) if batch.gone else batch.last)
    if batch.gone:
        raise batch.gone
    _give_up(job, planned, batch)


def _claim(job: Job, where: str) -> None:
    """Note whose objects these will be before they are sent: a kill may leave no time after."""
    job.ledger.execute(f"UPDATE entry SET written = 1 WHERE {where}")  # noqa: S608  # ours


def _pause(job: Job, attempt: int, why: str) -> None:
    seconds = PAUSES[min(attempt, len(PAUSES) - 1)]
    job.observer.note(f"some files were not sent ({why[:200]}); again in {seconds:.0f} s")
    time.sleep(seconds)


def _give_up(job: Job, planned: str, batch: _Batch) -> None:
    last = batch.last or "rclone did not find it"
    rows = (
        (State.FAILED, f"not sent: {batch.errors.get(row.name, last)}", row.name)
        for row in job.ledger.rows(planned)
    )
    job.ledger.update("state reason", rows)


def _save_direct(job: Job, sent: tuple[int, int]) -> None:
    planned = "state = 'planned' AND direct IS NOT NULL"
    _claim(job, planned)
    rows = job.ledger.rows(planned)
    for row, wrong in job.map(lambda row: (row, _save(job, row)), rows):
        state = State.FAILED if wrong else State.PRESENT
        job.ledger.update("state reason written", [(state, wrong, not wrong, row.name)])
        sent = sent[0] + 1, sent[1] + row.size
        job.observer.advance(*sent)


def _settle(job: Job) -> None:
    """Let the class's client finish what rclone cannot do to an object; most have nothing to do."""
    if type(job.target.client).settle is Client.settle:
        return
    rows = job.ledger.rows("state = 'present' AND direct IS NULL AND written")
    for row, wrong in job.map(lambda row: (row, _settled(job, row)), rows):
        if wrong:
            job.ledger.update("state reason", [(State.FAILED, wrong, row.name)])


def _settled(job: Job, row: Row) -> str:
    try:
        job.own_target().client.settle(row.name)
    except Exception as error:  # noqa: BLE001  # any error of any SDK
        job.forget_target()
        return job.target.redact(f"not settled: {type(error).__name__}: {error}")
    return ""


def _save(job: Job, row: Row) -> str:
    """Save one file through the class; return '' or why it could not be."""
    wrong = ""
    for attempt in range(job.wishes.attempts):
        try:
            job.own_target().save(row.name, job.path(row))
        except Exception as error:  # any error of any SDK
            job.forget_target()
            if fatal := _fatal(job, job.target.redact(words(error))):
                raise fatal from error
            wrong = job.target.redact(f"not sent: {type(error).__name__}: {error}")
            time.sleep(PAUSES[attempt] if attempt + 1 < job.wishes.attempts else 0)
        else:
            return ""
    return wrong
