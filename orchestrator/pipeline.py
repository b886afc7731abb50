"""The stages of a run in order; it stops at the first that fails, and always ends in a report."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orchestrator import check as checking
from orchestrator import envfile, readback, report, runs
from orchestrator import plan as planning
from orchestrator import rclone as rclone_binary
from orchestrator.clients import Stored
from orchestrator.errors import ConfigurationError, OrchestratorError, Problem
from orchestrator.html import page
from orchestrator.inventory import Entry, Rules, usable, walk
from orchestrator.job import Job, Wishes, rclone
from orchestrator.known import explain, words
from orchestrator.ledger import State
from orchestrator.parallel import ahead, beside, unless
from orchestrator.progress import Observer
from orchestrator.remote import Remote, translate
from orchestrator.report import Report
from orchestrator.storage import Target, Upload, load
from orchestrator.thumbnails import Picture
from orchestrator.transfer import Crew, Threads, transfer

CURVE = 200  # points of the curve of the throughput
WHERE = ("endpoint", "host", "port", "user", "account")  # remote keys that say which store it is


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, as paths and wishes."""

    command: str
    env_file: Path | None
    source: Path
    runs: Path
    wishes: Wishes
    cluster: str = ""
    insecure: bool = False


@dataclass(kw_only=True)
class _Run:
    """A run on its way: what the stages have found so far."""

    job: Job
    answer: Future[None]  # of the store, to the question whether it is there
    listing: Iterator[Stored]
    uploads: Mapping[int, Upload] = field(default_factory=dict)
    sample: readback.Statement | None = None
    pictures: list[Picture] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = round(time.monotonic() - start, 3)


def resolve(env_file: Path | None) -> tuple[Target, Remote]:
    """Return the storage object and the rclone remote of the two lines in `.env`."""
    settings = envfile.read(env_file, os.environ)
    for name, value in settings.variables.items():
        os.environ.setdefault(name, value)  # as the site does, for classes that look there
    target = load(settings)
    return target, translate(target)


def run(request: Request, observer: Observer) -> tuple[Report, Path, OrchestratorError | None]:
    """Carry out one command; return its report, its folder, and what ended it early."""
    binary = rclone_binary.find()
    version = beside(lambda: rclone_binary.version(binary))  # while Django and the SDK are imported
    if limit := _limit(request.wishes):
        rclone_binary.require_flag(binary, limit)
    target, remote = _usable(request)
    version.result()
    gc.freeze()  # Django's and the SDK's objects stay: to look at them again costs 0.1 s each time
    gc.enable()
    with runs.locked(request.runs):
        folder, stopped = runs.create(request.runs), threading.Event()
        try:
            answer = beside(lambda: _probe(target, request.source))
            listing = _listing(request, target, answer, folder / "work", stopped)
            job = _job(request, target, remote, folder, observer=observer, stopped=stopped)
            state = _Run(job=job, answer=answer, listing=listing)
            with closing(job.ledger), closing(job):
                return _run(request, state, version.result())
        finally:
            stopped.set()
            shutil.rmtree(folder / "work", ignore_errors=True)


def _usable(request: Request) -> tuple[Target, Remote]:
    """Resolve `.env`, look at folders and globs; raise ConfigurationError with all problems."""
    places: tuple[Problem, ...] = ()
    try:
        usable(request.source, request.runs, _rules(request.wishes))
    except ConfigurationError as error:
        places = error.problems
    try:
        found = resolve(request.env_file)
    except ConfigurationError as error:
        raise ConfigurationError(*error.problems, *places) from error
    if places:
        raise ConfigurationError(*places)
    return found


def _rules(wishes: Wishes) -> Rules:
    return Rules(include=wishes.include, exclude=wishes.exclude)


def _listing(
    request: Request,
    target: Target,
    answer: Future[None],
    work: Path,
    stopped: threading.Event,
) -> Iterator[Stored]:
    """Begin to list the store once it has answered, where a command compares."""

    def objects() -> Iterator[Stored]:
        listed = planning.objects(target)
        answer.result()  # one that refuses, or asks us to slow down, is asked nothing more
        yield from listed

    if request.command not in COMPARING:
        return iter(())
    return ahead(objects(), Stored._make, stopped, work)


def _limit(wishes: Wishes) -> str:
    return f"--bwlimit={wishes.bwlimit}" if wishes.bwlimit else ""


def _job(
    request: Request,
    target: Target,
    remote: Remote,
    folder: Path,
    *,
    observer: Observer,
    stopped: threading.Event,
) -> Job:
    source = request.source.resolve()
    where = [remote.config[key] for key in WHERE if key in remote.config]
    identity = [str(source), target.template.family, *where, remote.path]
    return Job(
        source=source,
        folder=folder,
        target=target,
        remote=remote,
        ledger=runs.open_ledger(folder, request.runs, identity),
        rclone=rclone(target, remote, source, folder / "work", request.wishes),
        observer=observer,
        note=observer.note,
        wishes=request.wishes,
        stopped=stopped,
    )


def _run(
    request: Request, state: _Run, version: str
) -> tuple[Report, Path, OrchestratorError | None]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    ended: OrchestratorError | None = None
    try:
        COMMANDS[request.command](request, state)
    except OrchestratorError as error:
        ended = error
        state.problems = error.problems
    except BaseException as error:
        state.problems = (Problem(what=f"interrupted by {type(error).__name__}"),)
        _report(request, state, started, version)
        raise
    return _report(request, state, started, version), state.job.folder, ended


def _report(request: Request, state: _Run, started: str, version: str) -> Report:
    found = report.build(
        state.job,
        command=request.command,
        started=started,
        problems=state.problems,
        rclone=version,
        sample=state.sample,
        throughput=_thinned(state.job.throughput),
        timings=state.timings,
        notes=state.notes,
    )
    files = {
        "report.json": report.as_json(found),
        "report.md": report.as_markdown(found),
        "report.html": page(found, state.pictures),
        "summary.txt": report.as_text(found, ""),
    }
    for name, text in files.items():
        report.write(state.job.folder, name, state.job.target.redact(text))
    report.remember(state.job.ledger, found)
    return found


def _thinned(samples: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Keep so many points of a curve as a page can show, in seconds since the first."""
    step = len(samples) // CURVE + 1
    return [(round(t - samples[0][0], 2), size) for t, size in samples[::step]]


def _probe(target: Target, source: Path) -> None:
    """Ask the store once through the class's own client, so that its refusal is a clear one."""
    try:
        target.client.probe(target.prefix, source.resolve())
    except Exception as error:
        raise explain(target.template, target.redact(words(error))) from error


def _plan(request: Request, state: _Run, crew: Crew | None = None) -> None:
    job = state.job
    job.observer.stage(f"asking {job.remote.vendor}")
    if crew:
        beside(lambda: _prepare(state, crew))
    with state.stage("inventory"):
        job.observer.stage(f"listing {job.source}")
        entries = walk(job.source, _rules(job.wishes), skip=request.runs)
        job.ledger.walk(_answered(state, entries))
    with state.stage("plan"):
        job.observer.stage("comparing with the store")
        with _explained(job):
            state.uploads = planning.plan(job, state.listing)
            planning.require_room(job)


def _answered(state: _Run, entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield entries and then wait for the store; raise its refusal as soon as it is known.

    The inventory is then not taken in, so that the ledger still tells what was proven before.
    """
    yield from unless(state.answer, entries)
    with state.stage("preflight"):
        if not state.answer.done():
            state.job.observer.stage(f"asking {state.job.remote.vendor}")
        state.answer.result()


def _prepare(state: _Run, crew: Crew) -> None:
    state.answer.result()
    crew.prepare()


def _migrate(request: Request, state: _Run) -> None:
    crew = _crew(request, state)
    _plan(request, state, crew)
    job = state.job
    if job.ledger.count(f"state = '{State.REFUSED}'")[0] and not job.wishes.skip_refused:
        return
    sample = readback.draw(job.ledger, job.wishes, "state IN ('planned', 'present', 'verified')")
    before = job.ledger.count("state = 'planned'")[1]
    with state.stage("copy"), _explained(job):
        state.pictures += transfer(job, state.uploads, sample, crew)
    if before and state.timings["copy"]:
        job.ledger.set_fact("bytes_per_second", before / state.timings["copy"])
    with state.stage("check"), _explained(job):
        checking.check(job, state.uploads)
    _read_back(state, sample)


def _crew(request: Request, state: _Run) -> Crew:
    """Return who does the shards; a cluster is reached when there are some."""
    if not request.cluster:
        return Threads(route=state.job)
    from orchestrator.cluster import Cluster
    from orchestrator.scheduler import place

    at = place(request.cluster, insecure=request.insecure)
    if at.local and request.wishes.bwlimit:
        what = "--bwlimit would hold for each worker of --cluster local, not for all of them"
        raise ConfigurationError(what, tip="leave out --cluster: a machine has one uplink")
    return Cluster(job=state.job, at=at, notes=state.notes)


def _check(_: Request, state: _Run) -> None:
    job = state.job
    state.answer.result()
    job.ledger.execute(
        "UPDATE entry SET state = 'present', evidence = NULL "
        "WHERE state IN ('verified', 'failed', 'planned', 'present')"
    )
    state.uploads = planning.address(job.target, job.ledger, "state = 'present'")
    with state.stage("check"), _explained(job):
        checking.check(job, state.uploads)


def _verify(_: Request, state: _Run) -> None:
    job = state.job
    state.answer.result()
    job.ledger.execute(f"UPDATE entry SET readback = NULL WHERE NOT {readback.NOTED}")  # noqa: S608  # ours
    _read_back(state, readback.draw(job.ledger, job.wishes, readback.VERIFIED))


def _read_back(state: _Run, sample: readback.Sample) -> None:
    with state.stage("read back"), _explained(state.job):
        state.pictures += readback.read_back(state.job, sample)
        state.notes += readback.settle_acls(state.job.ledger)
        state.sample = readback.state(state.job.ledger, sample)


@contextmanager
def _explained(job: Job) -> Iterator[None]:
    """Turn what an SDK raises in the middle of a stage into an error that helps."""
    try:
        yield
    except (OrchestratorError, AssertionError, sqlite3.Error):
        raise
    except Exception as error:
        text = job.target.redact(words(error))
        raise explain(job.target.template, text, amid=True) from error


COMPARING: Final = frozenset({"plan", "migrate"})
COMMANDS: Mapping[str, Callable[[Request, _Run], None]] = {
    "plan": _plan,
    "migrate": _migrate,
    "check": _check,
    "verify": _verify,
}
