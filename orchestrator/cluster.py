"""Have the workers of a Dask cluster do the shards, each over an uplink of its own."""

from __future__ import annotations

import queue
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Final, Self

from orchestrator import member
from orchestrator.errors import ConfigurationError, TransferError
from orchestrator.job import Job
from orchestrator.member import Assignment, Order, Outcome
from orchestrator.scheduler import HELP, PATIENCE, Place, connected, within
from orchestrator.shard import Cut, Shard
from orchestrator.transfer import PLANNED, TICK
from orchestrator.worker import Done

if TYPE_CHECKING:
    from distributed import Client, Future

AGAIN: Final = "start workers, then run the same command again: it goes on where it was"
PROOF: Final = 40  # files by which a machine shows that it sees the same source
FEWEST: Final = Cut(files=16, of_each=8, bytes=1 << 20)  # of a shard
ANSWER: Final = 60.0  # seconds that a machine has to prove itself


@dataclass(kw_only=True)
class Machine:
    """A worker process; `unfit` says why it is left out, None while it has not yet answered."""

    name: str
    address: str
    threads: int
    unfit: str | None = None
    asked: float = field(default_factory=time.monotonic)
    answer: Future[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A shard, and which machines may do it; with none of them, it waits for one to come."""

    shard: Shard
    allowed: frozenset[str] = frozenset()
    future: Future[Outcome] | None = None


@dataclass(kw_only=True)
class Cluster:
    """The crew of several machines; each proves that it sees the same source before it works."""

    job: Job
    at: Place
    notes: list[str]  # what the report says of the machines
    _stack: ExitStack = field(default_factory=ExitStack)
    _machines: dict[str, Machine] = field(default_factory=dict)  # by address
    _pending: dict[str, Pending] = field(default_factory=dict)
    _did: Counter[str] = field(default_factory=Counter)  # files, by the names of the machines
    _landed: queue.SimpleQueue[Future[Outcome]] = field(default_factory=queue.SimpleQueue)
    _numbers: Iterator[int] = field(default_factory=count)
    _sent: tuple[int, int] = (0, 0)
    _seen: float = field(default_factory=time.monotonic)  # when there was last a fit machine

    def prepare(self) -> None:
        """Nothing: machines are asked when there is something to do."""

    def __enter__(self) -> Self:
        memory = self.job.wishes.memory // max(1, self.at.local)
        self._proof = str(self.job.source), member.versions(), self._drawn()
        self._assignment: Assignment = member.assignment(self.job, memory, self._proof)
        with ExitStack() as stack:
            self._client: Client = stack.enter_context(connected(self.at))
            stack.callback(self._end)
            self._muster()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        did = (f"worker {name} did {files} files" for name, files in sorted(self._did.items()))
        self.notes[:0] = map(self.job.target.redact, did)
        self._stack.close()

    @property
    def cut(self) -> Cut:
        """Cut it finely: at the end some wait for the last shards of others' uplinks."""
        return replace(FEWEST, parts=2 * self._threads)

    @property
    def _threads(self) -> int:
        return sum(machine.threads for machine in self._fit)

    @property
    def _fit(self) -> list[Machine]:
        return [machine for machine in self._machines.values() if machine.unfit == ""]

    def sent(self) -> tuple[int, int]:
        return self._sent

    def results(self, shards: Iterable[Shard]) -> Iterator[Done | None]:
        stream = iter(shards)
        while True:
            room = self._threads + len(self._fit)
            while len(self._pending) < room and (shard := next(stream, None)):
                self._submit(shard)
            if not self._pending:
                return
            with suppress(queue.Empty):
                yield from self._take(self._landed.get(timeout=TICK))
            yield None
            self._look()

    def _submit(self, shard: Shard) -> None:
        key = f"{self._assignment.run}-shard-{next(self._numbers)}"
        allowed = frozenset(machine.address for machine in self._fit)
        if not allowed:  # Dask would take it for leave to use any
            self._pending[key] = Pending(shard=shard)
            return
        order = Order(assignment=self._assignment, shard=shard)
        future = self._client.submit(member.fulfil, order, key=key, pure=False, workers=[*allowed])
        self._pending[key] = Pending(shard=shard, allowed=allowed, future=future)
        future.add_done_callback(self._landed.put)

    def _take(self, future: Future[Outcome]) -> Iterator[Done]:
        """Yield what became of a shard; give it to others where its machine could not do it."""
        if future.key not in self._pending:
            return
        outcome = _outcome(future)
        shard = self._pending.pop(future.key).shard
        self._hear(outcome)
        if outcome.error:
            raise outcome.error
        if outcome.done is None:
            self._leave_out(outcome.machine, outcome.unfit)
            self._submit(shard)
            return
        machine = self._machines.get(outcome.machine)
        self._did[machine.name if machine else outcome.machine] += len(shard.rows)
        self._sent = self._sent[0] + len(shard.rows), self._sent[1] + shard.bytes
        yield outcome.done

    def _hear(self, outcome: Outcome) -> None:
        for note in outcome.notes:
            self.job.note(f"worker {outcome.machine}: {note}")
        self.job.rclone.commands.update(outcome.commands)
        if outcome.log:
            with (self.job.folder / "rclone.log.jsonl").open("a", encoding="utf-8") as log:
                log.write(outcome.log)

    # Machines.

    def _drawn(self) -> list[member.Print]:
        """Return what shows that a machine sees the same source, of files drawn by the seed."""
        ledger, draw = self.job.ledger, random.Random(self.job.wishes.seed)  # noqa: S311  # a sample
        last = int(ledger.select("SELECT max(rowid) FROM entry")[0][0])
        rowids = ", ".join(str(draw.randint(1, last)) for _ in range(20 * PROOF))
        rows = [row.name for row in ledger.rows(f"{PLANNED} AND rowid IN ({rowids})")]
        names = draw.sample(rows, min(PROOF, len(rows)))
        first = next(iter(ledger.rows(PLANNED))).name
        return member.prints(str(self.job.source), dict.fromkeys([first, *names]))

    def _muster(self) -> None:
        """Wait until every machine has proven itself or not; raise if none has."""
        limit = time.monotonic() + PATIENCE
        while not self._machines and time.monotonic() < limit:
            self._look()
            time.sleep(TICK / 5)
        while any(machine.unfit is None for machine in self._machines.values()):
            self._look()
            time.sleep(TICK / 5)
        if not self._fit:
            self._refuse()

    def _refuse(self) -> None:
        if not self._machines:
            raise ConfigurationError(
                f"the scheduler at {self.at.address} has no workers", tip=f"start some; {HELP}"
            )
        raise ConfigurationError(
            *(f"worker {m.name} cannot take part: {m.unfit}" for m in self._machines.values()),
            tip="each worker needs the same source at the same path, or its own path in "
            f"{member.SOURCE}, and the same versions: docs/cluster.md",
        )

    def _look(self) -> None:
        """See which machines have come, answered or gone; shards of those gone go to others."""
        known = self._known()
        for address in self._machines.keys() - known.keys():
            self._gone(self._machines.pop(address))
        for address in known.keys() - self._machines.keys():
            self._ask(known[address])
        for machine in [m for m in self._machines.values() if m.unfit is None]:
            self._judge(machine)
        if self._fit:
            self._seen = time.monotonic()
        elif self._pending and time.monotonic() - self._seen > PATIENCE:
            if self._machines and not self._did:
                self._refuse()
            raise TransferError("all workers of the cluster are gone or unfit", tip=AGAIN)
        self._rescue()

    def _known(self) -> dict[str, Machine]:
        """Return the worker processes as the scheduler knows them."""
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError, RuntimeError) as error:
            what = f"the scheduler does not answer any more ({type(error).__name__})"
            raise TransferError(what, tip="start it again, then " + AGAIN) from error
        return {
            address: Machine(name=str(info["name"]), address=address, threads=info["nthreads"])
            for address, info in workers.items()
        }

    def _ask(self, machine: Machine) -> None:
        self._machines[machine.address] = machine
        if self.at.safe(machine.address):
            machine.answer = self._client.submit(
                member.unfit,
                *self._proof,
                key=f"{self._assignment.run}-proof-{next(self._numbers)}",
                pure=False,
                workers=[machine.address],
            )
        else:
            self._leave_out(machine.address, "its connections are not encrypted")

    def _judge(self, machine: Machine) -> None:
        answer = machine.answer
        if answer is None or not answer.done():
            if time.monotonic() - machine.asked > ANSWER:
                self._leave_out(machine.address, f"it did not answer within {ANSWER:.0f} s")
            return
        if why := _answered(answer):
            self._leave_out(machine.address, why)
        else:
            machine.unfit = ""

    def _leave_out(self, address: str, why: str) -> None:
        machine = self._machines.get(address)
        if machine and not machine.unfit:
            machine.unfit = why
            self._say(f"worker {machine.name} is left out: {why}")

    def _gone(self, machine: Machine) -> None:
        if machine.unfit == "":
            self._say(f"worker {machine.name} is gone; others do its shards")

    def _say(self, text: str) -> None:
        text = self.job.target.redact(text)
        self.notes.append(text)
        self.job.note(text)

    def _rescue(self) -> None:
        """Give shards that only machines now gone were allowed to do to those that are here."""
        here = frozenset(machine.address for machine in self._fit)
        for key, pending in list(self._pending.items()):
            if here and not pending.allowed & here:
                del self._pending[key]
                if pending.future:
                    pending.future.cancel()
                self._submit(pending.shard)

    def _end(self) -> None:
        """Take back what has not begun, end what has; a machine that hangs is not waited for."""
        with suppress(Exception):  # the scheduler may be gone
            self._client.cancel([p.future for p in self._pending.values() if p.future])
        within(PATIENCE, lambda: self._client.run(member.end, self._assignment.run))


def _answered(answer: Future[str]) -> str:
    if answer.status == "finished":
        return str(answer.result())
    error = answer.exception() if answer.status == "error" else None
    return f"media-orchestrator is missing there, or another version ({type(error).__name__})"


def _outcome(future: Future[Outcome]) -> Outcome:
    """Return what a machine made of an order; raise what the scheduler made of it."""
    if future.status == "finished":
        found: Outcome = future.result()
        return found
    if future.status != "error":
        raise TransferError("the scheduler has lost the work, as if it was started anew", tip=AGAIN)
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        what = "several workers died one after the other over the same files"
        raise TransferError(what, tip="look at their memory; " + AGAIN)
    raise TransferError(f"a worker could not do its work ({type(error).__name__})", tip=HELP)
