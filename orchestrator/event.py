"""What rclone says while it works: the lines of its JSON log."""

from __future__ import annotations

import json
from dataclasses import dataclass

from orchestrator.redact import Redactor

TROUBLE = ("warning", "error", "critical")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One line; the message of trouble is redacted, as it may be shown."""

    level: str
    message: str
    name: str | None = None


def event(line: str, redact: Redactor) -> Event:
    """Take a line for what it says; one that is no JSON of rclone's is a word of Go's runtime."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"level": str(level), "msg": str(said), **more}:
            message = redact(said.strip()) if level in TROUBLE else said.strip()
            name = more.get("object")
            return Event(level=level, message=message, name=name if isinstance(name, str) else None)
    return Event(level="critical", message=redact(line.strip()))
