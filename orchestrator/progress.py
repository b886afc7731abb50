"""Show how far a run is: a bar on a terminal, plain lines elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

EVERY = 5.0  # seconds between two plain lines


class Observer(Protocol):
    """Told by the pipeline what is going on; counts are totals of the stage, sizes in bytes."""

    def stage(self, title: str, files: int = 0, size: int = 0) -> None: ...
    def advance(self, files: int, size: int) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


class Quiet:
    """Says nothing."""

    def stage(self, title: str, files: int = 0, size: int = 0) -> None: ...
    def advance(self, files: int, size: int) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


class Plain:
    """A line for each stage, and one every few seconds while it lasts."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._title, self._files, self._size, self._start, self._said = "", 0, 0, 0.0, 0.0

    def stage(self, title: str, files: int = 0, size: int = 0) -> None:
        self._title, self._files, self._size = title, files, size
        self._start = self._said = self._clock()
        self._say(f"{title}: {files} files, {human(size)}" if files else title)

    def advance(self, files: int, size: int) -> None:
        now = self._clock()
        if now - self._said >= EVERY:
            self._said = now
            speed = size / (now - self._start)
            left = (self._size - size) / speed if speed else 0
            self._say(
                f"{self._title}: {files} of {self._files} files, {human(size)} of "
                f"{human(self._size)}, {human(speed)}/s, {duration(left)} left"
            )

    def note(self, text: str) -> None:
        self._say(text)

    def close(self) -> None: ...

    def _say(self, text: str) -> None:
        print(printable(text), file=self._out, flush=True)


class Bar:
    """A live bar with files, bytes, speed and time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[files]} of {task.fields[total_files]} files"),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._progress.start()
        self._task: Any = None

    def stage(self, title: str, files: int = 0, size: int = 0) -> None:
        self._finish()
        if files:
            self._task = self._progress.add_task(title, total=size, files=0, total_files=files)
        else:
            self._progress.console.print(title, markup=False)

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)
            self._task = None

    def advance(self, files: int, size: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=size, files=files)

    def note(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False)

    def close(self) -> None:
        self._progress.stop()


class JsonLines:
    """One JSON object a line, for programs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def stage(self, title: str, files: int = 0, size: int = 0) -> None:
        self._say(event="stage", title=title, files=files, bytes=size)

    def advance(self, files: int, size: int) -> None:
        self._say(event="progress", files=files, bytes=size)

    def note(self, text: str) -> None:
        self._say(event="note", text=text)

    def close(self) -> None: ...

    def _say(self, **fields: Any) -> None:
        print(json.dumps(fields), file=self._out, flush=True)


def observer(*, quiet: bool, as_json: bool) -> Observer:
    """Choose by what the user asked for and whether standard error is a terminal."""
    if as_json:
        return JsonLines(sys.stdout)
    if quiet:
        return Quiet()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Plain(sys.stderr)


def human(size: float) -> str:
    """Return a number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:  # noqa: PLR2004  # the base of the units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def printable(text: str) -> str:
    """Escape what a hostile file name could do to a terminal: control, bidi, lone surrogates."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
