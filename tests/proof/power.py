"""Cut the power under a migration: leave of its ledger what a disk may hold afterwards, and less.

A disk keeps what was synced; of later writes it keeps any part, in any order. So the files of the
ledger are put together from what they were at several moments of the run, torn, or shortened.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.proof.figures import Tally
from tests.proof.kills import COMMAND, Case, Ground
from tests.proof.moves import other
from tests.proof.trial import SECONDS, Going, Held

PAGE = 4096
EVERY = 0.05  # seconds between two looks at the ledger
LEDGER, JOURNAL = "ledger.sqlite", "ledger.sqlite-journal"
CLEAR = (2, 5, 6)  # exit codes of errors that a user can do something about

Seen = list[Mapping[str, bytes]]
Damage = Callable[[Random, Path, Seen], None]


def _cut(draw: Random, folder: Path, seen: Seen) -> None:
    """The file ends somewhere: at a page, or within one."""
    data = (folder / LEDGER).read_bytes()
    end = draw.randrange(len(data) + 1)
    (folder / LEDGER).write_bytes(data[: draw.choice((end, end // PAGE * PAGE, len(data) // 2))])


def _empty(draw: Random, folder: Path, seen: Seen) -> None:
    (folder / LEDGER).write_bytes(b"")


def _zeros(draw: Random, folder: Path, seen: Seen) -> None:
    """The file has its length, but some of its pages never reached the disk."""
    data = bytearray((folder / LEDGER).read_bytes())
    for start in _pages(draw, data):
        data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    (folder / LEDGER).write_bytes(data)


def _older(draw: Random, folder: Path, seen: Seen) -> None:
    """The file and its journal are of one earlier moment, or of two."""
    _write(folder, {**draw.choice(seen), JOURNAL: draw.choice(seen).get(JOURNAL, b"")})


def _torn(draw: Random, folder: Path, seen: Seen) -> None:
    """Some pages are of an earlier moment, and no journal tells which."""
    data, old = bytearray((folder / LEDGER).read_bytes()), draw.choice(seen).get(LEDGER, b"")
    for start in _pages(draw, data):
        if start + PAGE <= len(old):
            data[start : start + PAGE] = old[start : start + PAGE]
    _write(folder, {LEDGER: bytes(data)})


def _half_a_journal(draw: Random, folder: Path, seen: Seen) -> None:
    """The journal is shorter than what it should roll back."""
    journals = [one for one in seen if one.get(JOURNAL)]
    chosen = dict(draw.choice(journals or seen))
    journal = chosen.get(JOURNAL, b"")
    _write(folder, {**chosen, JOURNAL: journal[: draw.randrange(len(journal) + 1)]})


DAMAGES: tuple[Damage, ...] = (_cut, _empty, _zeros, _older, _torn, _half_a_journal)


def _pages(draw: Random, data: bytes | bytearray) -> list[int]:
    pages = range(0, len(data), PAGE)
    return draw.sample(pages, min(len(pages), draw.choice((1, 2, len(pages) // 2))))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name in (LEDGER, JOURNAL):
        (folder / name).unlink(missing_ok=True)
        if files.get(name):
            (folder / name).write_bytes(files[name])


@dataclass(frozen=True, kw_only=True)
class Cut:
    """When the power fails, what that does to the ledger, and to an object of the store."""

    moment: float
    damage: Damage
    store: str  # "" | "changed" | "deleted": by somebody else, before the next run
    seed: int


def cuts(seed: int, seconds: float, number: int) -> list[Cut]:
    draw = Random(seed)
    return [
        Cut(
            moment=draw.uniform(seconds / 4, seconds),
            damage=DAMAGES[n % len(DAMAGES)],
            store=draw.choice(("", "changed", "deleted")),
            seed=draw.randrange(1 << 32),
        )
        for n in range(number)
    ]


def go_through(ground: Ground, name: object, cut: Cut) -> Tally:
    case, draw = ground.case(f"cut-{name}", ()), Random(cut.seed)
    with case.trial.cleared():
        seen = _killed(case, cut.moment)
        if seen:
            cut.damage(draw, case.trial.newest(LEDGER).parent, seen)
        tampered = _tamper(draw, case, cut.store)
        again = case.trial.go(*COMMAND, name="again")
        case.wrong += _judge(case, again, ground, tampered)
    what = f"{cut.damage.__name__[1:]}, object {cut.store or 'left alone'}, {cut.moment:.3f} s"
    return Tally(cases=1, missed=[f"{what}: {'; '.join(case.wrong)}"] if case.wrong else [])


def _killed(case: Case, moment: float) -> Seen:
    """Kill a run at this moment; return what its ledger was until then."""
    going, seen = case.trial.go(*COMMAND, name="cut"), list[Mapping[str, bytes]]()
    for _ in range(int(moment / EVERY)):
        if going.ended_within(EVERY):
            break
        seen += _look(case)
    going.send(signal.SIGKILL)
    going.ended_within(SECONDS)
    while case.trial.at_work():
        going.ended_within(EVERY)
    return [*seen, *_look(case)]


def _look(case: Case) -> Iterator[Mapping[str, bytes]]:
    for ledger in sorted(case.trial.site.runs.glob(f"2*/{LEDGER}"))[-1:]:
        found = {}
        for path in (ledger, ledger.with_name(JOURNAL)):
            with suppress(FileNotFoundError):  # SQLite removes the journal with each commit
                found[path.name] = path.read_bytes()
        yield found


def _tamper(draw: Random, case: Case, what: str) -> str:
    """Change or delete an object behind everybody's back; return the key of one that is changed."""
    keys = sorted(key for key in case.trial.holds() if key.endswith(".jpg"))
    if not keys or not what:
        return ""
    key = draw.choice(keys)
    if what == "deleted":
        case.trial.delete(key)
        return ""
    data = (case.trial.store.folder / key).read_bytes()
    case.trial.put(key, other(data) if data else b"other")
    return key


def _judge(case: Case, again: Going, ground: Ground, tampered: str) -> Iterator[str]:
    """A clear refusal is allowed; a false verified, a traceback or a bug of ours is not."""
    code, said = again.code, again.said()
    if "Traceback" in said or "bug of ours" in said:
        yield f"the next run fails: {said[-1000:]}"
        return
    if code in CLEAR and not again.report() and '"tip": ""' not in said:
        return
    undisturbed = ground.undisturbed
    holds, ledger = case.trial.holds(), case.trial.ledger()
    same = {key for key, digest in undisturbed.digests.items() if _digest(holds, key) == digest}
    unsettled = bool(tampered) and tampered not in same
    for name in sorted({*ledger, *undisturbed.ledger}):
        found, expected = (_lasting(rows.get(name, {})) for rows in (ledger, undisturbed.ledger))
        if found.get("state") == "verified" and case.trial.store.name(found["key"]) not in same:
            yield f"{name} is verified and is not what the store holds"
        elif _half_saved(case, ground.media / name, found):
            unsettled = True
        elif found != expected and (not tampered or found.get("key") != tampered):
            yield f"the ledger says of {name} {found}, not {expected}"
    if code != (7 if unsettled else 0):
        yield f"the next run ends with {code}: {said[-1000:]}"


def _half_saved(case: Case, file: Path, facts: Mapping[str, Any]) -> bool:
    """A beginning of a file that the class saves itself is ours, or so the lost ledger said.

    Without it nobody knows; that it is told as a conflict is right.
    """
    if facts.get("state") != "conflict" or not facts["direct"]:
        return False
    stored, data = (case.trial.store.folder / facts["key"]).read_bytes(), file.read_bytes()
    return len(stored) < len(data) and data.startswith(stored)


def _digest(holds: Mapping[str, Held], key: str) -> str:
    return holds[key].digest if key in holds else ""


def _lasting(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what only the lost ledger could know: who wrote the object."""
    return {name: value for name, value in facts.items() if name != "written"}
