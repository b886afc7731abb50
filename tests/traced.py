"""The program as it is, which notes at its end the SQL that it ran and the memory that it took.

Called as `python -m tests.traced NOTES.json [ARGUMENTS OF THE PROGRAM]`.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

VALUE = re.compile(r"x?'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b|\bNULL\b")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Statements that differ by their values only; `plan` is SQLite's own."""

    sql: str
    count: int
    plan: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What one call of the program did; `rss` is its highest, in bytes."""

    kinds: tuple[Kind, ...]
    rss: int

    @property
    def statements(self) -> int:
        return sum(kind.count for kind in self.kinds)


def read(path: Path) -> Notes:
    found: Mapping[str, Any] = json.loads(path.read_text())
    kinds = (
        Kind(sql=kind["sql"], count=kind["count"], plan=tuple(kind["plan"]))
        for kind in found["kinds"]
    )
    return Notes(kinds=tuple(kinds), rss=found["rss"])


class _Trace:
    """Counts statements, and keeps the first of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.ledger = ""
        self._connect = sqlite3.connect

    def connect(self, path: Any, **options: Any) -> sqlite3.Connection:
        self.ledger = str(path)
        made: sqlite3.Connection = self._connect(path, **options)
        made.set_trace_callback(self._note)
        return made

    def _note(self, sql: str) -> None:
        kind = VALUE.sub("?", sql) if sql.startswith("SELECT") else sql[:40]
        self.counts[kind] += 1
        self.first.setdefault(kind, sql)

    def notes(self) -> Notes:
        with self._connect(self.ledger) as db:
            kinds = [
                Kind(sql=kind, count=number, plan=tuple(_plan(db, self.first[kind])))
                for kind, number in self.counts.items()
            ]
        return Notes(kinds=tuple(kinds), rss=_rss())


def _plan(db: sqlite3.Connection, sql: str) -> list[str]:
    if not sql.startswith(("SELECT", "UPDATE")):
        return []
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]


def _rss() -> int:
    # Not getrusage(): that of a new process begins with what its parent took.
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if "VmHWM" in line)) * 1024


def main() -> None:
    from orchestrator import cli

    notes, trace, leave = Path(sys.argv.pop(1)), _Trace(), os._exit

    def note() -> None:
        notes.write_text(json.dumps(asdict(trace.notes())))

    def noted(status: int) -> NoReturn:
        note()
        leave(status)

    sqlite3.connect = trace.connect  # type: ignore[assignment]
    os._exit = noted  # how the program ends where a thread of it still waits
    try:
        cli.main()
    finally:
        note()


if __name__ == "__main__":
    main()
