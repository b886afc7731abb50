"""Run a command; say how long it took, what processor time, and what memory all of it held."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

EVERY = 0.05  # seconds between two looks at the memory
PAGE = os.sysconf("SC_PAGE_SIZE")


class RunError(Exception):
    """A command that had to succeed did not."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Seconds of wall and processor time; `rss` is the peak of all processes together, in bytes.

    Pages that processes share are counted once for each.
    """

    wall: float
    cpu: float
    rss: int
    programs: Mapping[str, int]  # the peak of the largest process of each program, by its name
    output: str


@dataclass(kw_only=True)
class _Watch:
    """Looks at a process and all below it every few milliseconds, until it is told to end."""

    root: int
    peak: int = 0
    programs: dict[str, int] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.wait(EVERY):
            self._look()

    def _look(self) -> None:
        total = 0
        for pid in _family(self.root):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                size = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
                total += size
                # No sum: a child that is about to become another program still has our pages.
                self.programs[name] = max(self.programs.get(name, 0), size)
        self.peak = max(self.peak, total)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                yield from _family(int(child))


def measured(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, codes: Sequence[int] = (0,)
) -> Usage:
    """Run a command; raise RunError with the end of its output for an unexpected exit code."""
    with log.open("wb") as output:
        start = time.perf_counter()
        child = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        watch = _Watch(root=child.pid)
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()  # it ends what it has started
            child.wait()
            raise
        finally:
            watch.ended.set()
            thread.join()
        wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    if child.returncode not in codes:
        raise RunError(f"{' '.join(argv[:12])}\nexit code {child.returncode}\n{text[-2000:]}")
    return Usage(
        wall=wall,
        cpu=used.ru_utime + used.ru_stime,
        rss=watch.peak,
        programs=watch.programs,
        output=text,
    )
