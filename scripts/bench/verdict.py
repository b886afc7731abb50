"""Runs into medians, paired ratios and verdicts, as a table, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from scripts.bench.cells import TARGETS, Place, Target
from scripts.bench.contenders import CONTENDERS
from scripts.bench.race import Result

SPREAD = 0.15  # of the base, beyond which the machine was too restless for a verdict
FEWEST = 3  # repetitions
HEAD = (
    *("link", "corpus", "files", "contender", "s", "s min-max", "ms a file", "to the first"),
    *("CPU s", "RSS MB", "wire", "verified"),
)
Table = list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A target with what was measured; `met` is None, with the reason, where nothing is said."""

    what: str
    limit: str
    value: float
    low: float
    high: float
    met: bool | None
    why: str


def judged(results: Sequence[Result]) -> list[Judged]:
    """Judge the targets of which both sides were run."""
    return [_judge(t, results) for t in TARGETS if at(results, t.over) and at(results, t.under)]


def at(results: Sequence[Result], place: Place) -> list[Result]:
    found = [r for r in results if (r.scenario, r.corpus, r.contender) == place]
    return sorted(found, key=lambda r: r.repetition)


def _judge(target: Target, results: Sequence[Result]) -> Judged:
    over, under = at(results, target.over), at(results, target.under)
    values = [_compared(target, a, b) for a, b in zip(over, under, strict=False)]
    value = median(values)
    met = value >= target.limit if target.least else value <= target.limit
    why = _doubt(target, results)
    return Judged(
        what=target.words,
        limit=target.limit_words,
        value=round(value, 4),
        low=round(min(values), 4),
        high=round(max(values), 4),
        met=None if why else met,
        why=why,
    )


def _compared(target: Target, over: Result, under: Result) -> float:
    if target.difference:
        return over.wall - under.wall
    return (over.wall / over.files) / (under.wall / under.files)


def _doubt(target: Target, results: Sequence[Result]) -> str:
    """Say why there is no verdict, or ''."""
    for place in (target.over, target.under):
        base = _base(results, place)
        if len(base) < FEWEST:
            return f"fewer than {FEWEST} repetitions"
        if not target.difference and (found := spread(base)) > SPREAD:
            return f"{base[0].contender} of {' '.join(place[:2])} spreads {found:.0%}"
    return ""


def _base(results: Sequence[Result], place: Place) -> list[Result]:
    """Return the runs of the first contender in the same cell."""
    first = next(r for r in results if (r.scenario, r.corpus) == place[:2])
    return at(results, (*place[:2], first.contender))


def spread(results: Sequence[Result]) -> float:
    walls = [r.wall for r in results]
    return (max(walls) - min(walls)) / median(walls)


def runs_table(results: Sequence[Result]) -> Table:
    places = dict.fromkeys((r.scenario, r.corpus, r.contender) for r in results)
    return [HEAD, *(_row(results, place) for place in places)]


def _row(results: Sequence[Result], place: Place) -> tuple[str, ...]:
    runs, base = at(results, place), _base(results, place)
    walls = [r.wall for r in runs]
    ratios = [r.wall / b.wall for r, b in zip(runs, base, strict=False)]
    share = runs[0].wire and median(r.wire or 0 for r in runs)
    return (
        place[0],
        place[1],
        str(runs[0].files),
        f"{place[2]}: {CONTENDERS[place[2]].title}",
        f"{median(walls):.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        f"{1000 * median(walls) / runs[0].files:.2f}",
        f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        f"{median(r.cpu for r in runs):.2f}",
        f"{max(r.rss for r in runs) / 1e6:.0f}",
        f"{share:.0%}" if share else "",
        str(min(r.verified for r in runs)),
    )


def targets_table(found: Sequence[Judged]) -> Table:
    head = ("target", "limit", "measured", "min-max", "met")
    return [head, *(_target_row(item) for item in found)]


def _target_row(item: Judged) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: f"no verdict: {item.why}"}[item.met]
    return item.what, item.limit, f"{item.value:.3f}", f"{item.low:.3f}-{item.high:.3f}", met


def as_text(table: Table) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()


def as_markdown(table: Table) -> Iterator[str]:
    head, *rows = table
    yield from (_cells(row) for row in (head, ("---",) * len(head), *rows))


def _cells(row: tuple[str, ...]) -> str:
    return "| " + " | ".join(row) + " |"
