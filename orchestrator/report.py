"""The ledger becomes a report: one shape, rendered as JSON, Markdown and text."""

from __future__ import annotations

import base64
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigurationError, Problem
from orchestrator.job import Job
from orchestrator.known import recognise
from orchestrator.ledger import Ledger, Row, State
from orchestrator.progress import duration, human, printable
from orchestrator.readback import OK, UNSETTLED, Statement
from orchestrator.remote import Remote
from orchestrator.runs import DAMAGED

SCHEMA = 1
SHOWN = 10  # names of a kind in the summaries; the JSON has all
UNDECIDED = (State.CANDIDATE, State.PRESENT)
MOVED = "state NOT IN ('gone', 'excluded', 'refused')"
AFTERWARDS = ("check", "verify")  # they look at what the ledger knows, not for new files
TROUBLE = (State.REFUSED, State.CONFLICT, State.FAILED)


class Verdict(StrEnum):
    VERIFIED = "verified"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    PLANNED = "planned"


@dataclass(frozen=True, kw_only=True)
class Count:
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file that is not verified, or is saved in another way, and why.

    `name` and `reason` are escaped for display; `exact` is the name itself, and None where it is
    no UTF-8: `base64` then has its bytes.
    """

    name: str
    exact: str | None = None
    base64: str | None = None
    state: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Requests and seconds that the planned copy will take; seconds by megabits a second."""

    files: int
    bytes: int
    requests: Mapping[str, int]
    seconds: Mapping[str, float]
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The run before this one, of the same source and target."""

    run: str
    command: str
    verdict: str
    states: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run as its ledger shows it; sizes in bytes, times in seconds."""

    schema: int
    run: str
    command: str
    started: str
    verdict: Verdict
    problems: tuple[Problem, ...]
    versions: Mapping[str, str]
    source: str
    storage_class: str
    vendor: str
    remote: Mapping[str, str]
    path: str
    entries: Count
    states: Mapping[str, Count]
    changes: Mapping[str, Count]
    excluded: Mapping[str, Count]
    direct: Mapping[str, Count]
    types: Mapping[str, Count]
    folders: Mapping[str, Count]
    evidence: Mapping[str, Count]
    hard_names: tuple[Named, ...]
    trouble: tuple[Named, ...]
    header_notes: tuple[Named, ...]
    extra: int | None
    sample: Statement | None
    statement: str
    forecast: Forecast | None
    previous: Previous | None
    throughput: tuple[tuple[float, int], ...]
    timings: Mapping[str, float]
    commands: tuple[str, ...]
    notes: tuple[str, ...]
    site: tuple[str, ...]
    advice: str  # what to do against what kept files from being sent, where that is known

    @property
    def unaccounted(self) -> int:
        """Entries of the source that no state accounts for: every one must be told apart."""
        early = self.verdict in (Verdict.PLANNED, Verdict.FAILED)
        undecided = () if early else (*UNDECIDED, State.PLANNED)
        told = sum(c.files for state, c in self.states.items() if state not in undecided)
        return self.entries.files - told

    def count(self, state: State) -> Count:
        return self.states.get(state, Count(files=0, bytes=0))


def versions(rclone: str) -> dict[str, str]:
    found = {"python": platform.python_version(), "rclone": rclone}
    for package in ("media-orchestrator", "Django", "django-storages"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def build(
    job: Job,
    *,
    command: str,
    started: str,
    problems: tuple[Problem, ...],
    rclone: str,
    sample: Statement | None,
    throughput: Sequence[tuple[float, int]],
    timings: Mapping[str, float],
    notes: Sequence[str] = (),
) -> Report:
    ledger = job.ledger
    states = _counts(ledger, "state", "state <> 'gone'")
    files, size = ledger.count()
    trouble = tuple(n for state in TROUBLE for n in _named(ledger, f"state = '{state}'"))
    return Report(
        schema=SCHEMA,
        run=job.folder.name,
        command=command,
        started=started,
        verdict=_verdict(command, states, problems),
        problems=problems,
        versions=versions(rclone),
        source=str(job.source),
        storage_class=job.target.dotted,
        vendor=job.remote.vendor,
        remote=job.remote.masked(),
        path=job.remote.path,
        entries=Count(files=files, bytes=size),
        states=states,
        changes=_counts(ledger, "change", "change IS NOT NULL AND state <> 'gone'"),
        excluded=_counts(ledger, "reason", "state = 'excluded'"),
        direct=_counts(ledger, "direct", "direct IS NOT NULL AND state <> 'gone'"),
        types=_counts(ledger, "type", "type IS NOT NULL AND state <> 'gone'"),
        folders=_counts(ledger, FOLDER, "state <> 'gone'"),
        evidence=_counts(ledger, "evidence", "state = 'verified'"),
        hard_names=tuple(_named(ledger, "direct IS NOT NULL AND state <> 'gone'", "direct")),
        trouble=trouble,
        header_notes=(*_foreseen(job), *_header_notes(ledger)),
        extra=ledger.fact("extra"),
        sample=sample,
        statement=sample.words(job.target.dotted.rpartition(".")[2]) if sample else "",
        forecast=_forecast(job) if command == "plan" and not problems else None,
        previous=_previous(ledger),
        throughput=tuple(throughput),
        timings=timings,
        commands=tuple(job.rclone.commands.values()),
        notes=(*notes, *job.remote.notes, *_defects(job), *_damaged(ledger)),
        site=job.remote.site,
        advice=_advice(job, trouble),
    )


def _advice(job: Job, trouble: Iterable[Named]) -> str:
    unsent = (item.reason for item in trouble if item.reason.startswith("not sent"))
    known = (recognise(job.target.template, reason) for reason in unsent)
    return next((found.tip for found in known if found), "")


FOLDER = (  # as bytes: a name may be none in UTF-8
    "CASE WHEN instr(CAST(name AS BLOB), x'2f') THEN "
    "substr(CAST(name AS BLOB), 1, instr(CAST(name AS BLOB), x'2f')) ELSE x'2e' END"
)


def _previous(ledger: Ledger) -> Previous | None:
    found = ledger.fact("summary")
    try:
        return Previous(**found) if found else None
    except TypeError:  # of another version
        return None


def remember(ledger: Ledger, report: Report) -> None:
    """Leave in the ledger what the next run says of this one."""
    states = {state: count.files for state, count in report.states.items()}
    summary = Previous(
        run=report.run, command=report.command, verdict=report.verdict, states=states
    )
    ledger.set_fact("summary", asdict(summary))


def _counts(ledger: Ledger, column: str, where: str) -> dict[str, Count]:
    rows = ledger.select(
        f"SELECT {column}, count(*), sum(size) FROM entry "  # noqa: S608  # ours
        f"WHERE {where} GROUP BY 1 ORDER BY 3 DESC"
    )
    return {_text(value): Count(files=files, bytes=size) for value, files, size in rows}


def _text(value: Any) -> str:
    return printable(os.fsdecode(value)) if isinstance(value, bytes) else str(value)


def _named(ledger: Ledger, where: str, why: str = "reason") -> Iterator[Named]:
    for row in ledger.rows(where):
        yield _told(row, getattr(row, why))


def _told(row: Row, reason: str) -> Named:
    raw = os.fsencode(row.name)
    try:
        exact, encoded = raw.decode(), None
    except UnicodeDecodeError:
        exact, encoded = None, base64.b64encode(raw).decode()
    return Named(
        name=printable(row.name),
        exact=exact,
        base64=encoded,
        state=row.state,
        reason=printable(reason),
    )


def _header_notes(ledger: Ledger) -> Iterator[Named]:
    # The + keeps SQLite from going through all that is verified instead of what was read.
    where = f"+state = 'verified' AND readback IS NOT NULL AND readback <> ? AND NOT {UNSETTLED}"
    for row in ledger.rows(where, (OK,)):
        yield _told(row, row.readback or "")


def _defects(job: Job) -> Iterator[str]:
    """Say how many files the site will not be able to read, for reasons known beforehand."""
    for defect in job.target.defects:
        files, _ = job.ledger.count(f"{MOVED} AND {defect.sizes}")
        if files:
            yield f"the site will not be able to read {files} of the files: {defect.says}"


def _damaged(ledger: Ledger) -> Iterator[str]:
    for run in ledger.fact(DAMAGED, ()):
        yield (
            f"the ledger of the run {run} is damaged, as a power cut may leave it, and was left "
            "aside: what it knew was found out anew from the source and the store"
        )


def _foreseen(job: Job) -> Iterator[Named]:
    for defect in job.target.defects:
        where = f"{MOVED} AND {defect.sizes} AND (readback IS NULL OR readback = ?)"
        for row in job.ledger.rows(where, (OK,)):
            yield _told(row, defect.says)


def _verdict(command: str, states: Mapping[str, Count], problems: tuple[Problem, ...]) -> Verdict:
    if problems:
        return Verdict.FAILED
    if command == "plan":
        return Verdict.PLANNED
    done = {State.VERIFIED, State.EXCLUDED}
    return Verdict.VERIFIED if states.keys() <= done else Verdict.INCOMPLETE


def _forecast(job: Job) -> Forecast:
    files, size = job.ledger.count("state = 'planned'")
    objects = job.ledger.select("SELECT count(*) FROM stored")[0][0]
    sizes = job.ledger.each(
        "SELECT size, count(*) FROM entry WHERE state = 'planned' GROUP BY size"
    )
    puts = sum(job.target.client.puts(size) * number for size, number in sizes)
    listings = 2 * math.ceil((objects + files) / 1000) + 2
    measured = job.ledger.fact("bytes_per_second")
    speeds = [job.wishes.bandwidth or measured] if job.wishes.bandwidth or measured else []
    speeds = speeds or [mbit * 125_000 for mbit in (10, 50, 100)]
    return Forecast(
        files=files,
        bytes=size,
        requests={"write": puts, "list": listings},
        seconds={f"{speed / 125_000:.3g}": round(size / speed, 1) for speed in speeds},
        measured=bool(measured and not job.wishes.bandwidth),
    )


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file that only its owner may read, whole or not at all."""
    partial = folder / f".{name}.partial"
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:  # noqa: PTH123  # the mode
        file.write(text.encode("utf-8", "backslashreplace"))  # JSON can hold what UTF-8 cannot
        file.flush()
        os.fsync(file.fileno())
    return partial.replace(folder / name)


def as_json(report: Report) -> str:
    found = {**asdict(report), "unaccounted": report.unaccounted}
    return json.dumps(found, indent=2, ensure_ascii=True) + "\n"


def sentence(report: Report) -> str:
    """Say the verdict in one sentence."""
    verified, total = report.count(State.VERIFIED), report.entries
    if not total.files and not report.problems:
        return "NOTHING TO DO: there are no files."
    known = " of the last run" if report.command in AFTERWARDS else ""
    match report.verdict:
        case Verdict.VERIFIED:
            return (
                f"VERIFIED: all {verified.files} files{known} ({human(verified.bytes)}) are in "
                "the store, and each was proven."
            )
        case Verdict.PLANNED:
            planned = report.count(State.PLANNED)
            return f"PLANNED: {planned.files} files ({human(planned.bytes)}) would be copied."
        case Verdict.INCOMPLETE:
            return f"INCOMPLETE: {verified.files} of {total.files} files are proven to be there."
        case Verdict.FAILED:
            return f"FAILED: {verified.files} of {total.files} files are proven to be there."


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what there is to say, in the order of its weight, as title and text."""
    yield "store", f"{report.vendor}, {report.path}"
    yield (
        "source",
        f"{report.source}: {report.entries.files} entries, {human(report.entries.bytes)}",
    )
    states = _join(report.states) or "the source was not listed"
    yield "states", f"{states}; {report.unaccounted} unaccounted"
    if report.forecast:
        yield "types", _join(report.types)
        yield "folders", _join(report.folders)
    if report.changes:
        yield "found", _join(report.changes)
    if report.evidence:
        yield "evidence", _join(report.evidence)
    if report.statement:
        yield "read back", report.statement
    if report.direct:
        yield "saved by the class", _join(report.direct)
    if report.excluded:
        yield "excluded", _join(report.excluded)
    if report.forecast:
        yield "forecast", forecast_words(report.forecast)
    if report.extra:
        yield "others", f"{report.extra} objects of the store belong to no file here; left alone"


def _join(counts: Mapping[str, Count]) -> str:
    found = [f"{c.files} {name} ({human(c.bytes)})" for name, c in list(counts.items())[:SHOWN]]
    return printable(", ".join(found)) + (", …" if len(counts) > SHOWN else "")


def forecast_words(forecast: Forecast) -> str:
    times = ", ".join(f"{duration(s)} at {speed} Mbit/s" for speed, s in forecast.seconds.items())
    origin = " (as measured in the last run)" if forecast.measured else ""
    requests = ", ".join(f"{n} {kind} requests" for kind, n in forecast.requests.items())
    return f"{requests}; {times}{origin}"


def next_step(report: Report, again: str) -> str:  # noqa: PLR0911  # one for each end of a run
    """Say what to do now; `again` is the command line of this run."""
    states = report.states
    if report.problems:
        return report.problems[0].tip or f"run the same command again: {again}"
    if not report.entries.files:
        return "look at --source; check and verify need a migrate before them"
    if State.REFUSED in states and State.PLANNED in states:
        return "rename or --exclude the refused files, or migrate with --skip-refused"
    if report.verdict is Verdict.PLANNED:
        return "media-orchestrator migrate" if State.PLANNED in states else "nothing to copy"
    if report.verdict is Verdict.VERIFIED:
        return "switch the site to the store; keep the old media folder until it has proven itself"
    if states.keys() <= {State.VERIFIED, State.EXCLUDED, State.REFUSED}:
        return "rename or --exclude the refused files, then run the same command again"
    if State.CONFLICT in states and State.FAILED not in states:
        return "look at the conflicts; --overwrite-conflicts puts the local files in their place"
    if report.command in AFTERWARDS and State.FAILED in states:
        return "media-orchestrator migrate stores what failed once more"
    return report.advice or f"run the same command again, it goes on where it was: {again}"


def as_text(report: Report, again: str = "", *, problems: bool = True) -> str:
    """Return the summary for a terminal; without the problems where those are shown apart."""
    width = max(len(title) for title, _ in _lines(report))
    lines = [sentence(report)]
    lines += [f"  error: {printable(str(p.what))}" for p in report.problems if problems]
    lines += [f"  {title:<{width}}  {printable(text)}" for title, text in _lines(report)]
    if report.forecast:
        hard = report.hard_names[:SHOWN]
        lines += [f"  ~ {item.name}: saved by the class: {item.reason}" for item in hard]
    lines += [f"  ! {item.name}: {item.reason}" for item in report.trouble[:SHOWN]]
    if (more := len(report.trouble) - SHOWN) > 0:
        lines.append(f"  ! and {more} more in report.md")
    lines += [f"  note: {printable(note)}" for note in (*report.notes, *report.site)]
    lines.append(f"  next: {next_step(report, again)}")
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    parts = [f"# {sentence(report)}", ""]
    parts += [f"- **error**: {_md(p.what)} (TIP: {_md(p.tip)})" for p in report.problems]
    parts += [f"- **{title}**: {_md(text)}" for title, text in _lines(report)]
    parts += _table("What is not verified", report.trouble)
    parts += _table("Saved by the class, because rclone cannot", report.hard_names)
    parts += _table("Headers and reading", report.header_notes)
    for title, counts in (("By type", report.types), ("By folder", report.folders)):
        parts += ["", f"## {title}", "", "| | files | bytes |", "|---|---|---|"]
        parts += [f"| {_md(k)} | {c.files} | {human(c.bytes)} |" for k, c in counts.items()]
    parts += ["", "## The rclone commands", "", "```", *map(printable, report.commands), "```"]
    parts += ["", "## Versions", "", *(f"- {k} {v}" for k, v in report.versions.items())]
    return "\n".join(parts) + "\n"


def _table(title: str, items: tuple[Named, ...]) -> list[str]:
    if not items:
        return []
    head = ["", f"## {title}", "", "| file | state | why |", "|---|---|---|"]
    return head + [f"| {_md(i.name)} | {i.state} | {_md(i.reason)} |" for i in items]


def _md(text: str) -> str:
    """Escape what Markdown or HTML would take for markup."""
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in r"\`*_[]|" else c for c in escaped)


def remote_lines(remote: Remote) -> Iterator[str]:
    """Yield the remote as a section of rclone.conf, secrets masked."""
    yield "[media]"
    yield from (f"{key} = {value}" for key, value in remote.masked().items())


def stored(folder: Path, kind: str) -> str:
    """Return the report of a finished run as it was written."""
    name = {"json": "report.json", "md": "report.md", "text": "summary.txt"}[kind]
    try:
        return (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        what = f"{folder} holds no {name}: {error.strerror}"
        raise ConfigurationError(what, tip="name a folder of a finished run") from error
