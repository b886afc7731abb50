"""Render a report as one page that needs no network and no script.

File names are hostile: Jinja2 escapes every value, and the page's policy allows only the style
and the script that are ours, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from orchestrator.progress import human, printable
from orchestrator.report import Count, Report, Verdict, forecast_words, next_step, sentence
from orchestrator.thumbnails import Picture

ROWS: Final = 1000  # files in the table: the page stays small, the ledger has all
BARS: Final = 12  # rows of a chart; the rest is summed up
MEANING: Final = {
    Verdict.VERIFIED: "Nothing is missing: every entry of the source is accounted for, and what "
    "the store holds was compared with what is on the disk.",
    Verdict.PLANNED: "Nothing was written to the store. This is what a migration would do.",
    Verdict.INCOMPLETE: "What is proven is safe in the store. The files below are not; the local "
    "copies of all files are untouched.",
    Verdict.FAILED: "The run ended before its end. Nothing is lost: the local files are untouched, "
    "and the same command goes on where it was.",
}


@dataclass(frozen=True, kw_only=True)
class _Bar:
    name: str
    files: int
    bytes: int
    percent: float


def page(report: Report, pictures: Sequence[Picture]) -> str:
    """Return the whole page; `pictures` is the contact sheet."""
    environment = Environment(
        loader=PackageLoader("orchestrator", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["human"] = human
    css, js = (_own(name) for name in ("report.css", "report.js"))
    curve, peak = _curve(report.throughput)
    return environment.get_template("report.html.j2").render(
        report=report,
        policy=_policy(css, js),
        css=css,
        js=js,
        sentence=sentence(report),
        meaning=MEANING[report.verdict],
        next=next_step(report, "media-orchestrator " + report.command),
        forecast=forecast_words(report.forecast) if report.forecast else "",
        comparison=list(_comparison(report)),
        trouble=report.trouble[:ROWS],
        more=max(0, len(report.trouble) - ROWS),
        thumbnails=pictures,
        types=_bars(report.types),
        folders=_bars(report.folders),
        excluded=_bars(report.excluded),
        direct=_bars(report.direct),
        curve=curve,
        peak=peak,
    )


def _own(name: str) -> str:
    return (files("orchestrator") / name).read_text(encoding="utf-8")


def _policy(css: str, js: str) -> str:
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, js)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; "
        f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
    )


def _bars(counts: Mapping[str, Count]) -> list[_Bar]:
    total = sum(count.bytes for count in counts.values()) or 1
    rows = [
        _Bar(
            name=printable(name) or "not known",
            files=count.files,
            bytes=count.bytes,
            percent=round(100 * count.bytes / total, 1),
        )
        for name, count in counts.items()
    ]
    shown, rest = rows[:BARS], rows[BARS:]
    return shown + ([_sum(rest)] if rest else [])


def _sum(rows: Sequence[_Bar]) -> _Bar:
    return _Bar(
        name=f"{len(rows)} more",
        files=sum(row.files for row in rows),
        bytes=sum(row.bytes for row in rows),
        percent=round(sum(row.percent for row in rows), 1),
    )


def _comparison(report: Report) -> Iterator[tuple[str, int, int]]:
    """Yield each state's number of files in the last run and in this one."""
    if report.previous:
        now = {state: count.files for state, count in report.states.items()}
        for state in {**report.previous.states, **now}:
            yield state, report.previous.states.get(state, 0), now.get(state, 0)


def _curve(samples: Sequence[tuple[float, int]]) -> tuple[str, float]:
    """Turn (seconds, bytes so far) into the points of a line in a 100 x 100 box, and its peak."""
    speeds = [
        ((t0 + t1) / 2, (b1 - b0) / (t1 - t0))
        for (t0, b0), (t1, b1) in pairwise(samples)
        if t1 > t0
    ]
    if len(speeds) < 2:  # noqa: PLR2004  # a line has two ends
        return "", 0.0
    peak = max(speed for _, speed in speeds) or 1.0
    first, last = speeds[0][0], speeds[-1][0]
    points = (
        f"{100 * (t - first) / (last - first):.1f},{100 - 96 * speed / peak:.1f}"
        for t, speed in speeds
    )
    return " ".join(points), peak
