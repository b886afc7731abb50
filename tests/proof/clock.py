"""Set the clock of a program, before its runs and in the middle of them; judge what it then says.

Not by libfaketime: with a monotonic clock that goes on, its 0.9.10 fails each `time.sleep`.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tests.conformance.test_no_secret_leaves import Secretive
from tests.proof.figures import Tally
from tests.proof.trial import SECONDS, Going, Trial
from tests.proof.wrong_judge import START
from tests.servers.base import MissingServerError, Server

COMMAND = ("migrate", "--sample=50%", "--no-thumbnails")
SOURCE = Path(__file__).with_name("clock.c")
HINT = "no C compiler for the clock: run scripts/install-servers"
HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400
NEAR = (HOUR, DAY, YEAR, 10 * YEAR)
TURNS = (-YEAR, -2, 0, 2**31 - 2, 2**32 - 2, 7_258_118_400)
"""Seconds since 1970 where numbers of the time turn over or change their sign; the year 2200."""
NEGATIVE = re.compile(r"(?<![\w.)-])-\d[\d.]* ?(s|min|h|B|[KMG]iB)\b")


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The clock that the programs have which are started with its variables."""

    library: Path
    file: Path

    @classmethod
    def made(cls, folder: Path) -> Clock:
        compiler = shutil.which("cc")
        if compiler is None:
            raise MissingServerError(HINT)
        clock = cls(library=folder / "clock.so", file=folder / "clock")
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(clock.library), str(SOURCE)]
        subprocess.run(command, check=True)
        clock.file.write_bytes(bytes(8))
        return clock

    @property
    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_FILE": str(self.file)}

    def step(self, seconds: int) -> None:
        """Put the clock so far from the true time."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", seconds))


@dataclass(frozen=True, kw_only=True)
class Clocked(Secretive):
    """A site on which a program works that may have a defect."""

    defect: str = ""

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", self.defect + START, *args]


Steps = tuple[int, int]
"""How many seconds the clock is wrong when a run begins, and from some moment of it on."""


def until(moment: int) -> int:
    return moment - int(time.time())


def drawn(draw: Random, runs: int) -> list[Steps]:
    """Draw hours, years, or as far as where the clock turns."""
    near = [sign * step for sign in (-1, 1) for step in NEAR]
    far = [until(moment) for moment in TURNS]
    return [(draw.choice(near + far), draw.choice(near + far)) for _ in range(runs)]


def early() -> list[Steps]:
    """Return what misled once: all is before 2000, and the clock goes back."""
    return [(until(DAY), until(DAY)), (until(0), until(0))]


def site(server: Server, clock: Clock, folder: Path, files: int, defect: str = "") -> Trial:
    media = folder / "media"
    for number in range(files):
        path = media / f"{number % 7}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 300)
    trial = Trial.on(server, media, folder / "site", Clocked)
    variables = {**trial.site.variables, **clock.variables}
    return replace(trial, site=replace(trial.site, variables=variables, defect=defect))  # type: ignore[call-arg]


def go_through(trial: Trial, clock: Clock, seed: int, steps: Sequence[Steps]) -> Tally:
    """Run after run with an edit before each, and the clock set before and within each."""
    draw, tally, known = Random(seed), Tally(), list[str]()
    media = Path(trial.site.variables["MEDIA_ORCHESTRATOR_SOURCE"])
    names = sorted(str(path.relative_to(media)) for path in media.rglob("*.jpg"))
    seconds = 0.2  # that a run works
    with trial.cleared():
        for number, (before, within) in enumerate(steps):
            clock.step(before)
            (media / draw.choice(names)).write_bytes(draw.randbytes(500))
            going = trial.go(*COMMAND, name=f"run{number}")
            while going.stage() == "starting" and not going.ended_within(0.01):
                pass
            start = time.monotonic()
            going.ended_within(draw.uniform(0, seconds))
            clock.step(within)
            going.ended_within(SECONDS)
            seconds = time.monotonic() - start
            told = f"run {number}, {before:+} s, then {within:+} s"
            tally.cases += 1
            tally.missed += (f"{told}: {w}" for w in wrong(trial, going, known, media))
            known = folders(trial)
    return tally


def folders(trial: Trial) -> list[str]:
    return sorted(path.parent.name for path in trial.site.runs.glob("*/ledger.sqlite"))


def wrong(trial: Trial, going: Going, known: list[str], media: Path) -> Iterator[str]:
    """Say what is not as it would be with a clock that is right."""
    report = going.report()
    if (going.code, report.get("verdict"), report.get("unaccounted")) != (0, "verified", 0):
        yield f"it ends with {going.code}: {going.said()[-1500:]}"
        return
    if folders(trial) != [*known, report["run"]]:
        yield f"{report['run']} is not behind {known[-1:]}"
    if (report["previous"] or {}).get("run") != (known[-1] if known else None):
        yield f"the run before was {known[-1:]}, and not {report['previous']}"
    yield from _negative(report, trial.site.runs / report["run"])
    again = trial.go("report", str(trial.site.runs / report["run"]), name="report")
    if again.code or again.report().get("run") != report["run"]:
        yield f"report ends with {again.code}: {again.said()[-300:]}"
    here = {str(p.relative_to(media)): p.read_bytes() for p in media.rglob("*.jpg")}
    if here != {key: (trial.store.folder / key).read_bytes() for key in trial.holds()}:
        yield "source and store differ"


def _negative(report: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Say which durations are below 0, or longer than the run can have been."""
    times = {**report["timings"], **dict(enumerate(t for t, _ in report["throughput"]))}
    if odd := {name: t for name, t in times.items() if not 0 <= t <= SECONDS}:
        yield f"durations of {odd}"
    for name in ("summary.txt", "report.md", "report.html"):
        if found := NEGATIVE.search((folder / name).read_text()):
            yield f"{name} says {found[0]}"
