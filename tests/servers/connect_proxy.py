"""A CONNECT proxy that ends TLS itself: a production host name leads to a server on loopback.

For classes that cannot be told another endpoint: the client keeps the host, the style of its URLs
and its signatures, and the bytes arrive at a test server.
"""

from __future__ import annotations

import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers import certificates

BLOCK = 1 << 16
SECONDS = 60


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, tls: ssl.SSLContext, routes: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.tls = tls
        self.routes = routes

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients end connections as they like."""


class _Tunnel(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        backend = self.server.routes.get(_host(self.request))
        if backend is None:
            self.request.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        url = urlsplit(backend)
        with (
            self.server.tls.wrap_socket(self.request, server_side=True) as inside,
            socket.create_connection((url.hostname, url.port), SECONDS) as outside,
        ):
            back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
            back.start()
            _pump(inside, outside)
            back.join(SECONDS)


def _host(client: socket.socket) -> str:
    """Read a CONNECT request to its end; return the host that it names."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(BLOCK)
        if not data:
            return ""
        head += data
    found = re.match(rb"CONNECT ([^: ]+)", head)
    return found[1].decode() if found else ""


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(BLOCK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def connecting(routes: Mapping[str, str], folder: Path) -> Iterator[Mapping[str, str]]:
    """Lead each host of `routes` to its URL; yield the variables that send a process here."""
    made = certificates.make(folder, tuple(routes))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.chain)
    with _Server(tls, routes) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy"), url)
        authority = str(made.authority)
        yield {**proxies, "REQUESTS_CA_BUNDLE": authority, "SSL_CERT_FILE": authority}
        server.shutdown()
