"""A TCP relay in front of a test server that speaks no HTTP, for bad networks; of FTP the data too.

An FTP server names the port of each data connection on the other one: it gets a relay of its own.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.servers.proxy import BLOCK, RESET
from tests.servers.trouble import ResetError, Through, unchanged

EPSV = re.compile(rb"^229 [^(]*\(\|\|\|(\d+)\|\)", re.MULTILINE)
PASV = re.compile(rb"^227 [^(]*\((\d+,\d+,\d+,\d+),(\d+),(\d+)\)", re.MULTILINE)
Maker = Callable[[], Through]


def straight() -> Through:
    return unchanged


def first(times: int, made: Maker) -> Maker:
    """Make trouble for the first connections; the later ones have none."""
    left = times

    def make() -> Through:
        nonlocal left
        left -= 1
        return made() if left >= 0 else unchanged

    return make


@dataclass(kw_only=True)
class Relay:
    """`up` and `down` make what befalls the bytes of each new connection, to and from the server.

    `data_up` and `data_down` do so for FTP's connections for data.
    """

    port: int
    upstream: int
    up: Maker = straight
    down: Maker = straight
    data_up: Maker = straight
    data_down: Maker = straight
    refuses: bool = False
    """Reset each new connection before a byte of it has passed."""
    over: threading.Event = field(default_factory=threading.Event)
    count: int = 0
    """How many connections there were, without those for data."""
    _open: list[socket.socket] = field(default_factory=list)

    def heal(self) -> None:
        self.up = self.down = self.data_up = self.data_down = straight
        self.refuses = False

    def cut(self) -> None:
        """Reset all connections that are open."""
        for connection in self._open:
            with suppress(OSError):
                _reset(connection)
        self._open.clear()

    def accept(self, listener: socket.socket) -> None:
        """Relay what comes in until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.count += 1
                if self.refuses:
                    _reset(client)
                else:
                    self._join(client, self.upstream, self.up(), self._rewriting(self.down()))

    def _join(self, client: socket.socket, port: int, up: Through, down: Through) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except OSError:
            _reset(client)
            return
        self._open += [client, server]
        for source, target, through in ((client, server, up), (server, client, down)):
            threading.Thread(target=self._pump, args=(source, target, through), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, through: Through) -> None:
        try:
            while data := source.recv(BLOCK):
                target.sendall(through(data))
            target.shutdown(socket.SHUT_WR)
        except ResetError:
            _reset(source)
            _reset(target)
        except OSError:
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)

    def _rewriting(self, through: Through) -> Through:
        """Put a port of ours in the place of each that the server opens for data."""

        def rewriting(data: bytes) -> bytes:
            return through(PASV.sub(self._passive, EPSV.sub(self._extended, data)))

        return rewriting

    def _extended(self, found: re.Match[bytes]) -> bytes:
        return found[0].replace(found[1], b"%d" % self._open_data(int(found[1])))

    def _passive(self, found: re.Match[bytes]) -> bytes:
        port = self._open_data(int(found[2]) * 256 + int(found[3]))
        return found[0].replace(b",%b,%b)" % found.group(2, 3), b",%d,%d)" % divmod(port, 256))

    def _open_data(self, upstream: int) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(60)
        threading.Thread(target=self._take_data, args=(listener, upstream), daemon=True).start()
        return int(listener.getsockname()[1])

    def _take_data(self, listener: socket.socket, upstream: int) -> None:
        with listener, suppress(OSError):
            client, _ = listener.accept()
            client.settimeout(None)
            self._join(client, upstream, self.data_up(), self.data_down())


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)  # so that who reads it wakes up
    connection.close()


@contextmanager
def relaying(port: int) -> Iterator[Relay]:
    """Run a relay in front of a port of this machine."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        relay = Relay(port=listener.getsockname()[1], upstream=port)
        thread = threading.Thread(target=relay.accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.over.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes up accept()
            relay.cut()
            thread.join()
