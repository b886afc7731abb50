"""At the end of the session: how many fields of how many objects were equal to Django's."""

from __future__ import annotations

import pytest

from tests.conformance import twin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed"))
    found = [v for report in reports for name, v in report.user_properties if name == "twin"]
    if found:
        terminalreporter.section("objects equal to those of Django's save()")
        for line in twin.table(found):
            terminalreporter.line(line)
