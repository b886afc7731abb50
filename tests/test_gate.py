"""Lists of files that take turns, and how many files are in flight."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from orchestrator.gate import Call, Flight, Gate, Pace
from tests.conformance.observe import wait_for


def flight(limit: int) -> Flight:
    return Flight(start=limit, most=limit)


@pytest.mark.parametrize("limit", [1, 3, 64])
def test_never_more_files_are_in_flight_than_allowed(limit: int) -> None:
    gate, seen = Gate(), []
    lists = [{f"{n}-{m}" for m in range(n * 7 % 40 + 1)} for n in range(30)]

    def send(names: set[str]) -> None:
        call = Call(waiting=set(names), flight=flight(limit))
        with gate.through(call):
            for name in names:
                seen.append(sum(c.flying for c in gate._calls))
                gate.landed(call, name)

    threads = [threading.Thread(target=send, args=(names,)) for names in lists]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(seen) == sum(map(len, lists))
    assert max(seen) <= limit


def test_a_second_list_gets_in_when_a_good_part_is_free() -> None:
    gate = Gate()
    first = Call(waiting=set("abcdef"), flight=flight(5))
    second = Call(waiting=set("xyz"), flight=flight(5))
    entered = threading.Event()

    def follow() -> None:
        with gate.through(second):
            entered.set()

    with gate.through(first):
        assert first.transfers == 5  # nobody else is there
        threading.Thread(target=follow).start()
        for name in "ab":
            gate.landed(first, name)
        assert not entered.wait(0.1)  # one more is no good part of five
        gate.landed(first, "c")
        assert entered.wait(10)
        assert second.transfers == 2


def test_a_list_that_waits_gets_in_as_soon_as_more_may_be_in_flight() -> None:
    now = 0.0
    gate = Gate()
    gate.pace = Pace(clock=lambda: now)
    two_or_more = Flight(start=2, most=64)
    first = Call(waiting=set("abcdefghijklmnop"), flight=two_or_more)
    second = Call(waiting=set("xyz"), flight=two_or_more)
    entered = threading.Event()

    def follow() -> None:
        with gate.through(second):
            entered.set()

    with gate.through(first):
        threading.Thread(target=follow).start()
        for name in "abc":
            now += 0.1 if name in "ab" else 0.01  # at first connections are opened
            gate.landed(first, name)
        assert not entered.wait(0.1)
        now += 0.01
        gate.landed(first, "d")
        assert entered.wait(10)
        assert second.transfers == 2


def test_throttling_halves_what_may_be_in_flight_and_it_recovers() -> None:
    pace = Pace()
    pace.throttle()
    assert pace.limit(flight(64)) == 32
    for _ in range(3):
        pace.recover()
    assert pace.limit(flight(64)) == 62
    for _ in range(20):
        pace.throttle()
    assert pace.limit(flight(64)) == 1


@dataclass
class Shop:
    """A store that takes `seconds` for a file, behind a wire for so many files a second.

    The first files take `opening` longer, as their connections are opened for them.
    """

    seconds: float
    wire: float
    opening: float = 0.0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.pace = Pace(clock=lambda: self.now)

    def found(self, flight: Flight, files: int = 20_000) -> int:
        for _ in range(files):
            flying = self.pace.limit(flight)
            self.now += 1 / min(flying / self.seconds, self.wire)
            self.pace.stored(flying, flight, begun=self.now - self.seconds - self.opening)
        return self.pace.limit(flight)


@pytest.mark.parametrize(
    ("seconds", "wire", "found"),
    [
        (0.3, 1e6, 256),  # slow, but takes all at once
        (0.3, 450, 128),  # 135 in flight fill the wire: 256 would store a twentieth more
        (0.3, 400, 128),
        (0.1, 640, 64),
        (0.1, 400, 64),  # 32 leave a fifth of it free
        (0.01, 100, 16),  # the wire is full as it is
    ],
)
def test_more_are_in_flight_as_long_as_that_stores_more_a_second(
    seconds: float, wire: float, found: int
) -> None:
    assert Shop(seconds, wire).found(Flight(start=16, most=256)) == found


def test_on_a_slow_uplink_no_more_are_in_flight_than_fill_it() -> None:
    """Measured: 64 and 128 at 8 Mbit/s take 1.7 and 3.3 times as long as 16."""
    assert Shop(0.06, 30).found(Flight(start=16, most=256)) == 16
    assert Shop(0.06, 30).found(Flight(start=1, most=256)) in {2, 4}


def test_where_files_wait_for_each_other_no_more_are_tried_at_once() -> None:
    """Measured: the first looks at 8 Mbit/s, at new connections, took 32 and 64 for gains."""
    shop, flight = Shop(0.06, 30), Flight(start=16, most=256)
    limits = {shop.found(flight, 1) for _ in range(400)}
    assert limits == {16}


@pytest.mark.parametrize(
    ("wire", "found"),
    [
        (1e6, 256),
        (190, 32),  # measured: 80 ms and 50 Mbit/s
        (750, 128),
    ],
)
def test_as_long_as_files_do_not_wait_for_each_other_more_are_sent_without_proof(
    wire: float, found: int
) -> None:
    """Short looks tell whether they do, but are too noisy to be a base for what is gained."""
    shop, flight = Shop(0.08, wire, opening=0.08), Flight(start=16, most=256)
    assert shop.found(flight, 2 * (16 + 32 + 64 + 128)) == found
    assert shop.found(flight) == found


def test_slow_first_files_do_not_make_a_full_wire_look_empty() -> None:
    assert Shop(0.06, 30, opening=20).found(Flight(start=16, most=256), 3000) == 32


def test_a_list_that_runs_out_does_not_make_the_store_look_fast() -> None:
    shop, flight = Shop(0.08, 1e6, opening=0.08), Flight(start=16, most=256)
    for _ in range(60):
        shop.now += 0.08 / 8
        shop.pace.stored(8, flight, begun=shop.now - 0.16)
    assert shop.pace.limit(flight) == 16


def test_an_attempt_is_in_vain_only_when_a_second_look_says_so() -> None:
    """Its new connections are slow at first: taken back at once, it cost 80 ms a quarter."""
    for second, found in [(0.1, 32), (0.2, 16)]:
        shop, flight = Shop(0.1, 1e6), Flight(start=16, most=32)
        assert shop.found(flight, 80) == 32
        shop.seconds = 0.2
        assert shop.found(flight, 160) == 32
        shop.seconds = second
        assert shop.found(flight, 160) == found


def test_what_is_only_being_tried_is_not_told_as_the_best() -> None:
    """The command to do the same by hand had it."""
    shop, flight = Shop(0.06, 30), Flight(start=16, most=256)
    tried = [(shop.found(flight, 1), shop.pace.proven(flight)) for _ in range(3000)]
    assert (32, 16) in tried
    assert {best for _, best in tried} == {16}


def test_more_are_tried_again_later_as_the_network_may_have_become_faster() -> None:
    shop, flight = Shop(0.3, 50), Flight(start=16, most=256)
    assert shop.found(flight, 400) == 16
    shop.wire = 400
    shop.found(flight, 10_000)
    assert shop.pace.proven(flight) == 128


def test_a_large_file_between_does_not_make_the_store_look_slower() -> None:
    """Fewer of them are in flight, so the time is judged after fewer files."""
    now = 0.0
    pace = Pace(clock=lambda: now)
    small, large = Flight(start=64, most=256), Flight(start=16, most=64)
    for number in range(4000):
        now += 0.1 / pace.limit(small)
        pace.stored(pace.limit(small), large if number == 700 else small, begun=0)
    assert pace.limit(small) == 256


def test_no_more_are_in_flight_than_the_user_or_the_memory_allows() -> None:
    assert 64 < Shop(0.3, 1e6).found(Flight(start=64, most=100)) <= 100
    assert Shop(0.3, 1e6).found(Flight(start=7, most=7)) == 7


def test_a_closed_gate_holds_nobody() -> None:
    gate, passed = Gate(), threading.Event()

    def follow() -> None:
        with gate.through(Call(waiting={"b"}, flight=flight(1))):
            passed.set()

    with gate.through(Call(waiting={"a"}, flight=flight(1))):
        threading.Thread(target=follow).start()
        gate.close()
        assert wait_for(passed.is_set)
