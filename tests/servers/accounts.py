"""Users of this machine, with a password, that last as long as a test server; needs root."""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ATTEMPTS = 50  # several test processes change /etc/passwd at once


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    password: str = field(repr=False)

    @property
    def ids(self) -> tuple[int, int]:
        found = pwd.getpwnam(self.name)
        return found.pw_uid, found.pw_gid


@contextmanager
def account(role: str, home: Path) -> Iterator[Account]:
    """Yield a user that nobody else knows; its password has what shells and URLs trip over."""
    _remove_left_over()
    made = Account(
        name=f"mo-{role}-{os.getpid()}-{secrets.token_hex(2)}",
        password=f"{secrets.token_urlsafe(12)} $%@/#é",
    )
    _change("useradd", "--no-create-home", "--home-dir", home, "--shell", "/bin/sh", made.name)
    try:
        _change("chpasswd", text=f"{made.name}:{made.password}")
        yield made
    finally:
        _change("userdel", "--force", made.name)


def _remove_left_over() -> None:
    """Remove the users of test processes that were killed."""
    for user in pwd.getpwall():
        parts = user.pw_name.split("-")
        if parts[0] == "mo" and len(parts) == 4 and not Path("/proc", parts[2]).exists():
            _change("userdel", "--force", user.pw_name)


def _change(*command: str | Path, text: str = "") -> None:
    """Run a program of the shadow suite; all but the first that hold its lock are turned away."""
    for _ in range(ATTEMPTS):
        run = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        if not run.returncode:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{command[0]}: {run.stderr.decode()}")
