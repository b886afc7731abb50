"""The harnesses' own judge: nothing that went wrong is lost on the way to the table."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proof.figures import Proof, Tally, table


def told(properties: list[tuple[str, Any]]) -> list[str]:
    return table(value for _, value in properties)


def judge(properties: list[tuple[str, Any]]) -> Proof:
    return Proof(full=False, seed=7, properties=properties)


@pytest.mark.parametrize(
    ("tally", "says"),
    [
        (Tally(cases=2, missed=["a.jpg flipped"]), "--seed 7: missed .*a.jpg flipped"),
        (Tally(cases=2, false_alarms=["b.jpg"]), "--seed 7: false alarms .*b.jpg"),
        (Tally(), "no case was tried"),
    ],
)
def test_a_harness_with_a_wrong_case_or_none_fails_and_is_in_the_table(
    tally: Tally, says: str
) -> None:
    properties: list[tuple[str, Any]] = []
    with pytest.raises(AssertionError, match=says):
        judge(properties).holds("faults", tally)
    assert len(told(properties)) == 2


def test_the_tests_of_one_harness_are_added_up() -> None:
    properties: list[tuple[str, Any]] = []
    judge(properties).holds("faults", Tally(cases=1000))
    judge(properties).holds("kills", Tally(cases=3))
    judge(properties).holds("faults", Tally(cases=234))
    cells = [line.split() for line in told(properties)]
    assert cells[0] == ["harness", "cases", "missed", "false", "alarms", "seconds", "seed"]
    assert [row[:4] + row[5:] for row in cells[1:]] == [
        ["faults", "1,234", "0", "0", "7"],
        ["kills", "3", "0", "0", "7"],
    ]
