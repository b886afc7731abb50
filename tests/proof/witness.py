"""What a program starts and changes, as the kernel saw it: strace is the witness."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.base import MissingServerError

CHANGES = (
    *("rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat"),
    *("symlink", "symlinkat", "link", "linkat", "mknod", "mknodat", "truncate"),
    *("chmod", "fchmodat", "chown", "lchown", "fchownat", "utimensat"),
)
OPENS = ("open", "openat", "openat2", "creat")
STARTS = ("execve", "execveat")
# Calls that succeeded, with the paths of descriptors.
STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-y", "-z", "-s4096", "-esignal=none")
LINE = re.compile(r"\d+ +(\w+)\((.*)\) += \d+(?:<(.*)>)?")
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>, )?"((?:[^"\\]|\\.)*)"')
WRITING = re.compile("O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)")


@dataclass(frozen=True, kw_only=True)
class Seen:
    code: int
    said: str
    started: tuple[str, ...]
    wrote: tuple[str, ...]


def traced(command: Sequence[str], cwd: Path, env: Mapping[str, str], trace: Path) -> Seen:
    """Run a program to its end; raise MissingServerError where it cannot be watched."""
    if not shutil.which("strace"):
        raise MissingServerError("no strace: run scripts/install-servers")
    calls = f"-etrace={','.join((*CHANGES, *OPENS, *STARTS))}"
    done = subprocess.run(
        [*STRACE, calls, f"-o{trace}", *command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace")
    if not trace.exists() or "ptrace" in said:
        raise MissingServerError(f"strace may not watch: {said[-200:]}")
    found = [*_told(trace.read_text(encoding="utf-8", errors="surrogateescape"))]
    return Seen(
        code=done.returncode,
        said=said,
        started=tuple(what for kind, what in found if kind == "start")[1:],
        wrote=tuple(what for kind, what in found if kind == "write"),
    )


def _told(text: str) -> Iterator[tuple[str, str]]:
    for call, arguments, opened in (m.groups() for m in map(LINE.match, text.splitlines()) if m):
        paths = [_absolute(*pair) for pair in PATH.findall(arguments)]
        if call in STARTS:
            yield "start", paths[0]
        elif call in CHANGES:
            yield from (("write", path) for path in paths[-1 if "sym" in call else 0 :])
        elif call == "creat" or WRITING.search(PATH.sub("", arguments)):
            yield "write", _plain(opened)


def _absolute(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(_plain(folder), _plain(path)))  # noqa: PTH118  # bytes of any kind


def _plain(text: str) -> str:
    """Take back strace's escapes."""
    found, _ = codecs.escape_decode(text.encode("utf-8", "surrogateescape"))
    return os.fsdecode(found)
