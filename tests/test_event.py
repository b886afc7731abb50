"""Lines of rclone's log: what it says is taken, whatever the line is."""

from __future__ import annotations

import pytest

from orchestrator.event import Event, event
from orchestrator.redact import redactor

REDACT = redactor(["a secret"])


def test_a_line_of_rclone_is_taken_apart() -> None:
    line = '{"time":"x","level":"error","msg":"no a secret ","object":"a.jpg","source":"y"}\n'
    assert event(line, REDACT) == Event(level="error", message="no ***", name="a.jpg")


@pytest.mark.parametrize(
    "line",
    ["0", "null", '"a secret"', "[1]", "{}", '{"level": 1, "msg": []}', "[" * 100_000, "panic: x"],
)
def test_a_line_of_another_kind_is_trouble_as_it_is(line: str) -> None:
    found = event(f"{line}\n", REDACT)
    assert (found.level, found.name) == ("critical", None)
    assert found.message == line.replace("a secret", "***")


def test_a_name_is_a_text_or_none() -> None:
    assert event('{"level": "info", "msg": "x", "object": 1}', REDACT).name is None
