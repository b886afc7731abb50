"""What a user sees who types a command: the program in a folder, its text and its exit code."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.site import KEPT

ROOT = Path(__file__).parent.parent
SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What one command left on the screen."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


def environ(**extra: str) -> dict[str, str]:
    """Return the variables of a user who has none that matter; `extra` goes before."""
    kept = {name: value for name in KEPT if (value := os.environ.get(name))}
    paths = [extra.pop("PYTHONPATH", ""), str(ROOT)]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}


def command(*args: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "orchestrator.cli", *args]


def typed(
    folder: Path, *args: str, python: str = sys.executable, keys: str = "", **variables: str
) -> Typed:
    """Run a command with pipes for its output; `keys` is what the user types while it runs."""
    done = subprocess.run(
        command(*args, python=python),
        cwd=folder,
        env=environ(**variables),
        input=keys,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Typed(code=done.returncode, out=done.stdout, err=done.stderr)


def on_terminal(folder: Path, *args: str, **variables: str) -> Typed:
    """Run a command on a terminal of 120 columns; `out` is all that it wrote there."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}
    with subprocess.Popen(
        command(*args),
        cwd=folder,
        env=environ(**{**size, **variables}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = bytearray()
        with suppress(OSError):  # Linux says EIO where others say that the file has ended
            while data := os.read(ours, 1 << 16):
                written += data
        os.close(ours)
        code = process.wait(SECONDS)
    return Typed(code=code, out=written.decode(), err="")
