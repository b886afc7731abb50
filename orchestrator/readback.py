"""Read a sample of verified files back through the very class that the site will use."""

from __future__ import annotations

import math
import posixpath
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.compare import by_class, by_client
from orchestrator.errors import ConfigurationError
from orchestrator.job import Job
from orchestrator.ledger import Row, State
from orchestrator.template import Defect

VERIFIED: Final = "state = 'verified'"
CONFIDENCE: Final = 0.95
PROPORTION: Final = 0.01  # of files that may be unreadable, in the default statement
ODD: Final = {  # classes of names that have broken storages before: facts, names
    "space": re.compile(r"\s"),
    "percent, hash or question mark": re.compile(r"[%#?&+]"),
    "backslash": re.compile(r"\\"),
    "control character": re.compile(r"[\x00-\x1f\x7f]"),
    "dot at an end": re.compile(r"(^|/)\.|\.$"),
    "not ASCII": re.compile(r"[^\x00-\x7f]"),
    "long": re.compile(r"[^/]{200}"),
    "leading hyphen": re.compile(r"(^|/)-"),
}
OK: Final = "ok"
DEFECT: Final = "defect of the class"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The names to read: those drawn at random, and one of each kind of file."""

    names: frozenset[str]
    drawn: int
    population: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What reading the sample proves, in figures."""

    read: int
    wrong: int
    unreadable: int
    drawn: int
    population: int
    seed: int
    confidence: float
    bound: float  # the share of unreadable files that the sample excludes at that confidence

    def words(self, class_name: str) -> str:
        text = f"{self.read} of {self.population} files were read back through {class_name}"
        if self.wrong:
            return f"{text}; {self.wrong} of them could not be read as they are on the disk."
        if self.unreadable:
            return (
                f"{text}; {self.unreadable} of them it cannot read for a defect of its own, though "
                "the store holds them as they are on the disk; the others are equal."
            )
        if self.read >= self.population:
            return f"{text}: all of them, and all are equal."
        percent = f"{self.confidence * 100:g} % confidence"
        return (
            f"{text}, all equal; with {percent} fewer than {self.bound * 100:.2g} % are unreadable."
        )


def sample_size(wish: str, population: int) -> int:
    """Return how many files to draw: `default`, `all`, or the share to exclude, as in 0.1%.

    Source: with n sound files drawn, a share p of bad ones is excluded at the confidence c
    as soon as (1 - p)^n <= 1 - c.
    """
    if wish == "all":
        return population
    share = PROPORTION
    if wish != "default":
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", wish)
        share = float(found[1]) / 100 if found else 0.0
        if not 0 < share < 1:
            raise ConfigurationError(
                f"--sample {wish}: not a share of the files", tip="give all, or a share as in 0.1%"
            )
    return min(population, math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - share)))


def bound(drawn: int, population: int) -> float:
    """Return the share of bad files that `drawn` sound ones exclude at the usual confidence."""
    if drawn >= population:
        return 0.0
    return float(1 - (1 - CONFIDENCE) ** (1 / drawn)) if drawn else 1.0


def choose(rows: Iterable[Row], population: int, drawn: int, seed: int) -> Sample:
    """Draw at random, and add the first of each extension, batch and odd name, and the extremes."""
    places = set(random.Random(seed).sample(range(population), drawn))  # noqa: S311  # statistics
    names: set[str] = set()
    kinds: set[Any] = set()
    extremes: dict[str, Row] = {}
    for place, row in enumerate(rows):
        new = set(_kinds(row)) - kinds
        kinds |= new
        if new or place in places:
            names.add(row.name)
        _note_extremes(extremes, row)
    names |= {row.name for row in extremes.values()}
    return Sample(names=frozenset(names), drawn=drawn, population=population, seed=seed)


def _kinds(row: Row) -> Iterator[tuple[str, Any]]:
    yield "extension", posixpath.splitext(row.name)[1].lower()
    yield "batch", row.batch
    yield "kind", row.kind
    yield "direct", bool(row.direct)
    if not row.size:
        yield "empty", True
    for title, pattern in ODD.items():
        if pattern.search(row.name):
            yield "odd", title


def _note_extremes(extremes: dict[str, Row], row: Row) -> None:
    if "smallest" not in extremes or row.size < extremes["smallest"].size:
        extremes["smallest"] = row
    if "largest" not in extremes or row.size > extremes["largest"].size:
        extremes["largest"] = row


def read_back(job: Job) -> Statement:
    """Read the sample, compare bytes and headers, and note the result in the ledger."""
    population, _ = job.ledger.count(VERIFIED)
    drawn = sample_size(job.wishes.sample, population)
    seed = job.wishes.seed if job.wishes.seed is not None else random.randrange(1 << 32)  # noqa: S311
    sample = choose(job.ledger.rows(VERIFIED), population, drawn, seed)
    rows = [row for row in job.ledger.rows(VERIFIED) if row.name in sample.names]
    job.observer.stage("reading back", len(rows), sum(row.size for row in rows))
    wrong = _read(job, rows)
    defective = VERIFIED + f" AND readback LIKE '{DEFECT}%'"
    return Statement(
        read=len(rows),
        wrong=wrong,
        unreadable=sum(row.name in sample.names for row in job.ledger.rows(defective)),
        drawn=drawn,
        population=population,
        seed=seed,
        confidence=CONFIDENCE,
        bound=bound(drawn, population),
    )


def _read(job: Job, rows: list[Row]) -> int:
    wrong = size = 0
    for done, (row, result, fault) in enumerate(job.map(lambda r: _judge(job, r), rows), 1):
        size += row.size
        wrong += bool(fault)
        state = State.FAILED if fault else State.VERIFIED
        job.ledger.update("readback state reason", [(result, state, fault, row.name)])
        job.observer.advance(done, size)
    return wrong


def _judge(job: Job, row: Row) -> tuple[Row, str, str]:
    """Return what reading the object showed, and '' unless that makes the file unverified."""
    fault = by_class(job, row)
    defect = next((d for d in job.target.defects if d.match.search(fault)), None)
    if fault and defect and _excuses(job, row, defect):
        return row, f"{DEFECT}: {defect.says}", ""
    if fault:
        return row, fault, fault
    difference = headers(job, row)
    return row, difference or OK, difference if row.written else ""


def _excuses(job: Job, row: Row, defect: Defect) -> bool:
    """A foreseen defect explains a failure only where the bytes in the store are right."""
    foreseen = defect.above is not None or defect.below is not None
    return not foreseen or not by_client(job, row)


def headers(job: Job, row: Row) -> str:
    """Return '' if the object has the headers of a save(), else the first that differs.

    An object that no run of ours wrote keeps its headers; the report names the difference.
    """
    if row.key is None:
        return ""
    target = job.own_target()
    expected = target.parameters(row.key)
    for name, value in target.client.head(row.key).items():
        wanted = _comparable(name, expected)
        if wanted != (value or None):
            return f"{name} is {value!r}, and Django would store {wanted!r}"
    return ""


def _comparable(name: str, expected: Mapping[str, Any]) -> Any:
    value = expected.get(name)
    if name == "StorageClass":
        return value or "STANDARD"
    if isinstance(value, Mapping):
        return {k.lower(): v for k, v in value.items()} or None
    return value or None
