"""Run folders: made, found again, and locked, so that one run at a time works on them."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import ConfigurationError
from orchestrator.ledger import Ledger

LEDGER = "ledger.sqlite"


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
    """Make a run folder whose name sorts by time."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    folder = runs / f"{now}-{secrets.token_hex(2)}"
    (folder / "work").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    return folder


def latest(runs: Path, identity: Sequence[str]) -> Path | None:
    """Return the newest ledger of the same source and target that can be read."""
    for ledger in sorted(runs.glob(f"*/{LEDGER}"), reverse=True):
        if _identity(ledger) == list(identity):
            return ledger
    return None


def _identity(path: Path) -> object:
    """Return whose run a ledger is of; None for what is no sound ledger of this version."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        ledger = Ledger(path)
    except sqlite3.Error:
        return None
    try:
        return ledger.fact("identity") if ledger.sound() else None
    except (sqlite3.Error, ValueError):
        return None
    finally:
        ledger.close()


def open_ledger(folder: Path, runs: Path, identity: Sequence[str]) -> Ledger:
    """Open a new run's ledger, which starts with all that the last one knew."""
    path = folder / LEDGER
    if before := latest(runs, identity):
        old = Ledger(before)
        try:
            old.copy_to(path)
        finally:
            old.close()
    ledger = Ledger(path)
    ledger.set_fact("identity", list(identity))
    return ledger
