"""A machine of a cluster: it proves that it sees the same source, then does the shards it is given.

Runs inside a worker process of somebody else's, which may live long and serve other runs later.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import platform
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from orchestrator import rclone as rclone_binary
from orchestrator.envfile import Settings
from orchestrator.errors import ConfigurationError, OrchestratorError, RcloneUnusableError
from orchestrator.job import Job, Route, Wishes, route
from orchestrator.known import explain, words
from orchestrator.shard import Shard
from orchestrator.storage import load
from orchestrator.worker import Done, work

SOURCE: Final = "MEDIA_ORCHESTRATOR_SOURCE"  # where a machine sees the source, if elsewhere
TABLES: Final = ("types_map", "common_types", "encodings_map", "suffix_map")  # of mimetypes
MACHINES: Final = ("*_proxy", "*_PROXY", "*_CA_BUNDLE", "SSL_CERT_*")  # its own, where it has them
HEAD: Final = 64 << 10  # bytes of a file that its print holds
IDLE: Final = 30.0  # seconds without work, after which rclone and the secrets are let go
LOGGED: Final = 200  # lines of rclone's log that go back with a shard, the last ones

Print = tuple[str, int, int, int, str]  # name, size, mtime_ns, ctime_ns, hash of the first bytes
Proof = tuple[str, Mapping[str, str], list[Print]]  # source, versions and files of it


# Proof: plain types only, so that another version understands the question.


def versions() -> dict[str, str]:
    """Return what must be the same on all machines."""
    found = {name: _version(name) for name in ("media-orchestrator", "django-storages")}
    found["Python"] = ".".join(platform.python_version_tuple()[:2])
    try:
        found["rclone"] = rclone_binary.version(rclone_binary.find())
    except RcloneUnusableError as error:
        found["rclone"] = error.problems[0].what
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def prints(source: str, names: Iterable[str]) -> list[Print]:
    """Return what shows that two machines see the same files; one that is not there is left out."""
    found = []
    for name in names:
        try:
            with Path(source, name).open("rb") as file:
                stat, head = os.fstat(file.fileno()), file.read(HEAD)
        except OSError:
            continue
        mark = hashlib.sha256(head).hexdigest()
        found.append((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, mark))
    return found


def place(source: str) -> str:
    return os.environ.get(SOURCE) or source


def unfit(source: str, theirs: Mapping[str, str], files: list[Print]) -> str:
    """Return why this machine may not take part, or ''."""
    ours = versions()
    for name, other in theirs.items():
        if ours.get(name) != other:
            return f"it has {name} {ours.get(name)}, not {other}"
    here = place(source)
    if not Path(here).is_dir():
        return f"{here} is not there"
    seen = {found[0]: found for found in prints(here, [wanted[0] for wanted in files])}
    for wanted in files:
        if difference := _difference(seen.get(wanted[0]), tuple(wanted)):
            return f"{here} is not the same folder: {wanted[0]} {difference}"
    return ""


def _difference(seen: Print | None, wanted: tuple[object, ...]) -> str:
    if seen is None:
        return "is not there or cannot be read"
    kinds = ("name", "size", "time of modification", "time of change", "content")
    parted = (kind for kind, a, b in zip(kinds, seen, wanted, strict=True) if a != b)
    return f"has another {kind}" if (kind := next(parted, None)) else ""


# Work.


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a machine must know of a run; holds secrets, so it shows nothing of itself."""

    run: str
    home: str  # the folder of its runs: one of them lives at a time
    proof: Proof = field(repr=False)
    storage_class: str
    options: Mapping[str, Any] = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    read: tuple[str, ...]  # patterns of the variables that the class and rclone may read
    types: Mapping[str, Mapping[str, str]] = field(repr=False)
    wishes: Wishes


@dataclass(frozen=True, kw_only=True)
class Order:
    """A shard for any machine of a run."""

    assignment: Assignment = field(repr=False)
    shard: Shard = field(repr=False)  # its headers may be secret


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an order: done, an error to end the run with, or a machine that cannot."""

    machine: str
    done: Done | None = None
    error: OrchestratorError | None = None
    unfit: str = ""
    notes: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    log: str = field(default="", repr=False)


def assignment(job: Job, memory: int, proof: Proof) -> Assignment:
    """Return what the machines must know of a job."""
    template = job.target.template
    read = (*template.environment, *template.django_settings, *template.pass_environment)
    return Assignment(
        run=job.folder.name,
        home=f"{platform.node()}:{job.folder.parent}",
        proof=proof,
        storage_class=job.target.dotted,
        options=job.target.given,
        variables={n: v for n, v in os.environ.items() if _matches(n, read)},
        read=read,
        types=_types(),
        wishes=replace(job.wishes, memory=memory),
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _types() -> dict[str, dict[str, str]]:
    """Return by what content types are guessed here."""
    if not mimetypes.inited:
        mimetypes.init()
    return {name: dict(getattr(mimetypes, name)) for name in TABLES}


def fulfil(order: Order) -> Outcome:
    """Do a shard; never raises, for the scheduler would keep and log what it is told."""
    try:
        post = _post(order.assignment)
    except OrchestratorError as error:
        return Outcome(machine=_here(), unfit=error.problems[0].what)
    except Exception as error:  # noqa: BLE001  # its text may hold anything
        return Outcome(machine=_here(), unfit=f"it cannot begin: {type(error).__name__}")
    with post.busy():
        return post.done(order.shard)


def _here() -> str:
    from distributed import get_worker

    return str(get_worker().address)


@dataclass(kw_only=True)
class Post:
    """The way from source to store of one run, kept from shard to shard."""

    home: str
    route: Route
    folder: Path
    before: Mapping[str, str] = field(repr=False)  # the environment
    notes: deque[str]
    working: int = 0
    _logged: int = 0
    _timer: threading.Timer | None = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep it while there is work, and a little longer."""
        with _lock:
            self.working += 1
            self._rest(None)
        try:
            yield
        finally:
            with _lock:
                self.working -= 1
                if not self.working:
                    self._rest(threading.Timer(IDLE, _expire, (self,)))

    def _rest(self, timer: threading.Timer | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = timer
        if timer:
            timer.daemon = True
            timer.start()

    def done(self, shard: Shard) -> Outcome:
        try:
            return self._told(done=work(self.route, shard))
        except OrchestratorError as error:
            return self._told(error=error)
        except Exception as error:  # noqa: BLE001  # any error of any SDK
            target = self.route.target
            said = target.redact(words(error))
            return self._told(error=explain(target.template, said, amid=True))

    def _told(self, **what: Any) -> Outcome:
        commands = dict(self.route.rclone.commands)
        with _lock:
            notes = tuple(self.notes.popleft() for _ in range(len(self.notes)))
            return Outcome(machine=_here(), **what, notes=notes, commands=commands, log=self._log())

    def _log(self) -> str:
        """Return what rclone logged since the last time, but for what went well."""
        path = self.folder / "rclone.log.jsonl"
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(self._logged)
            whole = file.read().rpartition(b"\n")[0]
        self._logged += len(whole) + bool(whole)
        lines = whole.decode("utf-8", "replace").splitlines(keepends=True)
        kept = [line for line in lines if '"level":"error"' in line or '"level":"critical"' in line]
        return "".join(kept[-LOGGED:])

    def close(self) -> None:
        self._rest(None)
        self.route.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        _restore(self.before)


_lock = threading.RLock()
_posts: dict[str, Post] = {}  # one at most: Django's settings and the environment are the process's
_ended: deque[str] = deque(maxlen=100)  # runs whose late orders are of no use


def _post(assignment: Assignment) -> Post:
    with _lock:
        if assignment.run in _ended:
            raise ConfigurationError("this run has ended")
        if assignment.run not in _posts:
            if why := unfit(*assignment.proof):  # a process may have come in the place of another
                raise ConfigurationError(why)
            _make_room(assignment)
            _posts[assignment.run] = _opened(assignment)
        return _posts[assignment.run]


def _make_room(assignment: Assignment) -> None:
    for run, post in list(_posts.items()):
        # An earlier run of the same folder is dead, or this one would not have got its lock.
        if post.working and post.home != assignment.home:
            raise ConfigurationError("it is busy with another run")
        _posts.pop(run).close()


def _opened(assignment: Assignment) -> Post:
    before, folder = dict(os.environ), Path(tempfile.mkdtemp(prefix="media-orchestrator-"))
    notes: deque[str] = deque()
    try:
        _adopt(assignment)
        route = _route(assignment, folder, notes)
    except BaseException:
        _restore(before)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    home = assignment.home
    return Post(home=home, route=route, folder=folder, before=before, notes=notes)


def _route(assignment: Assignment, folder: Path, notes: deque[str]) -> Route:
    settings = Settings(
        storage_class=assignment.storage_class,
        options=assignment.options,
        variables=assignment.variables,
        disputed={},
        source=None,
    )
    target = load(settings)
    source, private = Path(place(assignment.proof[0])), folder / "work"
    private.mkdir(mode=0o700)
    return route(target, source, private, assignment.wishes, notes.append)


def _adopt(assignment: Assignment) -> None:
    """Make this process read and guess as the one that planned."""
    from django.conf import empty, settings

    settings._wrapped = empty  # another run may have configured it
    for name in [n for n in os.environ if _matches(n, assignment.read)]:
        if not _matches(name, MACHINES):
            del os.environ[name]
    for name, value in assignment.variables.items():
        os.environ.setdefault(name, value)
    mimetypes.init()
    for name in TABLES:
        table = getattr(mimetypes, name)
        table.clear()
        table.update(assignment.types[name])


def _restore(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _expire(post: Post) -> None:
    with _lock:
        for run in [run for run, kept in _posts.items() if kept is post and not post.working]:
            _posts.pop(run).close()


def end(run: str) -> None:
    """End what this process does for a run, also in the middle of a shard."""
    with _lock:
        _ended.append(run)
        if post := _posts.pop(run, None):
            post.close()
