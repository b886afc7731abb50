"""What every stage of a run needs: source, target, ledger, rclone, and the user's wishes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.digest import digest
from orchestrator.ledger import Ledger, Row
from orchestrator.parallel import bounded_map
from orchestrator.progress import Observer
from orchestrator.rclone import Rclone
from orchestrator.remote import Remote
from orchestrator.storage import Target, Upload

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line may change about a run."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    transfers: int | None = None
    bwlimit: str | None = None
    bandwidth: float | None = None  # bytes a second, for the forecast
    skip_refused: bool = False
    overwrite_conflicts: bool = False
    sample: str = "default"
    seed: int | None = None
    attempts: int = 3
    thumbnails: bool = True


@dataclass(frozen=True, kw_only=True)
class Job:
    source: Path
    folder: Path
    target: Target
    remote: Remote
    ledger: Ledger
    rclone: Rclone
    observer: Observer
    wishes: Wishes
    throughput: list[tuple[float, int]] = field(default_factory=list)  # s, bytes sent by then
    local: threading.local = field(default_factory=threading.local)

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
            now = os.stat(self.path(row))  # noqa: PTH116  # surrogates in names
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
            with self.target.body(self.path(row), packed=row.packed) as body:
                found = digest(body, self.target.client.hasher())
        except OSError:
            return None
        return " ".join(found) if self.unchanged(row) else None

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Apply `function` in as many threads as the store likes."""
        return bounded_map(function, items, self.target.template.tuning.readers)


def upload_key(upload: Upload) -> Upload:
    """Return what one `rclone copy` has in common: headers and remote keys."""
    return Upload(headers=upload.headers, config=upload.config, content_type=upload.content_type)
