"""A site with its store and all that lies around them, and what a call may not do there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.proof.prefork import Call, Program

FOLDER = "django.core.files.storage.FileSystemStorage"
CODES = frozenset({0, 2, 3, 4, 5, 6, 7, 8, 130, 143})
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
HARMLESS = ("/dev/null",)
PROGRAMS = ("rclone", "uname")  # the latter is asked by Python, for the user agent of an SDK
Snapshot = Mapping[bytes, tuple[object, ...]]


@dataclass(frozen=True, kw_only=True)
class World:
    """`site` holds .env, media and the runs; the rest of the folder is none of the program's."""

    folder: Path
    program: Program
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def made(cls, folder: Path, program: Program) -> World:
        for name in ("site/media", "store", "home", "tmp", "neighbour"):
            (folder / name).mkdir(parents=True)
        (folder / "neighbour" / "precious").write_text("keep me")
        (folder / "site" / "media" / "photo.jpg").write_bytes(b"a photo")
        world = cls(folder=folder, program=program)
        world.env(world.options())
        return world

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def media(self) -> Path:
        return self.site / "media"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def runs(self) -> Path:
        return self.site / "migration-runs"

    def options(self, **more: Any) -> dict[str, Any]:
        return {"location": str(self.store), **more}

    def env(self, options: Mapping[str, Any], storage: str = FOLDER) -> None:
        text = json.dumps(dict(options)).replace("'", "\\u0027")
        self.write(f"MEDIA_STORAGE={storage}\nMEDIA_STORAGE_OPTIONS='{text}'\n".encode())

    def write(self, data: bytes) -> None:
        (self.site / ".env").write_bytes(data)

    def environ(self, **extra: str) -> dict[str, str]:
        folders = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        fixed = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        return {**fixed, **folders, **self.variables, **extra}

    def empty(self) -> None:
        """Leave no run and nothing in the store."""
        shutil.rmtree(self.runs, ignore_errors=True)
        shutil.rmtree(self.store)
        self.store.mkdir()

    def faults(
        self,
        *args: str,
        codes: frozenset[int] = CODES,
        path: Path | None = None,
        spoil: str = "",
        **variables: str,
    ) -> tuple[Call, list[str]]:
        """Call the program; return with the call all that it should not have done."""
        before = snapshot(self.folder)
        call = self.program(
            *args, cwd=self.site, env=self.environ(**variables), path=path, spoil=spoil
        )
        after = snapshot(self.folder)
        own = (self.runs, self.store)
        return call, [*_said(call, codes), *_touched(before, after, own), *self._did(call, args)]

    def _did(self, call: Call, args: tuple[str, ...]) -> Iterator[str]:
        """Say what the call started and tried to write that is not its own."""
        yield from (f"started {p}" for p in call.started if Path(p).name not in PROGRAMS)
        named = (a.removeprefix("--run-dir=") for a in args if a.startswith("--run-dir="))
        own = (self.runs, self.store, self.folder / "tmp", *(self.site / name for name in named))
        for path in call.wrote:
            if path not in HARMLESS and not within(path, own):
                yield f"wrote to {path}"


def _said(call: Call, codes: frozenset[int]) -> Iterator[str]:
    if call.code not in codes:
        yield f"ended with {call.code}: {call.said[-300:]}"
    if "Traceback" in call.said or "Exception ignored" in call.said:
        yield f"traceback: {call.said[-600:]}"
    if found := CONTROL.search(call.said):
        yield f"raw {found[0]!r} in its output"
    errors = call.err.count(b"error: ")
    if errors and call.err.count(b"\n  TIP: ") < 1:
        yield f"an error without a tip: {call.said[-300:]}"


def _touched(before: Snapshot, after: Snapshot, own: tuple[Path, ...]) -> Iterator[str]:
    for path in sorted(before.keys() | after.keys()):
        name = os.fsdecode(path)
        if before.get(path) != after.get(path) and not within(name, own):
            yield f"changed {name}: {before.get(path)} is now {after.get(path)}"


def within(path: str, folders: tuple[Path, ...]) -> bool:
    return any(path == str(f) or path.startswith(f"{f}/") for f in folders)


def snapshot(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Return each file and folder with its content, mode and time; folders that hold runs change.

    It goes by folder descriptors: a path may be longer than the system opens.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    for root, folders, files, fd in os.fwalk(os.fsencode(folder)):
        for name in (*folders, *files):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            seen: tuple[object, ...] = (status.st_mode, status.st_ino, status.st_uid)
            if not stat.S_ISDIR(status.st_mode):
                seen = (*seen, status.st_mtime_ns, _content(name, fd, status))
            elif b"/media" in root + b"/" + name:
                seen = (*seen, status.st_mtime_ns)
            found[root + b"/" + name] = seen
    return found


def _content(name: bytes, fd: int, status: os.stat_result) -> object:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o400:
        return None
    with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:  # noqa: PTH123  # a descriptor
        return hashlib.file_digest(file, "sha256").digest()
