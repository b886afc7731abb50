"""One SQLite file a run: a row a file, its state and its evidence; the truth for resume and report.

Rollback journal, not WAL: the ledger is one file that may be copied at any time, writes come in
few large transactions, and SQLite guarantees either journal against a power cut.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.clients import Stored
from orchestrator.inventory import Entry
from orchestrator.parallel import chunks

SCHEMA = 2
CHUNK = 5000
NAMED_AT_ONCE = 500  # SQLite takes some thousand values
OTHER_HEADERS = (
    "other headers"  # begins what a read-back notes of an object that save() would not make
)


class State(StrEnum):
    """Where a source entry stands; every entry is in exactly one state."""

    CANDIDATE = "candidate"  # seen by the inventory, not yet planned
    EXCLUDED = "excluded"
    REFUSED = "refused"
    CONFLICT = "conflict"
    PLANNED = "planned"
    PRESENT = "present"  # in the store, not yet proven
    VERIFIED = "verified"
    FAILED = "failed"
    GONE = "gone"  # no longer in the source, so no entry of it


class Change(StrEnum):
    """What a file is to the store, as the plan found it."""

    NEW = "new"
    SAME = "same"
    CHANGED = "changed"
    CONFLICT = "conflict"


class Row(NamedTuple):
    """A file of the ledger; sizes in bytes, times in ns, `hashes` joined by blanks.

    No dataclass: there are millions of them, and a frozen one takes six times as long to make.
    """

    name: str
    kind: str
    size: int
    mtime_ns: int
    ctime_ns: int
    key: str | None
    slot: str | None
    type: str | None
    batch: int | None
    direct: str | None
    packed: bool
    hashes: str | None
    state: State
    reason: str
    change: Change | None
    evidence: str | None
    tags: str | None
    written: bool
    readback: str | None


class Glance(NamedTuple):
    """What the sample is drawn by."""

    name: str
    kind: str
    size: int
    type: str | None
    batch: int | None
    direct: str | None


COLUMNS = ", ".join(Row._fields)
PAIR = ", ".join([*(f"e.{name}" for name in Row._fields), "s.key, s.size, s.hash, s.tag"])
PAIRED = "FROM entry e LEFT JOIN stored s ON s.slot = e.slot"
TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entry (
  name PRIMARY KEY NOT NULL,  -- TEXT, or BLOB where the name is not UTF-8
  kind TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
  key TEXT,
  folded TEXT,                -- where it is not the key itself
  slot TEXT AS (coalesce(folded, key)) VIRTUAL,
  type TEXT, batch INTEGER, direct TEXT, packed INTEGER NOT NULL DEFAULT 0,
  hashes TEXT,                -- of the local content, in the store's own forms
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', change TEXT,
  evidence TEXT,              -- hash | bytes
  tags TEXT,                  -- of the object when it was proven, or is about to be
  written INTEGER NOT NULL DEFAULT 0,  -- a run of ours put it there
  readback TEXT,
  walk INTEGER NOT NULL
);
CREATE INDEX entry_state ON entry (state, name);
CREATE INDEX entry_slot ON entry (slot);
CREATE INDEX entry_direct ON entry (name) WHERE direct IS NOT NULL;
CREATE INDEX entry_readback ON entry (name) WHERE readback IS NOT NULL;
CREATE TABLE stored (
  slot TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL, hash TEXT, tag TEXT,
  PRIMARY KEY (slot, key)
) WITHOUT ROWID;
"""
# An inventory keeps what is known of an unchanged file. Of a changed one it forgets the hashes,
# after noting them as the tags of an object of ours if an earlier run ended while storing it.
# An object that was found with other headers stays noted until a new look clears it.
UPSERT = """
INSERT INTO entry (name, kind, size, mtime_ns, ctime_ns, state, reason, walk)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET
  tags = CASE WHEN :same THEN tags WHEN state IN ('planned', 'present')
         THEN trim(coalesce(tags, '') || ' ' || coalesce(hashes, '')) ELSE tags END,
  hashes = CASE WHEN :same THEN hashes END,
  evidence = CASE WHEN :same AND state = 'verified' THEN evidence END,
  readback = CASE WHEN :same AND readback LIKE ':other%' THEN readback END,
  change = NULL,
  kind = excluded.kind, size = excluded.size,
  mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns,
  state = excluded.state, reason = excluded.reason, walk = excluded.walk
""".replace(
    ":same",
    "(size = excluded.size AND mtime_ns = excluded.mtime_ns AND ctime_ns = excluded.ctime_ns)",
).replace(":other", OTHER_HEADERS)

# What a damaged file can hold though SQLite itself finds no fault.
NUMBERS = ("size", "mtime_ns", "ctime_ns", "packed", "written", "walk")
TEXTS = ("key", "slot", "type", "direct", "hashes", "reason", "change", "evidence", "tags")
STRANGE = " OR ".join(
    [
        *(f"typeof({column}) <> 'integer'" for column in NUMBERS),
        *(f"typeof({column}) NOT IN ('text', 'null')" for column in (*TEXTS, "kind", "readback")),
        "typeof(batch) NOT IN ('integer', 'null')",
        f"change NOT IN ({', '.join(f'{change!r}' for change in map(str, Change))})",
        "typeof(name) NOT IN ('text', 'blob')",
    ]
)


@cache
def _made() -> frozenset[tuple[str, str]]:
    """Return what our own tables are in SQLite's list of them."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        return frozenset(db.execute("SELECT type, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


class Ledger:
    """The connection to one run's ledger; all its methods may raise sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA cache_size = -32768")
        if not self.schema:
            with self.transaction():
                for statement in TABLES.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    @property
    def schema(self) -> int:
        return int(self._one("PRAGMA user_version"))

    def sound(self, *, thorough: bool) -> bool:
        """Say whether it is whole, of this version, and has nothing but what we put there.

        Torn pages make indexes that do not fit their table, which only the thorough check sees.
        """
        made = self._db.execute("SELECT type, sql FROM sqlite_schema WHERE sql IS NOT NULL")
        if self.schema != SCHEMA or {*made.fetchall()} != _made():
            return False
        known = ", ".join(f"'{state}'" for state in State)
        strange = f"SELECT 1 FROM entry WHERE state NOT IN ({known}) OR {STRANGE} LIMIT 1"  # noqa: S608  # ours
        check = "integrity_check(1)" if thorough else "quick_check(1)"
        return self._one(f"PRAGMA {check}") == "ok" and not self.select(strange)

    def close(self) -> None:
        self._db.close()

    def copy_to(self, path: Path) -> None:
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Facts: small values about the run as a whole.

    def fact(self, name: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_fact(self, name: str, value: Any) -> None:
        self._db.execute("REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value)))

    # The inventory.

    def walk(self, entries: Iterable[Entry]) -> None:
        """Take in an inventory; rows that it does not see again are `gone`."""
        number = self.fact("walk", 0) + 1
        with self.transaction():
            rows = (
                (_out(e.name), e.kind, e.size, e.mtime_ns, e.ctime_ns, e.fate, e.reason, number)
                for e in entries
            )
            self._many(UPSERT, rows)
            self._db.execute(
                "UPDATE entry SET state = 'gone' WHERE walk < ? AND state <> 'gone'", (number,)
            )
            self.set_fact("walk", number)

    # The store's listing.

    def observe(self, objects: Iterable[Stored], slot: Any) -> None:
        """Take in a whole listing of the store, in place of the one before."""
        with self.transaction():
            self._db.execute("DELETE FROM stored")
            rows = ((slot(o.key), o.key, o.size, o.hash, o.tag) for o in objects)
            self._many("REPLACE INTO stored VALUES (?, ?, ?, ?, ?)", rows)

    def extra(self) -> int:
        """Count the objects that belong to no entry."""
        return int(
            self._one(
                "SELECT count(*) FROM stored s WHERE NOT EXISTS (SELECT 1 FROM entry e "
                "WHERE e.slot = s.slot AND e.state <> 'gone') AND s.key NOT LIKE '%/'"
            )
        )

    # Rows.

    def rows(self, where: str = "1", values: tuple[Any, ...] = ()) -> Iterator[Row]:
        """Yield the rows in the order of their names; the ledger may be written meanwhile."""
        return map(_row, self.values(COLUMNS, where, values))

    def values(
        self, columns: str, where: str = "1", values: tuple[Any, ...] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Yield columns, of which `name` is the first, as rows() does."""
        select = f"SELECT {columns} FROM entry WHERE ({where})"  # noqa: S608  # ours
        yield from self._pages(select, "name", "", values)

    def pairs(self, where: str) -> Iterator[tuple[Row, Stored | None]]:
        """Yield each row with the object in its slot, if there is one."""
        select = f"SELECT {PAIR} {PAIRED} WHERE ({where})"
        for *row, key, size, value, tag in self._pages(select, "e.name", "GROUP BY e.name"):
            stored = Stored(key=key, size=size, hash=value, tag=tag) if key is not None else None
            yield _row(row), stored

    def _pages(
        self, select: str, name: str, group: str, values: tuple[Any, ...] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Yield what a SELECT finds, a page at a time, each from where the last one ended."""
        order = f"{group} ORDER BY {name} LIMIT {CHUNK}"
        found = self._db.execute(f"{select} {order}", values).fetchall()
        yield from found
        while len(found) == CHUNK:
            after = (*values, found[-1][0])
            found = self._db.execute(f"{select} AND {name} > ? {order}", after).fetchall()
            yield from found

    def named(self, names: Iterable[str], where: str) -> Iterator[Row]:
        """Yield those of the named rows for which `where` holds."""
        for some in chunks(sorted(names), NAMED_AT_ONCE):
            listed = ", ".join("?" * len(some))
            yield from self.rows(f"name IN ({listed}) AND {where}", tuple(map(_out, some)))

    def glances(self, where: str) -> Iterator[Glance]:
        """Yield what the sample is drawn by, in the order of the names; read to the end at once."""
        columns = ", ".join(Glance._fields)
        found = self._db.execute(f"SELECT {columns} FROM entry WHERE {where} ORDER BY name")  # noqa: S608  # ours
        for name, *rest in found:
            yield Glance(os.fsdecode(name) if isinstance(name, bytes) else name, *rest)

    def update(self, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Set the named columns; each row holds their values, then the name of the file."""
        setters = ", ".join(f"{column} = ?" for column in columns.split())
        statement = f"UPDATE entry SET {setters} WHERE name = ?"  # noqa: S608  # ours
        with self.transaction():
            self._many(statement, ((*row[:-1], _out(row[-1])) for row in rows))

    def _many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Run a statement for each row.

        Rows are made and written in turns of many: one by one, the code of Python, of the classes
        and of SQLite drive each other out of the processor's caches.
        """
        for chunk in chunks(rows, CHUNK):
            self._db.executemany(statement, chunk)

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        self._db.execute(statement, values)

    def select(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._db.execute(statement, values).fetchall()

    def each(self, statement: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a SELECT finds, one by one; read to its end before the ledger is written."""
        return self._db.execute(statement)

    def count(self, where: str = "state <> 'gone'") -> tuple[int, int]:
        """Return the number of files and of bytes."""
        files, size = self.select(
            f"SELECT count(*), coalesce(sum(size), 0) FROM entry WHERE {where}"  # noqa: S608  # ours
        )[0]
        return int(files), int(size)

    def _one(self, statement: str) -> Any:
        return self._db.execute(statement).fetchone()[0]


def _out(name: str) -> str | bytes:
    """SQLite's TEXT is UTF-8: a name that is not goes in as its bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def decoded(name: str | bytes) -> str:
    """Return a name of the ledger as the file system has it."""
    return name if isinstance(name, str) else os.fsdecode(name)


_STATES = {state.value: state for state in State}
_CHANGES: dict[str | None, Change | None] = {None: None, **{c.value: c for c in Change}}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "name": decoded,
    "packed": bool,
    "state": _STATES.__getitem__,
    "change": _CHANGES.__getitem__,
    "written": bool,
}
_CONVERTED = [(Row._fields.index(name), convert) for name, convert in _CONVERT.items()]


def _row(values: Sequence[Any]) -> Row:
    found = list(values)
    for column, convert in _CONVERTED:
        found[column] = convert(found[column])
    return Row._make(found)
