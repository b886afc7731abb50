"""What the stages of a run need: the way from source to store; then ledger and user's wishes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from orchestrator.daemon import Ears
from orchestrator.digest import digest
from orchestrator.errors import OrchestratorError
from orchestrator.known import explain, recognise, words
from orchestrator.ledger import Ledger, Row
from orchestrator.parallel import Room, bounded_map
from orchestrator.progress import Observer
from orchestrator.rclone import Rclone, find
from orchestrator.remote import Remote, translate
from orchestrator.storage import Target, Upload

T = TypeVar("T")
R = TypeVar("R")
Note = Callable[[str], None]
LISTS = 32  # that wait for rclone at once: so many short ones keep it busy
PAUSES = (1.0, 5.0, 15.0)  # seconds before each further attempt


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line may change about a run."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    transfers: int | None = None
    memory: int = 512 << 20  # bytes of files that rclone may hold, and the classes as well
    bwlimit: str | None = None
    bandwidth: float | None = None  # bytes a second, for the forecast
    skip_refused: bool = False
    overwrite_conflicts: bool = False
    sample: str = "default"
    seed: int | None = None
    attempts: int = 3
    thumbnails: bool = True


@dataclass(frozen=True, kw_only=True)
class Route:
    """The way from a folder to a store, for any number of threads; knows no ledger."""

    source: Path
    target: Target
    remote: Remote
    rclone: Rclone
    wishes: Wishes
    note: Note
    local: threading.local = field(default_factory=threading.local)
    stopped: threading.Event = field(default_factory=threading.Event)
    # Few shards are hashed at once, so that the first one is soon sent.
    hashing: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(max(1, (os.cpu_count() or 1) // 2))
    )
    reading: Room = field(default_factory=Room)
    _readers: ThreadPoolExecutor = field(init=False)
    _senders: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        readers = self.target.template.tuning.readers
        object.__setattr__(self, "_readers", ThreadPoolExecutor(readers, "reader"))
        object.__setattr__(self, "_senders", ThreadPoolExecutor(LISTS, "sender"))

    def path(self, row: Row) -> Path:
        return self.source / row.name

    def own_target(self) -> Target:
        """Return this thread's own storage object: the classes are not safe to share."""
        if not hasattr(self.local, "target"):
            self.local.target = self.target.fresh()
        found: Target = self.local.target
        return found

    def forget_target(self) -> None:
        """Some classes are of no use after an error: the next call makes a new object."""
        vars(self.local).pop("target", None)

    def unchanged(self, row: Row) -> bool:
        try:
            now = os.stat(f"{self.source}/{row.name}")  # noqa: PTH116  # a Path costs more than this
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
            row.size,
            row.mtime_ns,
            row.ctime_ns,
        )

    def hashes(self, row: Row) -> str | None:
        """Return the hashes that the store would report for the file; None if it changed."""
        if row.hashes is not None:
            return row.hashes
        try:
            with self._body(row) as body:
                found = digest(body, self.target.client.hasher())
        except OSError:
            return None
        return " ".join(found) if self.unchanged(row) else None

    def _body(self, row: Row) -> AbstractContextManager[BinaryIO]:
        """Open what the store is to hold; most are files as they are, and a Path has its price."""
        if row.packed:
            return self.target.packed(self.path(row))
        return open(f"{self.source}/{row.name}", "rb", buffering=0)  # noqa: PTH123

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Apply `function` in as many threads as the store likes; each keeps its storage object."""
        return bounded_map(self._readers, function, items)

    def send(self, function: Callable[[T], R], lists: Iterable[T]) -> Iterator[R]:
        """Apply `function` to lists of files, in threads that wait for rclone and nothing else."""
        return bounded_map(self._senders, function, lists)

    def pause(self, attempt: int, why: str) -> None:
        """Wait before another attempt, unless the run is being ended."""
        seconds = PAUSES[min(attempt, len(PAUSES) - 1)]
        self.note(f"some files were not sent ({why[:200]}); again in {seconds:.0f} s")
        self.stopped.wait(seconds)

    def fatal(self, said: str) -> OrchestratorError | None:
        return fatal(self.target, said)

    def close(self) -> None:
        """End rclone, and no thread begins anything more; one that waits for a store may go on."""
        self.stopped.set()
        self.rclone.close()
        for pool in (self._readers, self._senders):
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Job(Route):
    """A route with the ledger of its run."""

    folder: Path
    ledger: Ledger
    observer: Observer
    throughput: list[tuple[float, int]] = field(default_factory=list)  # s, bytes sent by then


def rclone(target: Target, remote: Remote, source: Path, work: Path, wishes: Wishes) -> Rclone:
    """Return an rclone for this target; `work` is a private folder inside a run folder."""
    tuning = target.template.tuning
    extra = [f"--checkers={tuning.checkers}", *tuning.flags]
    extra += [f"--bwlimit={wishes.bwlimit}"] if wishes.bwlimit else []
    return Rclone(
        binary=find(),
        remote=remote,
        source=source,
        work=work,
        redact=target.redact,
        ears=Ears(
            fatal=lambda said: fatal(target, said),
            throttled=lambda said: _kind(target, said) == "throttled",
            stalled=lambda: unreachable(target, source),
        ),
        passed=target.template.pass_environment,
        memory=wishes.memory,
        checkers=max(tuning.checkers, tuning.most_transfers // 2),
        extra=tuple(extra),
    )


def route(target: Target, source: Path, work: Path, wishes: Wishes, note: Note) -> Route:
    """Return the way from a folder to a target; raise ConfigurationError with all that is wrong."""
    remote = translate(target)
    return Route(
        source=source,
        target=target,
        remote=remote,
        rclone=rclone(target, remote, source, work, wishes),
        wishes=wishes,
        note=note,
    )


def fatal(target: Target, said: str) -> OrchestratorError | None:
    """Return the error to end with if the store would say the same of every file."""
    final = _kind(target, said) in ("access", "configuration")
    return explain(target.template, said) if final else None


def unreachable(target: Target, source: Path) -> OrchestratorError | None:
    """Return the error to end with if the store cannot be reached any more.

    rclone goes on for hours without a network: it tries each file 10 times, at last 2 s apart.
    """
    try:
        target.client.probe(target.prefix, source)
    except Exception as error:  # noqa: BLE001  # any error of any SDK
        said = target.redact(words(error))
        if _kind(target, said) == "network":
            return explain(target.template, said, amid=True)
    return None


def _kind(target: Target, said: str) -> str:
    known = recognise(target.template, said)
    return known.kind if known else ""


def upload_key(upload: Upload) -> Upload:
    """Return what one `rclone copy` has in common: headers and remote keys."""
    return Upload(headers=upload.headers, config=upload.config, content_type=upload.content_type)
