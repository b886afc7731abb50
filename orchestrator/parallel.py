"""Threads over a stream: results in order, never more than a few items ahead."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 64  # items under way of one stream
PAGES, PAGE = 16, 1000  # that are made before they are asked for, and the items of each
TICK = 0.5  # seconds between two looks at whether they still will be


def bounded_map(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    """Apply `function` in the threads of a pool to a stream of any length."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


def ahead(items: Iterable[T], stopped: threading.Event) -> Iterator[T]:
    """Begin at once, in a thread, with a stream that will be asked for later; raise what it raises.

    Once `stopped` is set nobody will ask any more.
    """
    made: queue.Queue[list[T] | Exception | None] = queue.Queue(PAGES)

    def put(page: list[T] | Exception | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                made.put(page, timeout=TICK)
                return

    def make() -> None:
        try:
            for page in chunks(items, PAGE):
                put(page)
                if stopped.is_set():
                    return
            put(None)
        except Exception as error:  # noqa: BLE001  # it is raised where it matters
            put(error)

    threading.Thread(target=make, name="ahead", daemon=True).start()
    return _taken(made)


def _taken(made: queue.Queue[list[T] | Exception | None]) -> Iterator[T]:
    while (page := made.get()) is not None:
        if isinstance(page, Exception):
            raise page
        yield from page
