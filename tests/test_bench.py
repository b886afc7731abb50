"""The bench itself: a quick run works, counts what was verified, and gives no verdict on it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.bench.cells import CELLS, QUICK, TARGETS
from scripts.bench.contenders import CONTENDERS
from scripts.bench.link import PROXY, Link, Scenario
from scripts.bench.measure import measured
from scripts.bench.race import Result
from scripts.bench.verdict import judged

ROOT = Path(__file__).parent.parent
RUN = Result(
    scenario="W",
    corpus="small",
    contender="A",
    repetition=0,
    files=100,
    bytes=1000,
    wall=10.0,
    cpu=1.0,
    rss=1,
    wire=None,
    verified=0,
)


def runs(contender: str, *walls: float) -> list[Result]:
    return [
        replace(RUN, contender=contender, repetition=n, wall=wall) for n, wall in enumerate(walls)
    ]


def test_a_quick_run_has_all_figures_and_no_verdict(tmp_path: Path) -> None:
    found = tmp_path / "bench.json"
    command = [sys.executable, "-m", "scripts.bench", "--quick", "--json", str(found)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(found.read_text())
    ran = {(run["scenario"], run["corpus"], run["contender"]): run for run in facts["runs"]}
    assert set(ran) == {(c.scenario, c.corpus, name) for c in QUICK for name in c.contenders}
    assert ran["L", "small", "B"]["verified"] == ran["L", "small", "B"]["files"]
    assert all(run["wall"] > 0 and run["cpu"] > 0 for run in facts["runs"])
    assert ran["L", "small", "B"]["rss"] > ran["L", "small", "A"]["rss"] > 1_000_000
    assert facts["targets"]
    assert all(target["met"] is None for target in facts["targets"])


def test_each_target_is_of_something_that_is_run() -> None:
    places = {(c.scenario, c.corpus, name) for c in CELLS for name in c.contenders}
    assert {place for t in TARGETS for place in (t.over, t.under)} <= places
    assert {name for _, _, name in places} == CONTENDERS.keys()


def test_ratios_are_paired_and_judged() -> None:
    (found,) = judged([*runs("A", 10, 11, 10), *runs("B", 10.2, 11.1, 10.4)])
    assert (found.what, found.met) == ("B / A, W small", True)
    assert found.value == pytest.approx(1.02)
    (found,) = judged([*runs("A", 10, 11, 10), *runs("B", 12, 12.5, 12)])
    assert found.met is False


def test_there_is_no_verdict_where_the_base_is_restless() -> None:
    (found,) = judged([*runs("A", 10, 12, 10), *runs("B", 10.2, 11.1, 10.4)])
    assert found.met is None
    assert "20%" in found.why


HOLDS = """
import os, time
held = b"x" * 60_000_000
child = os.fork()
time.sleep(0.5)
if child:
    os.wait()
"""


def test_memory_is_that_of_all_processes_and_a_programs_that_of_its_largest(
    tmp_path: Path,
) -> None:
    """A child that is about to become another program has its parent's name and pages."""
    used = measured([sys.executable, "-c", HOLDS], env={}, log=tmp_path / "log")
    assert used.rss > 120_000_000
    assert 60_000_000 < max(used.programs.values()) < 100_000_000


def test_the_proxy_delays_and_limits() -> None:
    """100 ms there and back, and 1 MB at 80 Mbit/s takes 100 ms more."""
    slow = Link(scenario=Scenario(name="T", rtt=100, mbit=80), kind=PROXY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer, args=(server, 2))
        answering.start()
        with slow.through(f"http://127.0.0.1:{server.getsockname()[1]}") as url:
            assert 0.1 <= asked(url, 1) < 0.19
            assert 0.2 <= asked(url, 1_000_000) < 0.4
        answering.join()


def answer(server: socket.socket, times: int) -> None:
    """Say one word as soon as all has come that the first eight bytes announce."""
    for _ in range(times):
        with server.accept()[0] as connection, connection.makefile("rb") as stream:
            stream.read(int(stream.read(8)))
            connection.sendall(b"done")


def asked(url: str, size: int) -> float:
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"{size:08}".encode() + b"x" * size)
        assert connection.recv(4) == b"done"
    return time.monotonic() - start
