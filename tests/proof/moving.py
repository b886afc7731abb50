"""Move the ground under a migration, and judge whether all that it says is true at the end."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.conformance.test_no_secret_leaves import Secretive
from tests.proof.figures import Tally
from tests.proof.moves import Move, Source, flipped, moves, overwritten
from tests.proof.trial import SECONDS, Going, Held, Trial
from tests.servers.base import Server
from tests.servers.rclone_s3 import RcloneServer

COMMAND = ("migrate", "--sample=50%", "--no-thumbnails", "--skip-refused", "--transfers=4")
LOOK = 0.01  # seconds between two looks at what the program says
SETTLED = {"verified", "excluded", "refused", "conflict", "failed"}
WITHOUT_ROOT = "-dac_override,-dac_read_search"


class Subject(Secretive):
    """Runs the program without root's right to read what is closed."""

    def command(self, *args: str) -> list[str]:
        plain = super().command(*args)
        if os.geteuid():
            return plain
        dropped = (f"--bounding-set={WITHOUT_ROOT}", f"--inh-caps={WITHOUT_ROOT}")
        return ["setpriv", *dropped, *plain]


@dataclass(kw_only=True)
class Case:
    """A site whose ground moves."""

    trial: Trial
    source: Source
    stages: Mapping[str, float]  # how long each takes when nothing moves
    moves: list[Move] = field(default_factory=list)

    def of(self, name: str) -> list[Move]:
        return [move for move in self.moves if move.name == name]


def case(server: Server, folder: Path, seed: int, files: int) -> Case:
    """Make a media folder, and learn from a run into a bucket of its own what the stages are."""
    draw, media = Random(seed), folder / "media"
    source = Source(folder=media)
    for number in range(files):
        name = f"{number % 7 or 'still'}/{number}.jpg"
        path = media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(draw.randrange(100, 20_000)))
        source.note(name)
    calm = Trial.on(server, media, folder / "calm", Subject)
    with calm.cleared():
        stages = _stages(calm.go(*COMMAND))
    return Case(
        trial=Trial.on(server, media, folder / "site", Subject), source=source, stages=stages
    )


def _stages(going: Going) -> dict[str, float]:
    """Follow an undisturbed run; return how many seconds each stage takes."""
    began: dict[str, float] = {}
    while not going.ended_within(LOOK):
        began.setdefault(going.stage(), time.monotonic())
    assert going.code == 0, going.said()[-2000:]
    ends = [*began.values(), time.monotonic()][1:]
    lasting = zip(began.items(), ends, strict=True)
    return {stage: end - start for (stage, start), end in lasting if stage != "ended"}


def disturb(case: Case, seed: int) -> Going:
    """Run the program, and move files and objects when their stage has come."""
    names = [name for name in case.source.versions if not name.startswith("still/")]
    draw = Random(seed)
    # `rclone serve s3` keeps objects as files, and answers 500 where a folder would be a file.
    folders = not isinstance(case.trial.server, RcloneServer)
    case.moves = list(moves(draw, names, list(case.stages), folders=folders))
    left = sorted(case.moves, key=lambda move: move.share)
    going = case.trial.go(*COMMAND, name="moving")
    stage, since = "starting", time.monotonic()
    while left and not going.ended_within(LOOK):
        if going.stage() != stage:
            stage, since = going.stage(), time.monotonic()
        passed = list(case.stages)[: list(case.stages).index(stage)] if stage in case.stages else []
        into = (time.monotonic() - since) / case.stages.get(stage, 1)
        due = [m for m in left if m.stage in passed or (m.stage == stage and m.share <= into)]
        _make(case, going, due)
        left = [move for move in left if move not in due]
    going.ended_within(SECONDS)
    case.moves = [move for move in case.moves if move not in left]
    return going


def _make(case: Case, going: Going, due: list[Move]) -> None:
    for move in due:
        if move.standing:
            going.send(signal.SIGSTOP)
        if move.in_store:
            with suppress(FileNotFoundError):  # the object is not there yet
                move.in_store(Random(move.seed), case.trial, move.name)
        if move.in_source:
            move.in_source(Random(move.seed), case.source.folder / move.name)
            case.source.note(move.name)
            case.source.note(f"{Path(move.name).parent}/added-{Path(move.name).name}")
            case.source.note(f"{move.name}/inner.jpg")
        if move.standing:
            going.send(signal.SIGCONT)


def go_through(case: Case, seed: int) -> Tally:
    """Disturb one run, let the next settle it, and a third put right what is in conflict."""
    with case.trial.cleared():
        wrong = list(after_moving(case, disturb(case, seed)))
        second = case.trial.go(*COMMAND, name="second")
        wrong += settled(case, second)
        if second.report().get("states", {}).get("conflict"):
            third = case.trial.go(*COMMAND, "--overwrite-conflicts", name="third")
            wrong += _third(case, third)
    return Tally(cases=len(case.moves), missed=wrong)


def _sound(case: Case, going: Going) -> Iterator[str]:
    """Judge what is true of every run."""
    code, report, said = going.code, going.report(), going.said()
    name = going.out.stem
    if "Traceback" in said or "bug of ours" in said or not report:
        yield f"the {name} run breaks, {code}: {said[-1500:]}"
        return
    states = {state: count["files"] for state, count in report["states"].items()}
    if report["problems"]:
        yield f"the {name} run ends early: {report['problems']}"
    elif not states.keys() <= SETTLED or sum(states.values()) != report["entries"]["files"]:
        yield f"the {name} run does not account for all: {states} of {report['entries']}"
    everything = states.keys() <= {"verified", "excluded"}
    if (code == 0) != everything or (report["verdict"] == "verified") != everything:
        yield f"the {name} run ends with {code} and {report['verdict']} for {states}"


def after_moving(case: Case, going: Going) -> Iterator[str]:
    """What is verified has the very version that the ledger names, unless the store was moved."""
    yield from _sound(case, going)
    holds = case.trial.holds()
    for name, row in _rows(case).items():
        moved = case.of(name)
        if row["state"] != "verified" or any(move.in_store for move in moved):
            continue
        version = (row["size"], row["mtime_ns"], row["ctime_ns"])
        expected = case.source.versions.get(name, {}).get(version)
        if row["kind"] == "file" and (expected is None or _held(holds, row) != expected):
            yield f"verified, but another version is in the store: {_told(name, moved)}"


def settled(case: Case, going: Going) -> Iterator[str]:
    """Nothing moves any more: each file is as the store has it, or in conflict with others."""
    yield from _sound(case, going)
    holds, rows, current = case.trial.holds(), _rows(case), case.source.current()
    for name in sorted({*rows, *current}):
        row, moved = rows.get(name), case.of(name)
        foreign = any(move.in_store in (overwritten, flipped) for move in moved)
        if row is None:
            yield f"not in the ledger: {_told(name, moved)}"
        elif name not in current and row["state"] not in ("excluded", "refused"):
            yield f"not to be read, and {row['state']} {row['reason']}: {_told(name, moved)}"
        elif row["state"] == "verified" and _held(holds, row) != current.get(name):
            yield f"verified, and differs: {_told(name, moved)}"
        elif name in current and row["state"] != "verified" and not _excused(row, foreign):
            yield f"{row['state']}, {row['reason']}: {_told(name, moved)}"


def _excused(row: Mapping[str, Any], foreign: bool) -> bool:
    """Others' objects are conflicts; a disk has no place for a folder where a file has its name."""
    in_the_way = row["state"] in ("refused", "failed") and row["name"].endswith("inner.jpg")
    return in_the_way or (row["state"] == "conflict" and foreign)


def _third(case: Case, going: Going) -> Iterator[str]:
    yield from _sound(case, going)
    holds, current = case.trial.holds(), case.source.current()
    for name, row in _rows(case).items():
        if row["state"] in ("conflict", "failed") and not _excused(row, foreign=False):
            yield f"{row['state']} after --overwrite-conflicts: {_told(name, case.of(name))}"
        elif row["state"] == "verified" and _held(holds, row) != current.get(name):
            yield f"verified, and differs in the end: {_told(name, case.of(name))}"


def _held(holds: Mapping[str, Held], row: Mapping[str, Any]) -> str | None:
    key = row["key"] or ""
    found = [held for path, held in holds.items() if path == key or key.endswith(f"/{path}")]
    return found[0].digest if found else None


def _told(name: str, moved: list[Move]) -> str:
    return "; ".join(move.told() for move in moved) or f"{name}, which nobody moved"


def _rows(case: Case) -> dict[str, dict[str, Any]]:
    columns = ["name", "kind", "size", "mtime_ns", "ctime_ns", "key", "state", "reason"]
    with closing(sqlite3.connect(case.trial.newest("ledger.sqlite"))) as ledger:
        rows = ledger.execute(f"SELECT {', '.join(columns)} FROM entry WHERE state <> 'gone'")
        return {str(row[0]): dict(zip(columns, row, strict=True)) for row in rows}
