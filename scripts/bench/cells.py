"""What is compared with what: the cells of the bench, and the targets between their results."""

from __future__ import annotations

from dataclasses import dataclass, replace

Place = tuple[str, str, str]  # scenario, corpus, contender


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Contenders that run in turns on one corpus over one link; the first is the base of ratios.

    `kept`: they share one store, which a migration has filled before.
    """

    scenario: str
    corpus: str
    files: int
    contenders: tuple[str, ...]
    kept: bool = False


CELLS = (  # sized so that A takes 20 to 40 s, but for the slow ones and the fixed costs
    Cell(scenario="W", corpus="small", files=24_000, contenders=("A", "B", "C", "F")),
    Cell(scenario="W", corpus="part", files=400, contenders=("A", "D", "E", "G1", "G16")),
    Cell(scenario="W", corpus="photos", files=240, contenders=("A", "B", "B5", "C")),
    Cell(scenario="W", corpus="video", files=8, contenders=("A", "B")),
    Cell(scenario="W", corpus="mixed", files=10_000, contenders=("M1", "M50")),
    Cell(scenario="W", corpus="fixed", files=200, contenders=("A", "B", "C")),
    Cell(scenario="H", corpus="small", files=7_200, contenders=("A", "B")),
    Cell(scenario="L", corpus="small", files=30_000, contenders=("A", "B", "B5", "C", "F")),
    Cell(scenario="L", corpus="part", files=1_500, contenders=("A", "D", "E", "G1", "G16")),
    Cell(scenario="L", corpus="again", files=30_000, contenders=("LS", "N"), kept=True),
    Cell(scenario="L", corpus="fixed", files=200, contenders=("PASS", "HELP"), kept=True),
)
QUICK = (
    Cell(scenario="L", corpus="small", files=300, contenders=("A", "B", "C")),
    Cell(scenario="L", corpus="fixed", files=20, contenders=("PASS", "HELP"), kept=True),
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """`over` / `under` (wall time a file) is to be at most, or at least, `limit`.

    With `difference`, the seconds between them are.
    """

    over: Place
    under: Place
    limit: float
    least: bool = False
    difference: bool = False

    @property
    def words(self) -> str:
        over, under = self.over, self.under
        where = f"{under[0]} {under[1]}"
        sign = "-" if self.difference else "/"
        return f"{over[2]} {sign} {under[2]}, {where}"

    @property
    def limit_words(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g}{' s' if self.difference else ''}"


def _target(scenario: str, corpus: str, over: str, under: str, limit: float) -> Target:
    return Target(over=(scenario, corpus, over), under=(scenario, corpus, under), limit=limit)


def _slow(tool: str, limit: float) -> Target:
    """A tool that is so slow that it gets a part of the files only."""
    return Target(over=("W", "part", tool), under=("W", "small", "B"), limit=limit, least=True)


TARGETS = (
    _target("W", "small", "B", "A", 1.05),
    _target("W", "photos", "B", "A", 1.05),
    _target("W", "photos", "B5", "A", 1.05),  # B reads all of so few photos back
    _target("H", "small", "B", "A", 1.05),
    _target("L", "small", "B", "A", 1.20),
    _target("W", "small", "B", "C", 1.00),
    _target("W", "photos", "B", "C", 1.00),
    _target("L", "small", "B", "C", 1.00),
    _target("W", "small", "B", "F", 1.05),
    _slow("D", 8),
    _slow("E", 3),
    _slow("G1", 5),
    _slow("G16", 5),
    _target("W", "mixed", "M50", "M1", 1.15),
    _target("L", "again", "N", "LS", 1.3),
    Target(
        over=("L", "fixed", "HELP"),
        under=("L", "fixed", "PASS"),
        limit=0.15,
        difference=True,
    ),
)


def chosen(
    cells: tuple[Cell, ...],
    scenarios: tuple[str, ...],
    corpora: tuple[str, ...],
    only: tuple[str, ...],
) -> list[Cell]:
    """Return the cells that were asked for, with the contenders that were; all, where none were."""
    found = []
    for cell in cells:
        left = tuple(c for c in cell.contenders if not only or c in only)
        if left and _in(cell.scenario, scenarios) and _in(cell.corpus, corpora):
            found.append(replace(cell, contenders=left))
    return found


def _in(value: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or value in wanted
