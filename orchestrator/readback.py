"""Read a sample of verified files back through the very class that the site will use."""

from __future__ import annotations

import io
import math
import posixpath
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.clients import Acl
from orchestrator.compare import Seen, by_class, by_client
from orchestrator.errors import ConfigurationError
from orchestrator.job import Job, Route, Wishes
from orchestrator.known import said
from orchestrator.ledger import OTHER_HEADERS, Glance, Ledger, Row, State
from orchestrator.template import Defect
from orchestrator.thumbnails import MOST, Picture, picture, worth_showing

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
PLAIN: Final = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]{0,150}(?<!\.)", re.ASCII)  # none of these
NOTED: Final = f"readback LIKE '{OTHER_HEADERS}%'"  # until a new look clears it
OK: Final = "ok"
DEFECT: Final = "defect of the class"
UNSETTLED: Final = "readback LIKE 'ACL %'"  # what was seen of ACLs, until all of them are known
KEPT: Final = "kept"
LACKS: Final = "lacks"
NONE_HAS: Final = "no object that was read back has its grants"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The names to read: those drawn at random, and one of each kind of file."""

    names: frozenset[str]
    drawn: frozenset[str]
    pictured: frozenset[str]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading a file showed; `fault` is '' unless that makes it unverified."""

    row: Row
    result: str
    fault: str = ""
    picture: Picture | None = None


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
            return f"{text}; {self.wrong} of them were not found as a save() would have them."
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


def draw(ledger: Ledger, wishes: Wishes, where: str) -> Sample:
    """Choose what to read back among the files of a state."""
    population, _ = ledger.count(where)
    seed = wishes.seed if wishes.seed is not None else random.randrange(1 << 32)  # noqa: S311
    drawn = sample_size(wishes.sample, population)
    return choose(ledger.glances(where), population, drawn, seed, pictures=wishes.thumbnails)


def choose(
    rows: Iterable[Glance], population: int, drawn: int, seed: int, *, pictures: bool = False
) -> Sample:
    """Draw at random, and add the first of each extension, batch and odd name, and the extremes."""
    places = set(random.Random(seed).sample(range(population), drawn))  # noqa: S311  # statistics
    random_names: set[str] = set()
    names: set[str] = set()
    shown: set[str] = set()
    kinds: set[Any] = set()
    extremes: dict[str, Glance] = {}
    for place, row in enumerate(rows):
        if place in places:
            random_names.add(row.name)
        if place in places or not kinds.issuperset(_kinds(row)):
            names.add(row.name)
            kinds.update(_kinds(row))
            if pictures and len(shown) < MOST and worth_showing(row.name, row.type, row.size):
                shown.add(row.name)
        _note_extremes(extremes, row)
    names |= {row.name for row in extremes.values()}
    return Sample(
        names=frozenset(names),
        drawn=frozenset(random_names),
        pictured=frozenset(shown),
        seed=seed,
    )


def _kinds(row: Glance) -> Iterator[tuple[str, Any]]:
    yield "extension", posixpath.splitext(row.name)[1].lower()
    yield "batch", row.batch
    yield "kind", row.kind
    yield "direct", bool(row.direct)
    if not row.size:
        yield "empty", True
    if not PLAIN.fullmatch(row.name):
        yield from (("odd", title) for title, pattern in ODD.items() if pattern.search(row.name))


def _note_extremes(extremes: dict[str, Glance], row: Glance) -> None:
    if "smallest" not in extremes or row.size < extremes["smallest"].size:
        extremes["smallest"] = row
    if "largest" not in extremes or row.size > extremes["largest"].size:
        extremes["largest"] = row


def read_back(job: Job, sample: Sample) -> list[Picture]:
    """Read what of the sample was not read yet, and note the results in the ledger."""
    read = {row.name for row in job.ledger.glances(f"readback IS NOT NULL AND NOT {NOTED}")}
    noted = {row.name for row in job.ledger.glances(f"{VERIFIED} AND {NOTED}")}
    rows = list(job.ledger.named(sample.names - read | noted, VERIFIED))
    job.observer.stage("reading back", len(rows), sum(row.size for row in rows))
    return list(_read(job, rows, sample.pictured))


def _read(job: Job, rows: list[Row], pictured: frozenset[str]) -> Iterator[Picture]:
    size = 0
    readings = job.map(lambda row: judge(job, row, row.name in pictured), rows)
    for done, reading in enumerate(readings, 1):
        size += reading.row.size
        state = State.FAILED if reading.fault else State.VERIFIED
        values = (reading.result, state, reading.fault, reading.row.name)
        job.ledger.update("readback state reason", [values])
        job.observer.advance(done, size)
        if reading.picture:
            yield reading.picture


def state(ledger: Ledger, sample: Sample) -> Statement:
    """Say what all that was read in this run proves."""
    read = drawn = 0
    for row in ledger.glances("readback IS NOT NULL AND state <> 'gone'"):
        read += 1
        drawn += row.name in sample.drawn
    wrong, _ = ledger.count("readback IS NOT NULL AND state = 'failed'")
    unreadable, _ = ledger.count(f"{VERIFIED} AND readback LIKE '{DEFECT}%'")
    population = ledger.count(VERIFIED)[0] + wrong
    return Statement(
        read=read,
        wrong=wrong,
        unreadable=unreadable,
        drawn=drawn,
        population=population,
        seed=sample.seed,
        confidence=CONFIDENCE,
        bound=bound(drawn, population),
    )


def noted(row: Row) -> bool:
    """Say whether the object was found with other headers before; only a new look clears it."""
    return (row.readback or "").startswith(OTHER_HEADERS)


def judge(route: Route, row: Row, pictured: bool) -> Reading:
    """Read one object through the class, and compare its bytes and headers with a save()'s."""
    seen = Seen(body=io.BytesIO() if pictured else None)
    fault = by_class(route, row, seen)
    defect = next((d for d in route.target.defects if d.match.search(fault)), None)
    if fault and defect and _excuses(route, row, defect):
        return Reading(row=row, result=f"{DEFECT}: {defect.says}")
    if fault:
        return Reading(row=row, result=fault, fault=fault)
    opened, acl = _acl(route, row)
    difference = headers(route, row, seen.headers)
    return Reading(
        row=row,
        result=opened or difference or acl or OK,
        fault=opened or (difference if row.written else ""),
        picture=picture(route.path(row), row.name, seen.body) if seen.body else None,
    )


def _excuses(route: Route, row: Row, defect: Defect) -> bool:
    """A foreseen defect explains a failure only where the bytes in the store are right."""
    foreseen = defect.above is not None or defect.below is not None
    return not foreseen or not by_client(route, row)


def headers(route: Route, row: Row, told: Mapping[str, Any] | None = None) -> str:
    """Return '' if the object has the headers of a save(), else the first that differs.

    An object that no run of ours wrote keeps its headers; the report names the difference.
    """
    if row.key is None:
        return ""
    target = route.own_target()
    expected = target.parameters(row.key)
    found = target.client.head(row.key) if told is None else told
    for name, value in found.items():
        wanted = _comparable(name, expected)
        if wanted != (value or None):
            return f"{OTHER_HEADERS}: {name} is {value!r}, and Django would store {wanted!r}"
    return ""


def _comparable(name: str, expected: Mapping[str, Any]) -> Any:
    value = expected.get(name)
    if name == "StorageClass":
        return value or "STANDARD"
    if isinstance(value, Mapping):
        return {k.lower(): v for k, v in value.items()} or None
    return value or None


# ACLs. Many stores ignore them: whether one that lacks a grant is a fault, all ACLs together say.


def _acl(route: Route, row: Row) -> tuple[str, str]:
    """Return what is wrong in any case, as a grant that nobody asked for, and what was seen."""
    if row.key is None:
        return "", ""
    target = route.own_target()
    try:
        acl = target.client.acl(row.key, target.parameters(row.key))
    except Exception as error:  # noqa: BLE001  # any error of any SDK is a failed read
        route.forget_target()
        return target.redact(f"reading its ACL failed: {said(error)}"), ""
    if acl is None:
        return "", ""
    if beyond := ", ".join(sorted(acl.found - acl.given)):
        theirs = "" if row.written else "; no run of ours wrote it: change its ACL in the store"
        return f"{OTHER_HEADERS}: its ACL grants {beyond}, and {acl.asked} does not{theirs}", ""
    return "", f"ACL {acl.asked}: {_seen(acl)}"


def _seen(acl: Acl) -> str:
    if acl.untold:
        return f"the store says {acl.untold}"
    lacking = ", ".join(sorted(acl.given - acl.found))
    return f"{LACKS} {lacking}" if lacking else KEPT


def settle_acls(ledger: Ledger) -> list[str]:
    """Fail the files whose ACL lacks a grant that others have by the same ACL.

    Where none has it, the store ignores ACLs: return what remains unproven, in a sentence each.
    """
    found = ledger.select(f"SELECT DISTINCT readback FROM entry WHERE {VERIFIED} AND {UNSETTLED}")  # noqa: S608  # ours
    seen = [text.removeprefix("ACL ").split(": ", 1) for (text,) in found]
    keeping = {asked for asked, what in seen if what == KEPT}
    unproven = set()
    for asked, what in seen:
        if what.startswith(LACKS) and asked in keeping:
            _fail(ledger, asked, what)
        elif what != KEPT:
            unproven.add((asked, NONE_HAS if what.startswith(LACKS) else what))
    ledger.execute(f"UPDATE entry SET readback = '{OK}' WHERE {VERIFIED} AND {UNSETTLED}")  # noqa: S608  # ours
    return [_unproven(*one) for one in sorted(unproven)]


def _fail(ledger: Ledger, asked: str, what: str) -> None:
    """Take it for other headers: of an object that no run of ours wrote it is only noted."""
    reason = f"{OTHER_HEADERS}: its ACL {what}, and Django would store {asked}"
    ledger.execute(
        "UPDATE entry SET readback = ?1, reason = iif(written, ?1, reason), "
        "state = iif(written, 'failed', state) WHERE readback = ?2",
        (reason, f"ACL {asked}: {what}"),
    )


def _unproven(asked: str, why: str) -> str:
    return (
        f"that the objects have the ACL {asked} is not proven: {why}; see whether visitors can "
        "open what they should, and nothing else"
    )
