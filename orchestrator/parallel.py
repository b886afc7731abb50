"""Threads over a stream: results in order, never more than a few items ahead."""

from __future__ import annotations

import json
import os
import queue
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from orchestrator.errors import ConfigurationError

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 64  # items under way of one stream
PAGE = 1000  # items that are made before any is handed on


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


def beside(function: Callable[[], R]) -> Future[R]:
    """Call a function in a thread that does not keep the process from ending."""
    answer: Future[R] = Future()

    def call() -> None:
        try:
            answer.set_result(function())
        except Exception as error:  # noqa: BLE001  # it is raised where it matters
            answer.set_exception(error)

    threading.Thread(target=call, name="beside", daemon=True).start()
    return answer


def unless(failed: Future[Any], items: Iterable[T]) -> Iterator[T]:
    """Yield items up to the moment when something beside fails; then raise what it raised."""
    stream = iter(items)
    for item in stream:
        yield item
        if failed.done():
            failed.result()
            break
    yield from stream


class Room:
    """Bytes that several threads may hold at once; what is larger than all of it is held alone."""

    def __init__(self) -> None:
        self._held = 0
        self._turn = threading.Condition()

    @contextmanager
    def holding(self, size: int, most: int) -> Iterator[None]:
        """Wait until `size` more are no more than `most`."""
        with self._turn:
            self._turn.wait_for(lambda: not self._held or self._held + size <= most)
            self._held += size
        try:
            yield
        finally:
            with self._turn:
                self._held -= size
                self._turn.notify_all()


def ahead(
    rows: Iterable[tuple[Any, ...]],
    read: Callable[[list[Any]], T],
    stopped: threading.Event,
    folder: Path,
) -> Iterator[T]:
    """Begin at once, in a thread, with a stream that will be asked for later; raise what it raises.

    What nobody has asked for yet waits as JSON in a file in `folder`, and `read` makes each row of
    it; ConfigurationError if it cannot be kept. Once `stopped` is set nobody will ask.
    """
    made: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()  # bytes of each page
    pages = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115  # closed with its last user

    def make() -> None:
        try:
            for page in chunks(rows, PAGE):
                if stopped.is_set():
                    pages.close()
                    return
                data = json.dumps(page).encode()
                _keep(pages, data, folder)
                made.put(len(data))
            made.put(None)
        except Exception as error:  # noqa: BLE001  # it is raised where it matters
            made.put(error)

    threading.Thread(target=make, name="ahead", daemon=True).start()
    return _taken(made, pages, read)


def _keep(pages: IO[bytes], data: bytes, folder: Path) -> None:
    left = memoryview(data)
    try:
        while left:  # a disk that is nearly full takes a part
            left = left[pages.write(left) :]
    except OSError as error:
        what = f"{folder} cannot be written: {error.strerror}"
        tip = "make room there, or choose another folder with --run-dir"
        raise ConfigurationError(what, tip=tip) from error


def _taken(
    made: queue.SimpleQueue[int | Exception | None],
    pages: IO[bytes],
    read: Callable[[list[Any]], T],
) -> Iterator[T]:
    place = 0
    with pages:
        while (size := made.get()) is not None:
            if isinstance(size, Exception):
                raise size
            yield from map(read, json.loads(os.pread(pages.fileno(), size, place)))
            place += size
