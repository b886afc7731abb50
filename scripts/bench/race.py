"""Run the cells: each contender in its turn, A B A B, each on a new and empty store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from scripts.bench.cells import Cell
from scripts.bench.contenders import (
    CONTENDERS,
    Run,
    env_file,
    environment,
    ours_command,
    report,
    tuning,
)
from scripts.bench.corpus import Corpus, corpus
from scripts.bench.link import SCENARIOS, Link, link
from scripts.bench.measure import Usage, measured
from scripts.bench.store import store
from scripts.bench.tools import ours

Flags = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of one contender; sizes in bytes, times in seconds, `wire` is the share used."""

    scenario: str
    corpus: str
    contender: str
    repetition: int
    files: int
    bytes: int
    wall: float
    cpu: float
    rss: int
    wire: float | None
    verified: int


@dataclass(kw_only=True)
class Race:
    """What the cells have in common, and what has been found so far."""

    server: str
    repeat: int
    work: Path
    results: list[Result] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    numbers: count[int] = field(default_factory=count)

    def run(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            with (
                link(SCENARIOS[cell.scenario], self.work) as way,
                corpus(cell.corpus, cell.files, self.work / "media") as media,
            ):
                self.links[cell.scenario] = way.kind
                self._cell(cell, Lane(race=self, cell=cell, way=way, media=media))

    def _cell(self, cell: Cell, lane: Lane) -> None:
        """Migrate once without measuring: that warms up, and its report tells the flags."""
        with lane.fresh({}) as first:
            lane.migrate(first)
            flags = tuning(first.runs)
            if cell.kept:
                self._turns(cell, lambda name, n: lane.measure(first, name, n))
                return

        def alone(name: str, repetition: int) -> Result:
            with lane.fresh(flags) as run:
                return lane.measure(run, name, repetition)

        self._turns(cell, alone)

    def _turns(self, cell: Cell, measure: Callable[[str, int], Result]) -> None:
        for repetition in range(self.repeat):
            for name in cell.contenders:
                result = measure(name, repetition)
                self.results.append(result)
                told = f"{cell.scenario} {cell.corpus} {name}: {result.wall:.2f} s"
                print(told, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One cell's link and media."""

    race: Race
    cell: Cell
    way: Link
    media: Corpus

    @contextmanager
    def fresh(self, flags: Flags) -> Iterator[Run]:
        """Yield a run with a new server and an empty bucket."""
        folder = self.race.work / f"run{next(self.race.numbers)}"
        folder.mkdir()
        source = self.media.folder / ("one" if self.cell.corpus == "mixed" else "")
        try:
            with store(self.race.server, self.way, folder, ours("rclone")) as served:
                run = Run(
                    corpus=self.media,
                    store=served,
                    folder=folder,
                    runs=folder / "runs",
                    flags=flags,
                    source=source,
                )
                self._configure(run)
                yield run
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _configure(self, run: Run) -> None:
        """Have the product write its remote, so that rclone alone uses the very same."""
        program = str(ours("media-orchestrator"))
        config = str(run.folder / "rclone.conf")
        words = [program, "--env-file", str(env_file(run)), "config", "--output", config]
        measured(words, env=environment(run), log=run.folder / "log")

    def migrate(self, run: Run) -> None:
        self._use(run, ours_command(run, "migrate"))

    def measure(self, run: Run, name: str, repetition: int) -> Result:
        contender = CONTENDERS[name]
        used = [self._use(run, command) for command in contender.commands(run)]
        wall = sum(usage.wall for usage in used)
        return Result(
            scenario=self.cell.scenario,
            corpus=self.cell.corpus,
            contender=name,
            repetition=repetition,
            files=self.media.files,
            bytes=self.media.bytes,
            wall=round(wall, 4),
            cpu=round(sum(usage.cpu for usage in used), 3),
            rss=max(usage.rss for usage in used),
            wire=self._share(wall) if contender.sends else None,
            verified=self._verified(run) if contender.verifies else 0,
        )

    def _use(self, run: Run, command: list[str]) -> Usage:
        return measured([*self.way.client, *command], env=environment(run), log=run.folder / "log")

    def _share(self, wall: float) -> float | None:
        rate = self.way.scenario.mbit * 125_000
        return round(self.media.bytes / wall / rate, 3) if rate else None

    def _verified(self, run: Run) -> int:
        """Take the product's count; `rclone check` says by its exit code that it was all."""
        if not run.runs.exists():
            return self.media.files
        return int(report(run.runs)["states"].get("verified", {"files": 0})["files"])
