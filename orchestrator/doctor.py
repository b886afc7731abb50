"""Go through everything that a migration needs, one line a check, without writing any media.

No check hides behind the failure of another one, unless it cannot be made without it.
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from orchestrator import limits
from orchestrator import plan as planning
from orchestrator import rclone as rclone_binary
from orchestrator.daemon import EndedError
from orchestrator.errors import (
    AccessRefusedError,
    ConfigurationError,
    OrchestratorError,
    TransferError,
)
from orchestrator.gate import Flight
from orchestrator.inventory import Rules, walk
from orchestrator.job import Route, Wishes, route
from orchestrator.known import explain
from orchestrator.ledger import Ledger
from orchestrator.pipeline import resolve
from orchestrator.progress import human, printable
from orchestrator.remote import Remote
from orchestrator.storage import Target

SKEW = 300  # seconds by which the clocks may differ; S3 refuses 900
TIMEOUT = 10.0
ROOM = 64 << 20  # bytes free for the reports and logs of a run,
ROOM_A_FILE = 1024  # and for each file's row in the ledger
PROBE = b"written by media-orchestrator doctor; may be deleted\n"
READABLE_BY_OTHERS = 0o044
SMALLER = "make it smaller or split it, or leave it out with --exclude or --skip-refused"


class Status(StrEnum):
    OK = "ok"
    WARN = "warning"
    FAIL = "failed"
    SKIPPED = "not checked"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line: what was looked at, what was found, and what to do about it."""

    title: str
    status: Status
    detail: str = ""
    tip: str = ""
    exit_code: int = 0


def examine(env_file: Path | None, source: Path, runs: Path, *, write: bool) -> Iterator[Check]:
    """Yield the checks in the order in which a migration would meet them."""
    yield from _attempt("rclone", lambda: rclone_binary.version(rclone_binary.find()))
    yield from _env_file(env_file or Path(".env"))
    found = _Found()
    yield from _attempt("MEDIA_STORAGE and its options", lambda: found.resolve(env_file), code=2)
    if found.target and found.remote:
        store = list(_store(found.target, found.remote, source))
        yield from store
        yield from _objects(found.target, store, write=write)
    else:
        yield Check(title="the store", status=Status.SKIPPED, detail="its options come first")
    yield from _source(found.target, source, runs)
    yield from (_site(text) for text in (found.remote.site if found.remote else ()))


class _Found:
    """What a check found that later ones need."""

    target: Target | None = None
    remote: Remote | None = None

    def resolve(self, env_file: Path | None) -> str:
        target, self.remote = resolve(env_file)
        self.target = target
        translated = f"{len(target.given)} options, all with a known effect"
        return "; ".join([f"{target.dotted}: {translated}", *self.remote.notes])


def _attempt(title: str, action: Callable[[], str], *, code: int | None = None) -> Iterator[Check]:
    """Yield one check of an action, or one for each problem that it raises."""
    try:
        yield Check(title=title, status=Status.OK, detail=action())
    except OrchestratorError as error:
        yield from _failed(title, error, code or error.exit_code)


def _failed(title: str, error: OrchestratorError, code: int) -> Iterator[Check]:
    for problem in error.problems:
        yield Check(
            title=title,
            status=Status.FAIL,
            detail=problem.what,
            tip=problem.tip,
            exit_code=code,
        )


def _env_file(path: Path) -> Iterator[Check]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it will say so
    if mode & READABLE_BY_OTHERS:
        tip = f"chmod 600 {path}, if the site's own user still can read it then"
        detail = f"{path} holds secrets, and other users can read it"
        yield Check(title="permissions of .env", status=Status.WARN, detail=detail, tip=tip)
    else:
        yield Check(title="permissions of .env", status=Status.OK, detail="for its owner alone")


def _store(target: Target, remote: Remote, source: Path) -> Iterator[Check]:
    if endpoint := _endpoint(remote):
        yield from _attempt("network", lambda: _connect(target, endpoint))
        if endpoint.scheme in ("http", "https"):
            yield _clock(endpoint, verify="no-check-certificate" not in remote.flags)
    yield from _attempt("credentials and container", lambda: _probe(target, remote, source))


def _endpoint(remote: Remote) -> SplitResult | None:
    """Return where the store is, if its options say so; S3 on Amazon follows from the region."""
    if "endpoint" in remote.config:
        return urlsplit(remote.config["endpoint"])
    if "host" in remote.config:
        port = remote.config.get("port", "22")
        return urlsplit(f"tcp://{remote.config['host']}:{port}")
    return None


def _connect(target: Target, endpoint: SplitResult) -> str:
    host, port = endpoint.hostname or "", _port(endpoint)
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except OSError as error:
        raise explain(target.template, error) from error
    return f"{host}:{port} answers"


def _port(endpoint: SplitResult) -> int:
    return endpoint.port or (80 if endpoint.scheme == "http" else 443)


def _clock(endpoint: SplitResult, *, verify: bool) -> Check:
    title = "clock"
    try:
        skew = abs((_date(endpoint, verify=verify) - datetime.now(UTC)).total_seconds())
    except (OSError, ValueError, TypeError, http.client.HTTPException) as error:
        detail = f"the store does not tell its time ({type(error).__name__})"
        return Check(title=title, status=Status.SKIPPED, detail=detail)
    if skew > SKEW:
        detail = f"this machine's clock and the store's differ by {skew:.0f} s"
        return Check(
            title=title, status=Status.FAIL, detail=detail, tip="set the clock (NTP)", exit_code=5
        )
    return Check(title=title, status=Status.OK, detail=f"differs from the store's by {skew:.0f} s")


def _date(endpoint: SplitResult, *, verify: bool) -> datetime:
    context = ssl.create_default_context() if verify else ssl._create_unverified_context()  # noqa: S323  # the user's own wish
    made = (
        http.client.HTTPConnection(endpoint.hostname or "", _port(endpoint), timeout=TIMEOUT)
        if endpoint.scheme == "http"
        else http.client.HTTPSConnection(
            endpoint.hostname or "", _port(endpoint), timeout=TIMEOUT, context=context
        )
    )
    with closing(made) as connection:
        connection.request("HEAD", "/")
        return parsedate_to_datetime(connection.getresponse().headers["Date"])


def _probe(target: Target, remote: Remote, source: Path) -> str:
    try:
        target.client.probe(target.prefix, source.resolve())
    except OrchestratorError:
        raise
    except Exception as error:
        text = target.redact(f"{type(error).__name__}: {error}")
        raise explain(target.template, text) from error
    return f"{remote.vendor}: {remote.path} can be listed"


def _objects(target: Target, store: list[Check], *, write: bool) -> Iterator[Check]:
    title = "a probe object"
    if not write:
        yield Check(title=title, status=Status.SKIPPED, detail="left out by --no-write")
    elif any(check.status is Status.FAIL for check in store):
        yield Check(title=title, status=Status.SKIPPED, detail="the store must answer first")
    else:
        yield from _attempt(title, lambda: _twins(target))


def _twins(target: Target) -> str:
    """Write one object by rclone and one by Django, compare them, and delete both."""
    mark = secrets.token_hex(4)
    names = [f"media-orchestrator-probe-{mark}-{who}.txt" for who in ("rclone", "django")]
    with _route(target) as way:
        for name in names:
            (way.source / name).write_bytes(PROBE)
        try:
            _by_rclone(way, names[0])
            target.save(names[1], way.source / names[1])
            return _compared(target, names)
        except OrchestratorError:
            raise
        except Exception as error:
            text = target.redact(f"{type(error).__name__}: {error}")
            raise explain(target.template, text) from error
        finally:
            _delete(target, names)


@contextmanager
def _route(target: Target) -> Iterator[Route]:
    with tempfile.TemporaryDirectory(prefix="media-orchestrator-") as folder:
        source, work = Path(folder, "source"), Path(folder, "run", "work")
        source.mkdir()
        work.mkdir(parents=True)
        found = route(target, source, work, Wishes(), lambda _: None)
        try:
            yield found
        finally:
            found.close()


def _by_rclone(way: Route, name: str) -> None:
    upload = way.target.upload(way.target.key(name))
    try:
        unsent = way.rclone.copy_names([name], upload, Flight(start=1, most=1)).unsent()
    except EndedError as ended:
        raise ended.cause or TransferError("rclone ended unexpectedly") from ended
    if unsent:
        raise explain(way.target.template, unsent[name])
    way.target.client.settle(name)


def _compared(target: Target, names: list[str]) -> str:
    for name in names:
        with target.fresh().storage.open(name, "rb") as file:
            if file.read() != PROBE:
                raise AccessRefusedError(f"{name} came back with other content")
    by_rclone, by_django = (dict(target.client.head(target.key(name))) for name in names)
    different = [k for k in by_django if by_django[k] != by_rclone.get(k)]
    if different:
        raise AccessRefusedError(
            f"rclone and Django store {', '.join(different)} differently",
            tip="report it with the output of `media-orchestrator config`",
        )
    return "written by rclone and by Django, read through Django, equal; both deleted"


def _delete(target: Target, names: list[str]) -> None:
    for name in names:
        try:
            target.fresh().storage.delete(name)
        except Exception:  # noqa: BLE001, S112  # it may never have been written
            continue


def _source(target: Target | None, source: Path, runs: Path) -> Iterator[Check]:
    with tempfile.TemporaryDirectory(prefix="media-orchestrator-") as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        try:
            ledger.walk(walk(source, Rules(), skip=runs))
        except OrchestratorError as error:
            yield from _failed("source", error, ConfigurationError.exit_code)
            return
        else:
            files, size = ledger.count()
            detail = f"{source}: {files} entries, {human(size)}"
            yield Check(title="source", status=Status.OK, detail=detail)
            yield from _names(target, ledger)
            yield from _sizes(target, ledger)
            yield _room(runs, files)
        finally:
            ledger.close()


def _names(target: Target | None, ledger: Ledger) -> Iterator[Check]:
    if target:
        planning.address(target, ledger)
        planning.refuse_collisions(ledger)
    refused = ledger.select("SELECT name, reason FROM entry WHERE state = 'refused'")
    hard = ledger.count("direct IS NOT NULL AND state = 'candidate'")[0]
    if refused:
        name, reason = refused[0]
        detail = f"{len(refused)} cannot be migrated, the first: {_shown(name)}: {reason}"
        tip = "rename them, or leave them out with --exclude or --skip-refused; `plan` lists all"
        yield Check(title="names", status=Status.WARN, detail=detail, tip=tip)
    else:
        detail = f"all can be migrated; {hard} of them through the class instead of rclone"
        yield Check(title="names", status=Status.OK, detail=detail)


def _sizes(target: Target | None, ledger: Ledger) -> Iterator[Check]:
    """Hold the biggest file against what the store takes, and against what the class can save."""
    found = ledger.select("SELECT name, size FROM entry ORDER BY size DESC LIMIT 1")
    if not found:
        return
    name, size = found[0]
    biggest = f"the biggest file, {_shown(name)}, has {human(size)}"
    most = limits.largest(target) if target else None
    if most and size > most.bytes:
        detail = f"{biggest}; one object of the store can have {most}"
        yield Check(title="sizes", status=Status.WARN, detail=detail, tip=SMALLER)
        return
    limit = f"the store takes {most} in one object" if most else "the store has no limit of its own"
    known = f"{biggest}; {limit}" if target else biggest
    yield Check(title="sizes", status=Status.OK, detail=known)
    saved = limits.largest_saved(target) if target else None
    if saved and size > saved.bytes:
        yield _site(f"{biggest}; it can be migrated, but the site itself can save only {saved}")


def _shown(name: str | bytes) -> str:
    return printable(name if isinstance(name, str) else os.fsdecode(name))


def _room(runs: Path, files: int) -> Check:
    there = next(folder for folder in (runs, *runs.parents) if folder.exists())
    free, needed = shutil.disk_usage(there).free, ROOM + ROOM_A_FILE * files
    detail = f"{human(free)} free for the run folder, {human(needed)} needed"
    if free < needed:
        return Check(
            title="disk",
            status=Status.FAIL,
            detail=detail,
            tip="make room, or choose another place with --run-dir",
            exit_code=ConfigurationError.exit_code,
        )
    return Check(title="disk", status=Status.OK, detail=detail)


def _site(text: str) -> Check:
    return Check(title="what the site will meet", status=Status.WARN, detail=text)


SIGNS = {
    Status.OK: ("✓", "ok  "),
    Status.WARN: ("!", "WARN"),
    Status.FAIL: ("✗", "FAIL"),
    Status.SKIPPED: ("-", "skip"),
}


def line(check: Check, *, terminal: bool) -> str:
    """Return a check as one line, and a second one with what to do."""
    sign = SIGNS[check.status][0 if terminal else 1]
    tip = f"\n{' ' * len(sign)} TIP: {printable(check.tip)}" if check.tip else ""
    return f"{sign} {check.title}: {printable(check.detail)}{tip}"


def exit_code(checks: list[Check]) -> int:
    """Return 0, or the code of the first failure that a migration would end with."""
    return next((check.exit_code for check in checks if check.status is Status.FAIL), 0)
