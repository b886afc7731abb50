"""Streams that are made ahead of those who ask."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from orchestrator.clients import Stored
from orchestrator.errors import ConfigurationError
from orchestrator.parallel import PAGE, Room, ahead, beside, unless


def test_a_stream_is_made_before_it_is_asked_for_and_comes_whole(tmp_path: Path) -> None:
    made = threading.Event()

    def stored(number: int) -> Stored:
        return Stored(key=f"{number} é \udcff\n", size=number, hash=None, tag="")

    def stream() -> Iterator[Stored]:
        yield from map(stored, range(3 * PAGE + 1))
        made.set()

    found = ahead(stream(), Stored._make, threading.Event(), tmp_path)
    assert made.wait(10)
    assert not [*tmp_path.iterdir()]  # nothing is left, however it ends
    assert [*found] == [*map(stored, range(3 * PAGE + 1))]


def test_what_a_stream_raises_is_raised_to_who_asks(tmp_path: Path) -> None:
    def stream() -> Iterator[tuple[int]]:
        yield from ((number,) for number in range(PAGE))
        raise OSError("broken off")

    found = ahead(stream(), sum, threading.Event(), tmp_path)
    assert [next(found) for _ in range(PAGE)] == list(range(PAGE))
    with pytest.raises(OSError, match="broken off"):
        next(found)


def test_threads_hold_no_more_than_there_is_room_for_but_what_is_larger_alone() -> None:
    room, held, seen = Room(), 0, list[int]()

    def hold(size: int) -> None:
        nonlocal held
        with room.holding(size, 10):
            held += size
            seen.append(held)
            time.sleep(0.01)
            held -= size

    with ThreadPoolExecutor(8) as pool:
        [*pool.map(hold, [3, 4, 25, 0, 3, 3, 25, 4, 10, 6])]
    assert len(seen) == 10
    assert max(size for size in seen if size != 25) <= 10
    assert seen.count(25) == 2
    assert any(size not in {0, 3, 4, 6, 10, 25} for size in seen)  # and not one after another


def test_a_full_disk_under_what_waits_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = partial(open, "/dev/full", "r+b")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering, **_: full(buffering))
    found = ahead(((number,) for number in range(3)), sum, threading.Event(), tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"No space left on device\n  TIP: make room"
    ) as told:
        next(found)
    assert str(tmp_path) in str(told.value)


def test_no_more_is_made_once_nobody_will_ask(tmp_path: Path) -> None:
    made, ended, stopped = 0, threading.Event(), threading.Event()

    def stream() -> Iterator[tuple[int]]:
        nonlocal made
        try:
            for number in range(100 * PAGE):
                made = number
                if number == 2 * PAGE:
                    stopped.set()
                yield (number,)
        finally:
            ended.set()

    ahead(stream(), sum, stopped, tmp_path)
    assert ended.wait(10)
    assert made + 1 == 3 * PAGE


def test_what_a_thread_beside_returns_or_raises_comes_to_who_asks() -> None:
    assert beside(lambda: 7).result(10) == 7
    with pytest.raises(ZeroDivisionError):
        beside(lambda: 1 // 0).result(10)


def test_items_end_with_what_has_failed_beside_them() -> None:
    failing = threading.Event()

    def fail() -> None:
        failing.wait(10)
        raise OSError("refused")

    failed = beside(fail)
    items = unless(failed, iter(range(100)))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    failing.set()
    with pytest.raises(OSError, match="refused"):
        failed.result(10)
    with pytest.raises(OSError, match="refused"):
        next(items)
    assert [*unless(beside(lambda: None), range(3))] == [0, 1, 2]
