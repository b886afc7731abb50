"""What is too big: for the store, or for the class where rclone cannot carry a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from orchestrator.progress import human
from orchestrator.storage import Target
from orchestrator.template import Limit


@dataclass(frozen=True, kw_only=True)
class Most:
    """So many bytes in one object, and who says so."""

    bytes: int
    source: str

    def __str__(self) -> str:
        return f"{human(self.bytes)} ({self.source})"


def largest(target: Target) -> Most | None:
    """Return the largest object that the store takes; None where it has no limit of its own."""
    return _most(target, target.rule.largest or target.template.largest)


def largest_saved(target: Target) -> Most | None:
    """Return the largest object that the class itself can save."""
    return _most(target, target.rule.largest_saved or target.template.largest_saved)


def _most(target: Target, limit: Limit | None) -> Most | None:
    return Most(bytes=limit.of(target.options), source=limit.source) if limit else None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a target, found once for all its files."""

    object: Most | None
    saved: Most | None

    @classmethod
    def of(cls, target: Target) -> Self:
        return cls(object=largest(target), saved=largest_saved(target))

    def refusal(self, size: int, *, by_class: bool) -> str:
        """Say why no object can have so many bytes, or ''; `by_class`: rclone cannot carry it."""
        if self.object and size > self.object.bytes:
            return f"it has {human(size)}, and one object of the store can have {self.object}"
        if by_class and self.saved and size > self.saved.bytes:
            return (
                f"it has {human(size)}; rclone cannot carry it, and the class can save {self.saved}"
            )
        return ""
