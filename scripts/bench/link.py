"""The way between client and server: none, two network namespaces with a delay, or a TCP proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Child = TypeVar("Child", subprocess.Popen[str], subprocess.Popen[bytes])
HERE = Path(__file__).parent
QUEUE = 100  # ms of backlog, after which packets are dropped
SITE, STORE = "10.99.0.1", "10.99.0.2"
LOOPBACK = "127.0.0.1"
PATIENCE = 20.0
PROXY = (
    "a TCP proxy: connections open without delay, and neither slow start nor loss is imitated, so "
    "that new connections and uploads of one stream look better than they are (root and cc: "
    "network namespaces)"
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Round trip in ms and Mbit/s; without a limit, client and server are side by side."""

    name: str
    rtt: float = 0.0
    mbit: float = 0.0


SCENARIOS: Mapping[str, Scenario] = {
    "L": Scenario(name="L"),
    "W": Scenario(name="W", rtt=30, mbit=200),
    "H": Scenario(name="H", rtt=80, mbit=50),
}


@dataclass(frozen=True, kw_only=True)
class Link:
    """What to put before the commands of either side, and where the server listens."""

    scenario: Scenario
    kind: str = "loopback"
    client: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    host: str = LOOPBACK

    @contextmanager
    def through(self, url: str) -> Iterator[str]:
        """Yield the address by which the client reaches the server's."""
        if self.kind != PROXY:
            yield url
            return
        port = url.rpartition(":")[2]
        argv = [sys.executable, str(HERE / "proxy.py"), port]
        argv += [str(self.scenario.rtt), str(self.scenario.mbit)]
        with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)) as child:
            assert child.stdout
            yield f"http://{LOOPBACK}:{child.stdout.readline().strip()}"


@contextmanager
def link(scenario: Scenario, work: Path) -> Iterator[Link]:
    if not scenario.mbit:
        yield Link(scenario=scenario)
    elif namespaces():
        yield from _namespaces(scenario, work)
    else:
        yield Link(scenario=scenario, kind=PROXY)


def namespaces() -> bool:
    """Say whether this machine and user can make network namespaces with links of ours."""
    tun = os.geteuid() == 0 and Path("/dev/net/tun").exists()
    return bool(tun and shutil.which("ip") and _compiler())


def _compiler() -> str | None:
    return shutil.which("cc")


def _namespaces(scenario: Scenario, work: Path) -> Iterator[Link]:
    """Join two namespaces by two TUN devices, and carry the packets between them."""
    router = compiled(work)
    mark = f"{os.getpid():x}"
    site, store = f"mosi{mark}", f"most{mark}"
    words = [str(router), site, store, f"{scenario.rtt}", f"{scenario.mbit}", f"{QUEUE}"]
    with ExitStack() as stack:
        child = stack.enter_context(ended(subprocess.Popen(words, stdout=subprocess.PIPE)))
        assert child.stdout
        child.stdout.readline()
        for name, own, peer in ((site, SITE, STORE), (store, STORE, SITE)):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            join(name, name, own, peer)
        enter = ("ip", "netns", "exec")
        kind = "network namespaces"
        client, server = (*enter, site), (*enter, store)
        yield Link(scenario=scenario, kind=kind, client=client, server=server, host=STORE)


def compiled(work: Path) -> Path:
    """Return the program that carries packets between two TUN devices."""
    router = work / "link"
    subprocess.run([_compiler() or "cc", "-O2", "-o", router, HERE / "link.c"], check=True)
    return router


def join(device: str, namespace: str, own: str, peer: str) -> None:
    ip("link", "set", device, "netns", namespace)
    ip("-n", namespace, "link", "set", "lo", "up")
    ip("-n", namespace, "addr", "add", own, "peer", peer, "dev", device)
    ip("-n", namespace, "link", "set", device, "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def ended(child: Child) -> Iterator[Child]:
    """End a process, whatever happens."""
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout:
            child.stdout.close()
