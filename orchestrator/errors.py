"""Every error that a user can meet, each with its exit code and the next thing to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

INCOMPLETE = 7
NOTHING_TO_DO = 8
UNEXPECTED = 70


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: what and where, why, and what to do next."""

    what: str
    tip: str = ""

    def __str__(self) -> str:
        return f"{self.what}\n  TIP: {self.tip}" if self.tip else self.what


class OrchestratorError(Exception):
    """Shown as it is, without a traceback; holds all the problems of its stage."""

    exit_code: ClassVar[int] = UNEXPECTED

    def __init__(self, *problems: Problem | str, tip: str = "") -> None:
        self.problems = tuple(
            Problem(what=p, tip=tip) if isinstance(p, str) else p for p in problems
        )
        super().__init__("\n".join(map(str, self.problems)))


class ConfigurationError(OrchestratorError):
    """`.env`, an option or a path cannot be used as it stands."""

    exit_code = 2


class TemplateError(OrchestratorError):
    """A file in rclone_templates/ is wrong: a bug of ours, not of the user's."""

    exit_code = 3

    def __init__(self, *problems: Problem | str, tip: str = "") -> None:
        super().__init__(*problems, tip=tip or "install the program again; if it stays, report it")


class RcloneUnusableError(OrchestratorError):
    """There is no rclone, or it is too old."""

    exit_code = 4


class AccessRefusedError(OrchestratorError):
    """The store does not let us in, or the bucket is not there."""

    exit_code = 5


class TransferError(OrchestratorError):
    """The store or the network failed while files were on their way."""

    exit_code = 6


class StuckError(TransferError):
    """Nothing more gets to the store, for so long that another attempt would not help."""
