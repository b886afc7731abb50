"""What a bad network does to bytes on their way; each call makes it for one connection or body."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

PIECE = 256
"""Bytes that a slow line carries at a time."""

Through = Callable[[bytes], bytes]
"""Takes the bytes that came and returns those that go on; it may wait, or raise ResetError."""


class ResetError(OSError):
    """The connection is to end with a reset, here and now."""


def unchanged(data: bytes) -> bytes:
    return data


def nothing() -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What befalls one request: before it goes on, to its body, to its answer's, before that one.

    `up` and `down` make a `Through` for each body.
    """

    before: Callable[[], object] = nothing
    up: Callable[[], Through] = lambda: unchanged
    down: Callable[[], Through] = lambda: unchanged
    after: Callable[[], object] = nothing


def reset() -> None:
    raise ResetError("reset on purpose")


def resetting(after: int) -> Through:
    """Let so many bytes pass, then reset."""
    left = after

    def through(data: bytes) -> bytes:
        nonlocal left
        if len(data) > left:
            reset()
        left -= len(data)
        return data

    return through


def flipping(chance: random.Random) -> Through:
    """Change one bit of the first bytes that pass; the later ones are as they were."""
    done = False

    def through(data: bytes) -> bytes:
        nonlocal done
        if done or not data:
            return data
        done = True
        return flipped(data, chance)

    return through


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one bit changed."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def slowed(rate: float, over: threading.Event, first: float = float("inf")) -> Through:
    """Hold the `first` bytes back as a line of `rate` bytes a second does; not when it is over."""
    left = first

    def through(data: bytes) -> bytes:
        nonlocal left
        over.wait(min(len(data), left) / rate)
        left = max(0.0, left - len(data))
        return data

    return through
