"""Recognise what rclone and SDKs say, by the texts that the templates list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from orchestrator.errors import (
    AccessRefusedError,
    ConfigurationError,
    OrchestratorError,
    Problem,
    TransferError,
)
from orchestrator.template import Known, Template

KINDS: Final[dict[str, Callable[[Problem], OrchestratorError]]] = {
    "access": AccessRefusedError,
    "configuration": ConfigurationError,
    "transfer": TransferError,
    "throttled": TransferError,
}
LONGEST = 300


def recognise(template: Template, text: str) -> Known | None:
    return next((known for known in template.errors if known.match.search(text)), None)


def problem(template: Template, text: str) -> Problem:
    known = recognise(template, text)
    short = " ".join(text.split())[:LONGEST]
    if known is None:
        return Problem(what=short, tip="the run's rclone.log.jsonl has every line that was logged")
    where = f"{known.option}: " if known.option else ""
    return Problem(what=f"{where}{known.says} ({short})", tip=known.tip)


def explain(
    template: Template, error: Exception | str, *, configuration: bool = False
) -> OrchestratorError:
    """Return the error to show for what an SDK raised or rclone printed (already redacted)."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    known = recognise(template, text)
    kind = known.kind if known else "configuration" if configuration else "transfer"
    return KINDS[kind](problem(template, text))
