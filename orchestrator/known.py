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
    "network": AccessRefusedError,
    "configuration": ConfigurationError,
    "transfer": TransferError,
    "throttled": TransferError,
}
CALLED = ("address", "certificates")  # options of errors.yaml, which each family calls otherwise
LONGEST = 300
SHORT = 100  # characters of what was said, behind what it means


def words(error: BaseException | None) -> str:
    """Return what an error says, a line each for it and for the errors that led to it.

    SDKs hide the cause: boto3 says "could not connect" for a wrong name and a closed port.
    """
    found: list[str] = []
    while error is not None:
        found.append(_named(error))
        error = _cause(error) or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(found)


def said(error: BaseException) -> str:
    """Return what an error says in one line, and what its cause says if that tells more."""
    text, cause = _named(error), _cause(error)
    return text if cause is None or str(cause) in text else f"{text} ({_named(cause)})"


def _named(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _cause(error: BaseException) -> BaseException | None:
    """Return what led to an error; that of boto3's last attempt is an attribute only."""
    last = getattr(error, "last_exception", None)
    return last if isinstance(last, BaseException) else error.__cause__


def recognise(template: Template, text: str) -> Known | None:
    """Return what the store means by it; of a file that cannot be read it is not the store's word.

    The wording is that of rclone's local backend.
    """
    if "failed to open source object" in text:
        return None
    return next((known for known in template.errors if known.match.search(text)), None)


def problem(template: Template, text: str) -> Problem:
    known = recognise(template, text)
    said = next(iter(text.strip().splitlines()), "")
    if known is None:
        tip = "the run's rclone.log.jsonl has every line that was logged"
        return Problem(what=_cut(said, LONGEST), tip=tip)
    option = template.called.get(
        known.option or "", None if known.option in CALLED else known.option
    )
    where = f"{option}: " if option else ""
    return Problem(what=f"{where}{known.says} ({_shown(known, text, said)})", tip=known.tip)


def _shown(known: Known, text: str, said: str) -> str:
    """Return the beginning of what was said, and the words by which it was recognised."""
    short = _cut(said, SHORT)
    found = known.match.search(text)
    return short if not found or found[0] in short else f"{found[0]}: {short}"


def meaning(template: Template, text: str) -> str:
    """Return what the template says of it, or the text itself."""
    return problem(template, text).what if recognise(template, text) else text


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def explain(
    template: Template, error: Exception | str, *, configuration: bool = False, amid: bool = False
) -> OrchestratorError:
    """Return the error to show for what an SDK raised or rclone printed (already redacted).

    `amid` says that the store has answered before: then the network failed, not the address.
    """
    text = error if isinstance(error, str) else words(error)
    known = recognise(template, text)
    kind = known.kind if known else "configuration" if configuration else "transfer"
    kind = "transfer" if amid and kind == "network" else kind
    return KINDS[kind](problem(template, text))
