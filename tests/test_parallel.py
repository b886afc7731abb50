"""Streams that are made ahead of those who ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from orchestrator.parallel import PAGE, PAGES, ahead
from tests.conformance.observe import wait_for


def test_a_stream_is_begun_before_it_is_asked_for_and_comes_whole() -> None:
    begun = threading.Event()

    def stream() -> Iterator[int]:
        begun.set()
        yield from range(3 * PAGE + 1)

    found = ahead(stream(), threading.Event())
    assert begun.wait(10)
    assert list(found) == list(range(3 * PAGE + 1))


def test_what_a_stream_raises_is_raised_to_who_asks() -> None:
    def stream() -> Iterator[int]:
        yield from range(PAGE)
        raise OSError("broken off")

    found = ahead(stream(), threading.Event())
    assert [next(found) for _ in range(PAGE)] == list(range(PAGE))
    with pytest.raises(OSError, match="broken off"):
        next(found)


def test_no_more_than_some_pages_are_made_and_none_once_nobody_will_ask() -> None:
    made, ended = 0, threading.Event()

    def stream() -> Iterator[int]:
        nonlocal made
        try:
            for number in range(100 * PAGES * PAGE):
                made = number
                yield number
        finally:
            ended.set()

    stopped = threading.Event()
    ahead(stream(), stopped)
    assert wait_for(lambda: made + 1 == (PAGES + 1) * PAGE)
    assert not ended.wait(1)
    stopped.set()
    assert ended.wait(10)
    assert made + 1 == (PAGES + 1) * PAGE
