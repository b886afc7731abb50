"""A live bar on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from orchestrator.progress import Counted, human, printable


def bar() -> Bar | None:
    """Return a bar on standard error; None for a terminal that cannot go back in a line."""
    console = Console(stderr=True)
    return Bar(console=console) if console.is_terminal and not console.is_dumb_terminal else None


class _Speed(ProgressColumn):
    """In the units of the sizes beside it, which rich's own column is not."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{human(speed)}/s" if speed else "", style="progress.data.speed")


@dataclass(kw_only=True)
class Bar(Counted):
    """A live bar with files, bytes, speed and time left."""

    console: Console
    every: float = 0.0
    _task: TaskID | None = None

    def __post_init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[files]} of {task.fields[of]} files"),
            DownloadColumn(binary_units=True),
            _Speed(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
        )
        self._progress.start()

    def begin(self) -> None:
        self._finish()
        files, size = self.total
        if files:
            self._task = self._progress.add_task(self.title, total=size, files=0, of=files)
        else:
            self.note(self.title)

    def tell(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=self.done[1], files=self.done[0])

    def _finish(self) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)
            self._task = None

    def note(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def close(self) -> None:
        self._finish()
        self._progress.stop()
