"""Dropbox's API v2 on loopback, for its real clients: each account a file tree in memory.

It takes CONNECT like a proxy and ends TLS itself, so that clients keep the names of Dropbox's
hosts. Its rules are those of Dropbox's documentation; quotas, teams and shared folders it has not.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from tests.servers import certificates
from tests.servers.dropbox_account import ROUTES, WRITING, Account, ApiError, Entry
from tests.servers.proxy import Proxy, Request

HOSTS: Final = ("api.dropboxapi.com", "content.dropboxapi.com", "www.dropbox.com")
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
FOREVER: Final = float("inf")


class Calls(Proxy):
    """The calls of one account: logged, counted, and answered with faults on demand."""

    @property
    def writes(self) -> tuple[Request, ...]:
        """The calls so far that could have changed what the account holds: all are POST."""
        return tuple(call for call in self.requests if call.path.removeprefix("/2/") in WRITING)

    def note(self, path: str, arg: str, agent: str, status: int) -> None:
        call = Request(
            method="POST", path=path, query=arg, headers={"user-agent": agent}, status=status
        )
        with self._lock:
            self._requests.append(call)


@dataclass(frozen=True, kw_only=True)
class _Token:
    account: Account
    until: float
    writes: bool


class FakeDropbox(ThreadingHTTPServer):
    """`url` is that of a proxy; `authority` the CA that clients must trust."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        signed = certificates.make(folder, HOSTS)
        self.authority = signed.authority
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(signed.chain)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.accounts: dict[str, Account] = {}
        self.calls: dict[str, Calls] = {}
        self.tokens: dict[str, _Token] = {}

    def new_account(self) -> Account:
        key, secret, refresh = (uuid.uuid4().hex for _ in range(3))
        account = Account(app_key=key, app_secret=secret, refresh_token=refresh)
        self.accounts[refresh] = account
        self.calls[refresh] = Calls(self.url, self.authority)
        return account

    def new_token(self, account: Account, *, until: float = FOREVER, writes: bool = True) -> str:
        """Return an access token; without `writes` the app has not the scope for it."""
        token = f"sl.{uuid.uuid4().hex}"
        self.tokens[token] = _Token(account=account, until=until, writes=writes)
        return token

    def token(self, text: str, route: str) -> _Token:
        """Return the access token that a call may use; raise ApiError as Dropbox answers."""
        if not (found := self.tokens.get(text)):
            raise ApiError("invalid_access_token", status=401)
        if found.until < time.time():
            raise ApiError("expired_access_token", status=401)
        if route in WRITING and not found.writes:
            scope = "files.content.write"
            raise ApiError("missing_scope", status=401, required_scope=scope)
        return found

    def refresh(self, form: dict[str, str]) -> str:
        """Return a new access token for a refresh token of the right app."""
        account = self.accounts.get(form.get("refresh_token", ""))
        app = form.get("client_id"), form.get("client_secret", "")
        if not account or app != (account.app_key, account.app_secret):
            raise ApiError("invalid_grant", status=400)
        return self.new_token(account, until=time.time() + account.expires)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away: one was ended, or saw a wrong certificate."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: FakeDropbox

    def do_CONNECT(self) -> None:
        if self.path.rpartition(":")[0] not in HOSTS:
            self.send_error(403, "not one of Dropbox's hosts")
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Keep quiet: `Calls` has it all."""

    def do_GET(self) -> None:
        token = self.path.rpartition("/")[2]
        links = (account.links.get(token) for account in self.server.accounts.values())
        found = next((entry for entry in links if entry), None)
        self._reply(200 if found else 404, found.data or b"" if found else b"", BYTES)

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/oauth2/token":
            self._refresh(body)
        else:
            self._call(self.path.removeprefix("/2/"), body)

    def _refresh(self, body: bytes) -> None:
        form = dict(parse_qsl(body.decode()))
        kind, _, basic = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            form["client_id"], _, form["client_secret"] = (
                base64.b64decode(basic).decode().partition(":")
            )
        try:
            token = self.server.refresh(form)
        except ApiError as error:
            self._reply_json(400, {"error": str(error), "error_description": "revoked"})
            return
        account = self.server.tokens[token].account
        self._note(account, "", 200)
        answer = {"access_token": token, "token_type": "bearer", "expires_in": account.expires}
        self._reply_json(200, answer)

    def _call(self, route: str, body: bytes) -> None:
        if route not in ROUTES:
            self._reply(400, f"Unknown API function: {route}".encode(), "text/plain")
            return
        arg = self.headers.get("Dropbox-API-Arg") or body.decode()
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            account = self.server.token(bearer, route).account
            if not self._fault(account, arg):
                self._answer(account, route, arg, body)
        except ApiError as error:
            if token := self.server.tokens.get(bearer):
                self._note(token.account, arg, error.status)
            self._reply_json(error.status, error.body)

    def _fault(self, account: Account, arg: str) -> bool:
        fault = self.server.calls[account.refresh_token].take_fault(f"POST {self.path} {arg}")
        if fault:
            self._note(account, arg, fault.status)
            self.wfile.write(fault.answer)
        return fault is not None

    def _answer(self, account: Account, route: str, arg: str, body: bytes) -> None:
        with account.lock:
            found = ROUTES[route](account, json.loads(arg), body)
        self._note(account, arg, 200)
        if isinstance(found, Entry):
            self._send_file(found)
        else:
            self._reply_json(200, found)

    def _send_file(self, entry: Entry) -> None:
        metadata = {name: value for name, value in entry.metadata.items() if name != ".tag"}
        data, wanted = entry.data or b"", self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1 if last else None]
        result = {"Dropbox-API-Result": json.dumps(metadata)}
        self._reply(206 if wanted else 200, data, BYTES, **result)

    def _note(self, account: Account, arg: str, status: int) -> None:
        agent = self.headers.get("User-Agent", "")
        self.server.calls[account.refresh_token].note(self.path, arg, agent, status)

    def _reply_json(self, status: int, body: Any) -> None:
        self._reply(status, json.dumps(body).encode(), JSON)

    def _reply(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


@contextmanager
def running(folder: Path) -> Iterator[FakeDropbox]:
    with FakeDropbox(folder) as fake:
        thread = threading.Thread(target=fake.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            fake.shutdown()
            thread.join()
