"""The fixture of the harnesses, and their table at the end of the session."""

from __future__ import annotations

import pytest

from tests.proof.figures import PROPERTY, SAYS, Proof, table


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    options = request.config.option
    properties = request.node.user_properties
    return Proof(full=options.proof == "full", seed=options.seed, properties=properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed"))
    calls = [report for report in reports if report.when == "call"]
    properties = [pair for report in calls for pair in report.user_properties]
    found = [value for name, value in properties if name == PROPERTY]
    if found:
        size = terminalreporter.config.option.proof
        terminalreporter.section(f"what is proven ({size} form)")
        for line in (*table(found), *(text for name, text in properties if name == SAYS)):
            terminalreporter.line(line)
