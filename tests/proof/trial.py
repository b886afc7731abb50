"""One migration as a black box: started, ended by a signal, and looked at from outside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tests.conformance.test_no_secret_leaves import Secretive, forms
from tests.servers.base import Server

SECONDS = 120
FACTS = (
    "name kind size mtime_ns key slot type direct packed hashes state evidence written".split()  # noqa: SIM905  # a row
)
"""What a ledger says of a file, but for times, tags and the sample."""


class Held(NamedTuple):
    """An object as it lies on the server's disk; a new stamp shows that it was written again."""

    digest: str
    stamp: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Going:
    """The program at work, in a session of its own; what it says goes to files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def ended_within(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.returncode is not None

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    @property
    def code(self) -> int:
        return self.process.wait(SECONDS)

    def said(self) -> str:
        return self.out.read_text() + self.err.read_text()

    def events(self) -> list[dict[str, Any]]:
        """Return its JSON lines; the last may be cut off by a kill."""
        found = []
        for line in self.out.read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def report(self) -> Mapping[str, Any]:
        return next((e for e in self.events() if e["event"] == "report"), {})

    def stage(self) -> str:
        """Name the last stage that it spoke of; the report follows the last file read back."""
        name, last = "starting", {}
        for event in self.events():
            if event["event"] == "stage":
                name, last = str(event["title"]).split(" /")[0], event
            elif event["event"] == "progress" and event["files"] == last.get("files"):
                name = "reporting" if name.startswith("reading") else name
            elif event["event"] == "report":
                name = "ended"
        return name


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A site with a run folder and a bucket of its own; its media may be shared with others."""

    site: Secretive
    store: Path

    @classmethod
    def on(cls, server: Server, media: Path, folder: Path) -> Trial:
        options = server.new_bucket()
        folder.mkdir()
        site = Secretive.on(server, options, folder)
        assert isinstance(site, Secretive)
        source = {"MEDIA_ORCHESTRATOR_SOURCE": str(media)}
        site = replace(site, variables={**site.variables, **source})
        site.write_env()
        return cls(site=site, store=server.folder(options))  # type: ignore[attr-defined]  # by mark

    def go(self, *args: str, name: str = "run") -> Going:
        out, err = (self.site.folder / f"{name}.{end}" for end in ("out", "err"))
        with out.open("wb") as to, err.open("wb") as errors:
            process = subprocess.Popen(
                self.site.command("--json", *args),
                cwd=self.site.folder,
                env=self.site.environ(),
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=errors,
                start_new_session=True,
            )
        return Going(process=process, out=out, err=err)

    def holds(self) -> dict[str, Held]:
        """Return what lies in the bucket, seen on the disk, by key."""
        return dict(_held(self.store))

    def ledger(self) -> dict[str, tuple[Any, ...]]:
        """Return what the newest ledger says of each file, by name."""
        newest = max(self.site.runs.glob("2*/ledger.sqlite"))
        with closing(sqlite3.connect(f"file:{newest}?mode=ro", uri=True)) as ledger:
            rows = ledger.execute(f"SELECT {', '.join(FACTS)} FROM entry WHERE state <> 'gone'")
            return {str(row[0]): tuple(row) for row in rows}

    def at_work(self) -> set[int]:
        """Return the processes that work in the site's folder, whatever they are."""
        return {pid for pid, folder in _working() if folder == str(self.site.folder)}

    def leaked(self, since: float) -> set[str]:
        """Return the secrets that lie about: where the site writes, and in the shared memory."""
        found = self.site.leaked()
        for path in Path("/dev/shm").rglob("*"):
            with suppress(OSError):
                if path.is_file() and path.stat().st_mtime >= since - 1:
                    data = path.read_bytes()
                    found |= (
                        {str(path)} if any(f in data for f in forms(self.site.other)) else set()
                    )
        return found

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Leave neither processes nor files behind."""
        try:
            yield
        finally:
            for pid in self.at_work():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.store, ignore_errors=True)
            shutil.rmtree(self.site.folder, ignore_errors=True)


def _held(store: Path) -> Iterator[tuple[str, Held]]:
    for top, _, names in os.walk(store):
        for name in names:
            path = Path(top, name)
            with suppress(FileNotFoundError):  # renamed while we looked
                status = path.stat()
                digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                stamp = (status.st_ino, status.st_ctime_ns)
                yield str(path.relative_to(store)), Held(digest, stamp)


def _working() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive:
                yield int(folder.name), str((folder / "cwd").readlink())
