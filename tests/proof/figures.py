"""What a harness has proven, in figures: one line each, and the table at the end of a run.

A harness counts in a `Tally`; its test ends with `proof.holds("name of the harness", tally)`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

PROPERTY = "proof"
SAYS = "proof says"
HEADINGS = ("harness", "cases", "missed", "false alarms", "seconds", "seed")
SHOWN = 10  # of those that are wrong


@dataclass(kw_only=True)
class Tally:
    """What a harness has tried: `missed` and `false_alarms` name the cases that went wrong."""

    cases: int = 0
    missed: list[str] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.missed += other.missed
        self.false_alarms += other.false_alarms


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One line of the table; those of one harness are added up."""

    harness: str
    cases: int
    missed: int
    false_alarms: int
    seconds: float
    seed: int

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            harness=self.harness,
            cases=self.cases + other.cases,
            missed=self.missed + other.missed,
            false_alarms=self.false_alarms + other.false_alarms,
            seconds=self.seconds + other.seconds,
            seed=self.seed,
        )

    def cells(self) -> tuple[str, ...]:
        counts = (f"{n:,}" for n in (self.cases, self.missed, self.false_alarms))
        return (self.harness, *counts, f"{self.seconds:.1f}", str(self.seed))


@dataclass(kw_only=True)
class Proof:
    """How thorough a harness shall be, and where it says what it found."""

    full: bool
    seed: int
    properties: list[tuple[str, Any]]
    start: float = field(default_factory=time.monotonic)

    def size(self, full: int, short: int) -> int:
        return full if self.full else short

    def says(self, line: str) -> None:
        """Show a line below the table."""
        self.properties.append((SAYS, line))

    def holds(self, harness: str, tally: Tally) -> None:
        """Note the figures, and fail if a case was missed or a sound one was blamed.

        The seconds are those since the test began, or since it called this before.
        """
        now = time.monotonic()
        figures = Figures(
            harness=harness,
            cases=tally.cases,
            missed=len(tally.missed),
            false_alarms=len(tally.false_alarms),
            seconds=now - self.start,
            seed=self.seed,
        )
        self.start = now
        self.properties.append((PROPERTY, asdict(figures)))
        assert tally.cases, f"{harness}: no case was tried"
        wrong = f"{harness}, --seed {self.seed}"
        assert not tally.missed, f"{wrong}: missed {tally.missed[:SHOWN]}"
        assert not tally.false_alarms, f"{wrong}: false alarms {tally.false_alarms[:SHOWN]}"


def table(found: Iterable[dict[str, Any]]) -> list[str]:
    """Return the lines of the table: a line a harness, its tests added up."""
    sums: dict[str, Figures] = {}
    for figures in (Figures(**one) for one in found):
        before = sums.get(figures.harness)
        sums[figures.harness] = before + figures if before else figures
    rows = [HEADINGS, *(sums[harness].cells() for harness in sorted(sums))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
