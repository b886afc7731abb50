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
    try:
        found = json.loads(line)
    except ValueError:
        return Event(level="critical", message=redact(line.strip()))
    level, message = found.get("level", ""), found.get("msg", "").strip()
    shown = redact(message) if level in TROUBLE else message
    return Event(level=level, message=shown, name=found.get("object"))
