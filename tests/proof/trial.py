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
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.conformance.test_no_secret_leaves import Secretive, forms
from tests.servers.base import Options, Server
from tests.servers.disk import DiskServer
from tests.servers.folder import FolderServer
from tests.servers.rclone_s3 import RcloneServer

SECONDS = 120
ESCAPED = "\u2401"  # `rclone serve` takes it for the control character
FACTS = (
    "name kind size mtime_ns key slot type direct packed hashes state evidence written".split()  # noqa: SIM905  # a row
)
"""What a ledger says of a file, but for times, tags and the sample."""


class Held(NamedTuple):
    """An object as it lies on the server's disk; a new stamp shows that it was written again."""

    digest: str
    stamp: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Where a server keeps a bucket; what it writes anew it may write into the same inode."""

    folder: Path
    same_inode: bool
    unescapes: bool = False

    @classmethod
    def of(cls, server: Server, options: Options) -> Disk:
        match server:
            case RcloneServer():
                return cls(folder=server.folder(options), same_inode=True, unescapes=True)
            case DiskServer():
                return cls(folder=server.folder(options), same_inode=True)
            case FolderServer():  # where the mode of a file is set after it was sent
                return cls(folder=Path(options["location"]), same_inode=False)
        raise AssertionError(f"{server.name} keeps no files where we could look at them")

    def name(self, key: str) -> str:
        """Return where an object lies in the folder."""
        return key.replace(ESCAPED, "\x01") if self.unescapes else key

    def held(self) -> Iterator[tuple[str, Held]]:
        for top, _, names in os.walk(self.folder):
            for name in names:
                path = Path(top, name)
                with suppress(FileNotFoundError):  # renamed while we looked
                    yield str(path.relative_to(self.folder)), self._held(path)

    def _held(self, path: Path) -> Held:
        status = path.stat()
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        times = (status.st_ctime_ns,) if self.same_inode else ()
        return Held(digest, (status.st_ino, *times))


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
    server: Server
    store: Disk

    def put(self, key: str, data: bytes) -> None:
        """Store an object as somebody else would: a server may not notice what its disk does."""
        self.server.put(self.site.options, key, data)

    def delete(self, key: str) -> None:
        self.server.delete(self.site.options, key)

    @classmethod
    def on(
        cls, server: Server, media: Path, folder: Path, kind: type[Secretive] = Secretive
    ) -> Trial:
        options = server.new_bucket()
        folder.mkdir()
        site = kind.on(server, options, folder)
        assert isinstance(site, Secretive)
        source = {"MEDIA_ORCHESTRATOR_SOURCE": str(media)}
        site = replace(site, variables={**site.variables, **source})
        site.write_env()
        return cls(site=site, server=server, store=Disk.of(server, options))

    def beside(self, folder: Path) -> Trial:
        """Return the same media and bucket with a run folder of their own."""
        folder.mkdir()
        site = replace(self.site, folder=folder)
        site.write_env()
        return replace(self, site=site)

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
        return dict(self.store.held())

    def ledger(self) -> dict[str, Mapping[str, Any]]:
        """Return what the newest ledger says of each file, by name."""
        where = f"file:{self.newest('ledger.sqlite')}?mode=ro"
        with closing(sqlite3.connect(where, uri=True)) as ledger:
            rows = ledger.execute(f"SELECT {', '.join(FACTS)} FROM entry WHERE state <> 'gone'")
            return {str(row[0]): dict(zip(FACTS, row, strict=True)) for row in rows}

    def claims(self) -> set[str]:
        """Return where the objects lie that the newest ledger calls verified, as a kill left it.

        A copy is asked: who opens a ledger takes back what was not finished.
        """
        ledgers = sorted(self.site.runs.glob("2*/ledger.sqlite"))
        if not ledgers:
            return set()
        with TemporaryDirectory() as folder:
            for path in ledgers[-1].parent.glob("ledger.sqlite*"):
                shutil.copy(path, folder)
            with closing(sqlite3.connect(f"{folder}/ledger.sqlite")) as ledger:
                if not ledger.execute(
                    "SELECT 1 FROM sqlite_master WHERE name = 'entry'"
                ).fetchone():
                    return set()
                rows = ledger.execute("SELECT key FROM entry WHERE state = 'verified'")
                return {self.store.name(str(key)) for (key,) in rows}

    def newest(self, name: str) -> Path:
        return max(self.site.runs.glob(f"2*/{name}"))

    def at_work(self) -> set[int]:
        """Return the processes that work in the site's folder, whatever they are."""
        return {pid for pid, folder in _working() if folder == str(self.site.folder)}

    def leaked(self, since: float) -> set[str]:
        """Return the secrets that lie about: where the site writes, and in the shared memory."""
        found = self.site.leaked()
        known = forms(self.site.other)
        for path in _fresh(Path("/dev/shm"), since):
            with suppress(OSError):
                found |= {str(path)} if any(form in path.read_bytes() for form in known) else set()
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
            shutil.rmtree(self.store.folder, ignore_errors=True)
            shutil.rmtree(self.site.folder, ignore_errors=True)


def _fresh(folder: Path, since: float) -> Iterator[Path]:
    """Yield the files that are new there, and those directly in folders that are new."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if path.stat().st_ctime >= since - 1:
                    inside = path.iterdir() if path.is_dir() else [path]
                    yield from (item for item in inside if item.is_file())


def _working() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive:
                yield int(folder.name), str((folder / "cwd").readlink())
