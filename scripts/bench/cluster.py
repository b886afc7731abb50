"""What workers with an uplink each gain: one, then several, in turns, behind capped links.

python -m scripts.bench.cluster [--workers 4] [--mbit 8] [--rtt 20] [--files 4000] [--repeat 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.bench.contenders import Run, env_file, environment, ours_command, report
from scripts.bench.corpus import Corpus, corpus
from scripts.bench.link import QUEUE, Link, Scenario, compiled, ended, ip, join, namespaces
from scripts.bench.store import Store, store
from scripts.bench.tools import ours

HUB = "10.98.0.1"  # the store, the scheduler and the one who plans
PORT = "8786"
THREADS = "4"


@dataclass(frozen=True, kw_only=True)
class Star:
    """A namespace in the middle, and one behind a capped link for each worker."""

    hub: str
    workers: tuple[str, ...]

    def within(self, namespace: str, *command: object) -> list[str]:
        return ["ip", "netns", "exec", namespace, *map(str, command)]


@contextmanager
def star(size: int, scenario: Scenario, work: Path) -> Iterator[Star]:
    router, mark = compiled(work), f"{os.getpid():x}"
    hub = f"mohub{mark}"
    with ExitStack() as stack:
        _namespace(stack, hub)
        ip("-n", hub, "link", "set", "lo", "up")
        ip("-n", hub, "addr", "add", f"{HUB}/32", "dev", "lo")
        names = tuple(f"mow{mark}x{number}" for number in range(size))
        for number, name in enumerate(names):
            _namespace(stack, name)
            words = [router, name, f"h{name}", scenario.rtt, scenario.mbit, QUEUE]
            _cable(stack, list(map(str, words)), hub, number)
        yield Star(hub=hub, workers=names)


def _namespace(stack: ExitStack, name: str) -> None:
    ip("netns", "add", name)
    stack.callback(ip, "netns", "del", name)


def _cable(stack: ExitStack, words: list[str], hub: str, number: int) -> None:
    """Lead from a worker's namespace to the hub."""
    near, far = words[1:3]
    child = stack.enter_context(ended(subprocess.Popen(words, stdout=subprocess.PIPE)))
    assert child.stdout
    child.stdout.readline()
    own, peer = f"10.99.{number}.1", f"10.99.{number}.2"
    join(near, near, own, peer)
    join(far, hub, peer, own)
    ip("-n", near, "route", "add", "default", "via", peer)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of one migration: from start to end, and of the copy with its proof alone."""

    wall: float
    copy: float


def migrate(net: Star, workers: int, source: Corpus, work: Path) -> Measured:
    """Run one migration by so many workers, on a new and empty store."""
    folder = Path(tempfile.mkdtemp(dir=work))
    middle = Link(
        scenario=Scenario(name="star"),
        kind="network namespaces",
        client=("ip", "netns", "exec", net.hub),
        server=("ip", "netns", "exec", net.hub),
        host=HUB,
    )
    with ExitStack() as stack:
        reached = stack.enter_context(store("rclone", middle, folder, ours("rclone")))
        _dask(stack, net, workers, folder)
        found = _migrated(net, source, reached, folder)
    shutil.rmtree(folder)
    return found


def _dask(stack: ExitStack, net: Star, workers: int, folder: Path) -> None:
    dask, address = ours("dask"), f"tcp://{HUB}:{PORT}"
    scheduler = net.within(net.hub, dask, "scheduler", "--host", HUB, "--no-dashboard")
    _started(stack, scheduler, folder / "scheduler.log", "Scheduler at")
    for number, name in enumerate(net.workers[:workers]):
        words = [dask, "worker", address, "--host", f"10.99.{number}.1", "--no-dashboard"]
        words += ["--nthreads", THREADS, "--no-nanny", "--local-directory", folder]
        _started(stack, net.within(name, *words), folder / f"{name}.log", "Registered to")


def _started(stack: ExitStack, command: list[str], log: Path, ready: str) -> None:
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
    stack.enter_context(ended(child))
    while ready not in log.read_text():
        if child.poll() is not None:
            raise RuntimeError(log.read_text())
        time.sleep(0.05)


def _migrated(net: Star, source: Corpus, reached: Store, folder: Path) -> Measured:
    runs = folder / "runs"
    run = Run(
        corpus=source, store=reached, folder=folder, runs=runs, flags={}, source=source.folder
    )
    env_file(run)
    command = [*ours_command(run, "migrate"), "--cluster", f"tcp://{HUB}:{PORT}"]
    begin = time.monotonic()
    done = subprocess.run(
        net.within(net.hub, *command, "--cluster-insecure"),
        env=environment(run),
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - begin
    if done.returncode:
        logs = [path.read_text()[-2000:] for path in folder.glob("*.log")]
        raise RuntimeError("\n".join((done.stdout, done.stderr, *logs)))
    found: dict[str, Any] = report(runs)
    return Measured(wall=wall, copy=found["timings"]["copy"])


def main(arguments: Sequence[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and links are ended
    wanted = _arguments(arguments)
    if not namespaces():
        print("network namespaces need root, /dev/net/tun, ip and cc", file=sys.stderr)
        return 1
    scenario = Scenario(name="star", rtt=wanted.rtt, mbit=wanted.mbit)
    turns: list[tuple[Measured, Measured]] = []
    with tempfile.TemporaryDirectory(prefix="mo-") as made, ExitStack() as stack:
        work = Path(made)
        net = stack.enter_context(star(wanted.workers, scenario, work))
        source = stack.enter_context(corpus("small", wanted.files, work / "media"))
        for _ in range(wanted.repeat):
            pair = tuple(migrate(net, number, source, work) for number in (1, wanted.workers))
            turns.append((pair[0], pair[1]))
            print(_line(pair[0], pair[1]), file=sys.stderr, flush=True)
    print(json.dumps({**vars(wanted), "bytes": source.bytes, **_ratios(turns)}))
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--mbit", type=float, default=8, help="of each worker's link")
    parser.add_argument("--rtt", type=float, default=20, help="in ms")
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args(arguments)


def _line(one: Measured, several: Measured) -> str:
    return (
        f"1 worker {one.wall:.1f} s (copy {one.copy:.1f}), several {several.wall:.1f} s "
        f"(copy {several.copy:.1f}): {one.wall / several.wall:.2f} x faster"
    )


def _ratios(turns: Sequence[tuple[Measured, Measured]]) -> dict[str, list[float]]:
    """Return median, lowest and highest ratio, each taken within a turn."""
    found = {}
    for name in ("wall", "copy"):
        ratios = [getattr(one, name) / getattr(several, name) for one, several in turns]
        found[name] = [round(f(ratios), 2) for f in (median, min, max)]
    return found


if __name__ == "__main__":
    sys.exit(main())
