"""A long-lived rclone that copies lists of files on request, several at a time.

A process for each list costs 60 ms, and each would drain its own tail; a request costs 4 ms.
Source of the protocol: rclone, "Remote controlling rclone".
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.errors import OrchestratorError, RcloneUnusableError, StuckError
from orchestrator.event import Event
from orchestrator.gate import Call, Gate

PATIENCE: Final = 20.0  # seconds that rclone gets to open its socket
STALL: Final = 5.0  # seconds without a byte sent, after which we look whether the store is there
STUCK: Final = (
    180.0  # and after which rclone is ended all the same: some stores take, and never answer
)
REFUSALS: Final = 5  # files, after which the store is not just particular about one of them
TICK: Final = 0.5  # seconds between two looks at what was sent
OURS: Final = ("Checkers", "NoCheckDest", "NoTraverse", "Retries", "Transfers", "UploadHeaders")
LATER: Final = "see whether the store is overloaded or full, then run the same command again"
USER: Final = "media-orchestrator"


class EndedError(Exception):
    """rclone is gone; `cause` is the error to end with, if it was ended for one."""

    def __init__(self, cause: OrchestratorError | None) -> None:
        super().__init__("rclone ended")
        self.cause = cause


@dataclass(frozen=True, kw_only=True)
class Ears:
    """Who is told what rclone says and does not do."""

    fatal: Callable[[str], OrchestratorError | None]  # would each file fail by this?
    throttled: Callable[[str], bool]
    stalled: Callable[[], OrchestratorError | None]  # is the store gone?


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


@dataclass(kw_only=True)
class Daemon:
    """A running rclone, behind a socket in a folder that only its owner can enter."""

    child: subprocess.Popen[bytes]
    address: Path
    password: str = field(repr=False)
    ears: Ears
    gate: Gate = field(default_factory=Gate)
    sent: int = 0  # bytes
    files: int = 0
    cause: OrchestratorError | None = None
    _moved: float = field(default_factory=time.monotonic)
    _gained: float = field(default_factory=time.monotonic)
    _seen: tuple[int, int] = (0, 0)
    _refused: int = 0  # files since the last one that was stored
    _refusing: float = 0.0  # since when
    _furthest: dict[str, int] = field(default_factory=dict)  # bytes, of files not yet sent

    def open(self) -> None:
        """Wait for the socket; raise RcloneUnusableError where this rclone is not as we know it."""
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                known = self.ask("options/get", {})["main"]
                break
            except OSError as error:
                if self.child.poll() is not None or time.monotonic() > limit:
                    raise RcloneUnusableError(
                        f"rclone does not answer on its socket ({error})",
                        tip="see rclone.log.jsonl in the run folder",
                    ) from error
                time.sleep(0.01)
        if unknown := [name for name in OURS if name not in known]:
            raise RcloneUnusableError(
                f"this rclone does not know {', '.join(unknown)}",
                tip="install the version in requirements.lock",
            )
        threading.Thread(target=self._watch, daemon=True).start()

    def copy(self, request: Mapping[str, Any], call: Call) -> None:
        """Copy a list; raise EndedError if rclone ends over it. `call` tells what was sent."""
        with self.gate.through(call):
            if not self.alive:
                raise EndedError(self.cause)
            config = {**request["_config"], "Transfers": call.transfers}
            try:
                answer = self.ask("sync/copy", {**request, "_config": config})
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise EndedError(self.cause) from error
            call.last = call.last or str(answer.get("error", ""))
            self.gate.settle(call)
        if self.cause:
            raise EndedError(self.cause)

    def ask(self, command: str, request: Mapping[str, Any]) -> dict[str, Any]:
        connection = _Unix(self.address)
        try:
            connection.request(
                "POST",
                f"/{command}",
                json.dumps(request),
                {"Content-Type": "application/json", **_basic(self.password)},
            )
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found

    def hear(self, event: Event) -> None:
        """Take in one line of rclone's log."""
        if event.level in ("error", "critical"):
            if not event.message.startswith("rc: "):  # the answer says it too
                self._failed(event)
        elif event.name and "Copied (" in event.message:
            self.files += 1
            self._refused = 0
            self._furthest.pop(event.name, None)
            if call := self.gate.find(event.name):
                self.gate.landed(call, event.name)

    def _failed(self, event: Event) -> None:
        if self.ears.throttled(event.message):
            self.gate.pace.throttle()
        if fatal := self.ears.fatal(event.message):
            self.end(fatal)
        if event.name and (call := self.gate.find(event.name)):
            call.last = event.message
            self._refusing = self._refusing if self._refused else time.monotonic()
            self._refused += 1
            self._furthest.pop(event.name, None)  # it begins anew
            self.gate.landed(call, event.name, event.message)
        else:
            self.gate.tell_all(event.message)

    def _watch(self) -> None:
        """Count what was sent; where nothing moves, see whether the store is still there."""
        while self.child.poll() is None and not self.gate.closed:
            time.sleep(TICK)
            with suppress(OSError, http.client.HTTPException, ValueError):
                stats = self.ask("core/stats", {})
                self._advance(int(stats.get("bytes", 0)), stats.get("transferring") or ())

    def _advance(self, sent: int, flying: Iterable[Mapping[str, Any]]) -> None:
        for file in flying:
            name, size = file.get("name", ""), file.get("bytes", 0)
            self._furthest[name] = max(size, self._furthest.get(name, 0))
        now = self.files, sum([*self._furthest.values()])  # a copy: the log's thread takes some out
        if now != self._seen or not self.gate.busy:
            self._seen, self._gained = now, time.monotonic()
        elif time.monotonic() - self._gained > STUCK:
            self._stuck()
        if self._refused >= REFUSALS and time.monotonic() - self._refusing > STUCK:
            self._stuck()  # each refused file was sent, so bytes do move
        if sent != self.sent or not self.gate.busy:
            self.sent, self._moved = sent, time.monotonic()
        elif time.monotonic() - self._moved > STALL:
            if gone := self.ears.stalled():
                self.end(gone)
            self._moved = time.monotonic()

    def _stuck(self) -> None:
        what = f"nothing more has reached the store for {STUCK:.0f} s"
        said = self.gate.last
        self.end(StuckError(f"{what} ({said})" if said else what, tip=LATER))

    def end(self, cause: OrchestratorError | None = None) -> None:
        """End rclone; all calls raise EndedError with the first cause."""
        self.cause = self.cause or cause
        self.gate.close()
        if self.child.stdin:
            with suppress(OSError):
                self.child.stdin.close()
        if self.child.poll() is None:
            self.child.terminate()

    @property
    def alive(self) -> bool:
        return not self.gate.closed and self.child.poll() is None


def credentials() -> dict[str, str]:
    """Return the variables by which rclone learns who may ask it."""
    return {"RCLONE_RC_USER": USER, "RCLONE_RC_PASS": secrets.token_urlsafe(24)}


def _basic(password: str) -> dict[str, str]:
    from base64 import b64encode

    return {"Authorization": "Basic " + b64encode(f"{USER}:{password}".encode()).decode()}
