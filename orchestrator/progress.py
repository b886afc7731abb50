"""Show how far a run is: a bar on a terminal, plain lines elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

EVERY = 5.0  # seconds between two plain lines
JSON_EVERY = 0.5  # seconds between two events of progress


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


@dataclass(kw_only=True)
class Counted:
    """Counts that only grow, never beyond the totals, told every few seconds and at the end.

    What rclone counts starts again with each attempt, and holds what it had to send twice.
    """

    every: float
    clock: Callable[[], float] = time.monotonic
    title: str = ""
    total: tuple[int, int] = (0, 0)
    done: tuple[int, int] = (0, 0)
    began: float = 0.0
    _told: float = 0.0

    def stage(self, title: str, files: int = 0, size: int = 0) -> None:
        self.title, self.total, self.done = printable(title), (files, size), (0, 0)
        self.began = self._told = self.clock()
        self.begin()

    def advance(self, files: int, size: int) -> None:
        before = self.done
        self.done = (
            _between(before[0], files, self.total[0]),
            _between(before[1], size, self.total[1]),
        )
        now = self.clock()
        if self.done != before and (self.done == self.total or now - self._told >= self.every):
            self._told = now
            self.tell()

    def begin(self) -> None:
        raise NotImplementedError

    def tell(self) -> None:
        raise NotImplementedError

    def close(self) -> None: ...


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


@dataclass(kw_only=True)
class Plain(Counted):
    """A line for each stage, and one every few seconds while it lasts."""

    out: TextIO
    every: float = EVERY

    def begin(self) -> None:
        files, size = self.total
        self.note(f"{self.title}: {files} files, {human(size)}" if files else self.title)

    def tell(self) -> None:
        (files, size), (all_files, all_size) = self.done, self.total
        speed = size / max(self.clock() - self.began, 0.001)
        left = f", {duration((all_size - size) / speed)} left" if 0 < size < all_size else ""
        sizes = f"{human(size)} of {human(all_size)}, {human(speed)}/s"
        self.note(f"{self.title}: {files} of {all_files} files, {sizes}{left}")

    def note(self, text: str) -> None:
        print(printable(text), file=self.out, flush=True)


@dataclass(kw_only=True)
class JsonLines(Counted):
    """One JSON object a line, for programs."""

    out: TextIO
    every: float = JSON_EVERY

    def begin(self) -> None:
        files, size = self.total
        self._say(event="stage", title=self.title, files=files, bytes=size)

    def tell(self) -> None:
        self._say(event="progress", files=self.done[0], bytes=self.done[1])

    def note(self, text: str) -> None:
        self._say(event="note", text=text)

    def _say(self, **fields: Any) -> None:
        print(json.dumps(fields), file=self.out, flush=True)


def observer(*, quiet: bool, as_json: bool) -> Observer:
    """Choose by what the user asked for and whether standard error is a terminal."""
    if as_json:
        return JsonLines(out=sys.stdout)
    if quiet:
        return Quiet()
    if not sys.stderr.isatty():
        return Plain(out=sys.stderr)
    from orchestrator.bar import bar  # only a terminal has to wait for rich

    return bar() or Plain(out=sys.stderr)


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
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
