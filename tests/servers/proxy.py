"""An HTTP proxy in front of a test server: logs every request, answers in its place, ends TLS.

The bytes go through as they came, head and body, so signatures stay right; unless a `Trouble`
befalls a request.
"""

from __future__ import annotations

import re
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.servers import certificates
from tests.servers.trouble import ResetError, Through, Trouble, unchanged

READS = frozenset({"GET", "HEAD", "OPTIONS"})
BLOCK = 1 << 16
SECONDS = 60
RESET = struct.pack("ii", 1, 0)  # no lingering: closing sends a reset


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as the client sent it; `status` is the answer's, 0 if there was none."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    status: int

    @property
    def name(self) -> str:
        """The last part of the key that the request is about: Google's uploads hold it apart."""
        key = parse_qs(self.query).get("name", [self.path])[0]
        return key.rpartition("/")[2]


@dataclass(kw_only=True)
class _Fault:
    """`answer` takes the place of the server's; without one the `trouble` befalls the request."""

    pattern: re.Pattern[str]
    answer: bytes = b""
    status: int = 0
    trouble: Trouble = field(default_factory=Trouble)
    left: int
    sent: str = ""


@dataclass(frozen=True, kw_only=True)
class _Head:
    """The lines of a request or an answer up to the empty one, with their line ends."""

    lines: tuple[bytes, ...]

    @property
    def raw(self) -> bytes:
        return b"".join(self.lines)

    @property
    def words(self) -> list[str]:
        return self.lines[0].decode("latin-1").split(None, 2)

    @property
    def status(self) -> int:
        return int(self.words[1])

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.decode("latin-1").partition(":") for line in self.lines[1:-1])
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def length(self) -> int | None:
        text = self.headers.get("content-length")
        return None if text is None else int(text)

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def awaits_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return wish == "close" or (b"HTTP/1.0" in self.lines[0] and wish != "keep-alive")


class Proxy:
    """A running proxy; `url` stands where the server's own URL stood."""

    def __init__(self, url: str, authority: Path | None) -> None:
        self.url = url
        self.authority = authority
        """The CA file that a client must trust, when the proxy speaks TLS."""
        self.errors: list[str] = []
        """What went wrong between the client and us, such as a certificate that it refused."""
        self.over = threading.Event()
        """Set when the proxy ends; what makes clients wait waits for this."""
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._faults: list[_Fault] = []

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests so far, each logged before its answer leaves."""
        with self._lock:
            return tuple(self._requests)

    @property
    def writes(self) -> tuple[Request, ...]:
        """The requests so far that could have changed what the server holds."""
        return tuple(r for r in self.requests if r.method not in READS)

    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        times: int = 1,
        matching: str = "",
        sent: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests whose "METHOD target" matches, in the server's place.

        `matching` is a regular expression, searched for; `sent` a header that they must have.
        """
        fields = {"Content-Type": "application/xml", **(headers or {})}
        fault = _Fault(
            pattern=re.compile(matching),
            answer=_answer(status, body, fields),
            status=status,
            left=times,
            sent=sent,
        )
        self._add(fault)

    def trouble(self, trouble: Trouble, *, times: int = 1, matching: str = "") -> None:
        """Let the trouble befall the next `times` requests whose "METHOD target" matches."""
        self._add(_Fault(pattern=re.compile(matching), trouble=trouble, left=times))

    def heal(self) -> None:
        """Answer no request and trouble none from now on."""
        with self._lock:
            self._faults.clear()

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def take_fault(self, request: str, headers: Container[str] = ()) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                fits = not fault.sent or fault.sent in headers
                if fault.left and fits and fault.pattern.search(request):
                    fault.left -= 1
                    return fault
        return None

    def log(self, head: _Head, status: int) -> None:
        method, target, _ = head.words
        path, _, query = target.partition("?")
        request = Request(
            method=method, path=path, query=query, headers=head.headers, status=status
        )
        with self._lock:
            self._requests.append(request)


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "\r\n"]).encode() + body


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: tuple[str, int], context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.context = context
        self.proxy: Proxy
        self._clients: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._clients.append(request)
        super().process_request(request, client_address)

    def cut(self) -> None:
        """End the connections that clients keep open, as a network that fails does."""
        for client in self._clients:
            with suppress(OSError):  # it has ended before
                client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Swallow: a client may go away at any time, and `_Handler` has noted it."""


class _RefusedError(OSError):
    """The other end takes no more of what we send."""


class _End:
    """One end of a connection: buffered to read, direct to write."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self.reader = connection.makefile("rb")
        self.through: Through = unchanged
        """What happens to the bodies that are written here."""

    def write_body(self, data: bytes) -> None:
        if changed := self.through(data):
            self.write(changed)

    def reset(self) -> None:
        """Close with a reset, not with an end."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def write(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _RefusedError(*error.args) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self._connection.close()


class _Handler(socketserver.BaseRequestHandler):
    """One client's connection; each of its requests has a connection of its own upstream."""

    server: _Listener

    def handle(self) -> None:
        proxy = self.server.proxy
        try:
            with _End(self._secured()) as client:
                self._serve(client)
        except OSError as error:
            proxy.errors.append(repr(error))

    def _serve(self, client: _End) -> None:
        try:
            while (head := _read_head(client)) and self._exchange(head, client):
                pass
        except ResetError:
            client.reset()
            raise

    def _secured(self) -> socket.socket:
        client: socket.socket = self.request
        context = self.server.context
        return context.wrap_socket(client, server_side=True) if context else client

    def _exchange(self, head: _Head, client: _End) -> bool:
        """Relay one request and its answer; False when the client's connection is used up."""
        proxy = self.server.proxy
        fault = proxy.take_fault(" ".join(head.words[:2]), head.headers)
        if fault is None or not fault.answer:
            return self._relay(head, client, fault.trouble if fault else Trouble())
        proxy.log(head, fault.status)
        if not head.awaits_continue:
            _copy_body(head, client, None)
        client.write(fault.answer)
        return not (head.awaits_continue or head.closes)

    def _relay(self, head: _Head, client: _End, trouble: Trouble) -> bool:
        with _End(socket.create_connection(self.server.upstream)) as upstream:
            upstream.through, client.through = trouble.up(), trouble.down()
            try:
                trouble.before()
                answer = _send(head, client, upstream)
                trouble.after()
            except OSError:
                self.server.proxy.log(head, 0)
                raise
            self.server.proxy.log(head, answer.status)
            return _send_back(head, answer, upstream, client)


def _send(head: _Head, client: _End, upstream: _End) -> _Head:
    """Send the request on and return the head of its answer."""
    upstream.write(head.raw)
    if head.awaits_continue:
        early = _expect_head(upstream)
        if early.status != HTTPStatus.CONTINUE:
            return early
        client.write(early.raw)
    with suppress(_RefusedError):  # before it had read all: its answer says why
        _copy_body(head, client, upstream)
    answer = _expect_head(upstream)
    while answer.status == HTTPStatus.CONTINUE:  # again: moto says it twice
        answer = _expect_head(upstream)
    return answer


def _send_back(head: _Head, answer: _Head, upstream: _End, client: _End) -> bool:
    """Relay the answer; False when no other can follow on the client's connection."""
    client.write(answer.raw)
    bodiless = head.words[0] == "HEAD" or answer.status in {204, 304}
    endless = not bodiless and answer.length is None and not answer.chunked
    if endless:
        _copy(upstream, client, None)
    elif not bodiless:
        _copy_body(answer, upstream, client)
    unread = head.awaits_continue and answer.status >= HTTPStatus.BAD_REQUEST
    return not (endless or unread or head.closes or answer.closes)


def _read_head(end: _End) -> _Head | None:
    """Read up to the empty line; None when the connection ended instead."""
    lines: list[bytes] = []
    while (line := end.reader.readline()) not in {b"\r\n", b"\n", b""}:
        lines.append(line)
    return _Head(lines=(*lines, line)) if lines and line else None


def _expect_head(end: _End) -> _Head:
    head = _read_head(end)
    if head is None:
        raise ConnectionAbortedError("the server ended the connection without an answer")
    return head


def _copy_body(head: _Head, source: _End, target: _End | None) -> None:
    if head.chunked:
        _copy_chunks(source, target)
    else:
        _copy(source, target, head.length or 0)


def _copy_chunks(source: _End, target: _End | None) -> None:
    while size := int(_copy_line(source, target).split(b";")[0], 16):
        _copy(source, target, size)
        _copy_line(source, target)
    while _copy_line(source, target) != b"\r\n":
        pass  # trailers, up to the empty line


def _copy_line(source: _End, target: _End | None) -> bytes:
    line = source.reader.readline()
    if not line:
        raise ConnectionAbortedError("the connection ended within a body")
    if target:
        target.write(line)
    return line


def _copy(source: _End, target: _End | None, size: int | None) -> None:
    """Copy `size` bytes, or all there are, a block at a time."""
    left = size
    while left is None or left > 0:
        data = source.reader.read1(BLOCK if left is None else min(BLOCK, left))
        if not data and left is not None:
            raise ConnectionAbortedError("the connection ended within a body")
        if not data:
            return
        _pass(data, target)
        left = None if left is None else left - len(data)


def _pass(data: bytes, target: _End | None) -> None:
    if target:
        target.write_body(data)


@contextmanager
def proxying(url: str, folder: Path | None = None) -> Iterator[Proxy]:
    """Run a proxy in front of `url`; with a `folder` for its CA it speaks TLS."""
    signed = certificates.make(folder) if folder else None
    upstream = urlsplit(url)
    with _Listener((upstream.hostname or "", upstream.port or 80), _context(signed)) as listener:
        scheme = "https" if signed else "http"
        port = listener.server_address[1]
        proxy = Proxy(f"{scheme}://127.0.0.1:{port}", signed.authority if signed else None)
        listener.proxy = proxy
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.over.set()
            listener.shutdown()
            listener.cut()
            thread.join()


def _context(signed: certificates.Certificates | None) -> ssl.SSLContext | None:
    if signed is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.chain)
    return context
