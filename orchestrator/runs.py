"""Run folders: made, found again, and locked, so that one run at a time works on them."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.errors import ConfigurationError
from orchestrator.ledger import SCHEMA, Ledger

LEDGER = "ledger.sqlite"
DAMAGED = "damaged"
STAMP = "%Y%m%dT%H%M%S.%fZ"


@contextmanager
def locked(runs: Path) -> Iterator[None]:
    """Hold the only place in a runs folder; the kernel frees it when the process ends."""
    try:
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(runs / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        what = f"the run folder {runs} cannot be written: {error.strerror}"
        raise ConfigurationError(what, tip="choose another one with --run-dir") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        what = f"another run is at work in {runs}"
        raise ConfigurationError(what, tip="wait for it to end; its lock ends with it") from error
    try:
        yield
    finally:
        os.close(lock)


def create(runs: Path) -> Path:
    """Make a run folder whose name sorts behind all others, even where the clock went back."""
    now = datetime.now(UTC)
    for other in runs.glob("*Z-*"):
        with suppress(ValueError, OverflowError):  # no run of ours, or the last moment of 9999
            begun = datetime.strptime(other.name.partition("-")[0], STAMP).replace(tzinfo=UTC)
            now = max(now, begun + timedelta(microseconds=1))
    folder = runs / f"{now.strftime(STAMP)}-{secrets.token_hex(2)}"
    (folder / "work").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    return folder


def open_ledger(folder: Path, runs: Path, identity: Sequence[str]) -> Ledger:
    """Open a new run's ledger, which starts with all that the last one knew.

    One that is damaged is left aside, and named in the new one.
    """
    path, damaged = folder / LEDGER, list[str]()
    for before in sorted(runs.glob(f"*/{LEDGER}"), reverse=True):
        try:
            if _copied(before, path, identity, thorough=bool(damaged)):
                break
        except (sqlite3.Error, ValueError):
            damaged.append(before.parent.name)
            path.unlink(missing_ok=True)
    ledger = Ledger(path)
    ledger.set_fact("identity", list(identity))
    ledger.set_fact(DAMAGED, damaged)
    return ledger


def _copied(before: Path, path: Path, identity: Sequence[str], *, thorough: bool) -> bool:
    """Copy a ledger of the same source and target; raise sqlite3.Error for a damaged one.

    It is looked at thoroughly where its run did not end well, or where a later one is damaged,
    which may have come from here.
    """
    if before.is_symlink() or not before.is_file():
        raise sqlite3.DatabaseError("no file of ours")
    with closing(Ledger(before)) as old:
        if old.schema != SCHEMA or old.fact("identity") != list(identity):
            return False
        summary = old.fact("summary", {})
        if not isinstance(summary, dict):
            raise sqlite3.DatabaseError("damaged")
        well = summary.get("run") == before.parent.name and summary.get("verdict") != "failed"
        if not old.sound(thorough=thorough or not well):
            raise sqlite3.DatabaseError("damaged")
        old.copy_to(path)
    return True
