"""How many files are in flight: the lists of files that rclone is given take turns at one gate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Final

LAST_WORDS: Final = 1.0  # seconds that rclone's log may be behind its answer
SHARE: Final = 3 / 8  # of what may be in flight, free for a list to begin: one alone drains slowly
LEAST: Final = 1 / 64  # of what may be in flight, however often a store says that it is too much
GROWTH: Final = 2  # times as many files in flight are tried
NOTED: Final = 1.25  # times as many must have been, for their rate to be judged
WORTH: Final = 4  # times what is in flight, stored between two looks at the rate
GAIN: Final = 1.1  # times as many files a second, for which more in flight are kept
ROOM: Final = 0.8  # of the time that the first files took: then files do not wait for each other
FULL: Final = 1.0  # of it: then they do
PAUSE: Final = 8  # looks at the rate, before more are tried again for the first time


@dataclass(frozen=True, kw_only=True)
class Flight:
    """How many files of a list may be in flight: to begin with, and where it proves a gain."""

    start: int
    most: int


@dataclass(kw_only=True)
class Call:
    """A list of files on its way: which are still waiting, and what was said of the others."""

    waiting: set[str]
    flight: Flight
    transfers: int = 1
    errors: dict[str, str] = field(default_factory=dict)
    last: str = ""
    begun: float = 0.0  # when it was let in

    @property
    def flying(self) -> int:
        return min(len(self.waiting), self.transfers)

    def unsent(self) -> dict[str, str]:
        """Return why each file that was not sent was not."""
        return {**dict.fromkeys(self.waiting, self.last or "rclone did not find it"), **self.errors}


@dataclass(kw_only=True)
class Pace:
    """Finds the number of files in flight with which the store takes the most a second.

    While a file takes less time than the first ones did, whose connections were opened for them,
    files do not wait for each other, and twice as many are sent at once. From then on twice as many
    are tried as long as more are stored; what they do not gain is taken back, for it does harm: on
    a slow uplink they push each other's packets out of its queue. As a network may change, more are
    tried again later, after a while that doubles each time that it was in vain.
    A store that throttles has the number halved; each list that gets through then brings a
    quarter back.
    """

    clock: Callable[[], float] = time.monotonic
    _factor: float = 1.0
    _before: float = 1.0  # what was found best so far
    _base: tuple[float, float] | None = None  # files in flight, and stored a second, with that
    _first: float = 0.0  # seconds that one of the first files took
    _known: bool = False  # whether these were all
    _rate: float = 0.0  # files stored a second, when there was last room for more
    _doubted: bool = False  # whether the last look at an attempt showed no gain
    _throttled: bool = False
    _pause: int = PAUSE  # looks at the rate, after an attempt in vain
    _paused: int = 0  # of these are left
    _passed: int = 0  # files that were on their way at the last look
    _stored: int = 0  # after these: files, and the integral of those in flight over time
    _since: float = 0.0
    _last: float = 0.0
    _area: float = 0.0

    def limit(self, flight: Flight) -> int:
        return _times(flight, self._factor)

    def proven(self, flight: Flight) -> int:
        """Return what has been found best so far, whatever is being tried."""
        return _times(flight, min(self._factor, self._before))

    def throttle(self) -> None:
        self._factor, self._throttled = max(self._factor / 2, LEAST), True

    def recover(self) -> None:
        if self._factor < 1:
            self._factor = min(self._factor * 1.25, 1.0)

    def stored(self, flying: int, flight: Flight, begun: float) -> None:
        """Note a stored file, how many were in flight up to now, and when its list was begun."""
        if self._throttled or flight.most <= flight.start:
            return
        now, limit = self.clock(), self.limit(flight)
        if self._passed < limit:  # it was sent with as many in flight as before
            self._passed += 1
            self._first += 0 if self._known else (now - begun) / limit
            self._since, self._stored, self._area = now, 0, 0.0
        else:
            self._known = True
            self._stored += 1
            self._area += flying * (now - self._last)
        self._last = now
        enough = self._stored >= WORTH * limit
        if (enough or self._stored == limit) and now > self._since:
            seconds = now - self._since
            mean, rate = self._area / seconds, self._stored / seconds
            if limit < flight.most and self._room(mean, rate, limit):
                self._grow(rate)
            elif enough:
                self._judge(mean, rate)

    def _room(self, flying: float, rate: float, limit: int) -> bool:
        """Say whether files do not wait for each other; how long each took is by Little's law."""
        quick = flying / rate < ROOM * self._first and flying > ROOM * limit
        return quick and not self._paused and rate > GAIN * self._rate

    def _grow(self, rate: float) -> None:
        """Have twice as many in flight, which needs no proof: it is the new base."""
        self._factor *= GROWTH
        self._before, self._base, self._rate = self._factor, None, rate
        self._passed, self._doubted = 0, False

    def _judge(self, flying: float, rate: float) -> None:
        self._passed = 0
        if self._base is None and flying / rate > FULL * self._first:
            self._paused = self._pause
        if self._base is None or self._factor == self._before or self._gained(flying, rate):
            self._before, self._base, self._doubted = self._factor, (flying, rate), False
            if self._paused:
                self._paused -= 1
            else:
                self._factor *= GROWTH

    def _gained(self, flying: float, rate: float) -> bool:
        """Say whether more in flight have proven a gain; take them back if they have not twice."""
        assert self._base  # noqa: S101  # it is known before more are tried
        if flying < NOTED * self._base[0]:  # lists with fewer in flight are not through yet
            return False
        if rate >= GAIN * self._base[1]:
            return True
        if self._doubted:
            self._factor, self._paused = self._before, self._pause
            self._pause *= 2
        self._doubted = not self._doubted  # at first the new connections may not be warm yet
        return False


def _times(flight: Flight, factor: float) -> int:
    return max(1, min(flight.most, int(flight.start * factor)))


class Gate:
    """Lets a list in as soon as a good part of what may be in flight is free: none drains alone.

    It gets all that is free, up to its end, so two or three fill it.
    """

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._turn = threading.Condition()
        self.pace = Pace()
        self.last = ""
        self.closed = False

    @contextmanager
    def through(self, call: Call) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: self.closed or self._room(call))
            self._calls.append(call)
            call.begun = self.pace.clock()
        try:
            yield
        finally:
            with self._turn:
                self._calls.remove(call)
                if not call.errors:
                    self.pace.recover()
                self._turn.notify_all()

    def _room(self, call: Call) -> bool:
        limit, flying = self.pace.limit(call.flight), self._flying
        call.transfers = max(1, limit - flying)
        enough = min(len(call.waiting), ceil(limit * SHARE))
        return not flying or flying + enough <= limit

    @property
    def _flying(self) -> int:
        return sum(call.flying for call in self._calls)

    def find(self, name: str) -> Call | None:
        with self._turn:
            return next((call for call in self._calls if name in call.waiting), None)

    def landed(self, call: Call, name: str, error: str = "") -> None:
        with self._turn:
            limit = self.pace.limit(call.flight)
            if error:
                self.last = call.errors[name] = error
            else:
                self.pace.stored(self._flying, call.flight, call.begun)
            call.waiting.discard(name)
            grown = self.pace.limit(call.flight) > limit
            if grown or len(call.waiting) < call.transfers:  # else there is no room for others
                self._turn.notify_all()

    def tell_all(self, said: str) -> None:
        with self._turn:
            for call in self._calls:
                call.last = said

    def settle(self, call: Call) -> None:
        """Wait until the log has said of each file what became of it; of some it never does."""
        with self._turn:
            self._turn.wait_for(lambda: self.closed or not call.waiting, LAST_WORDS)

    @property
    def busy(self) -> bool:
        return bool(self._calls)

    def close(self) -> None:
        with self._turn:
            self.closed = True
            self._turn.notify_all()
