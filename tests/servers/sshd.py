"""OpenSSH with a user who has a shell, so that the server can be asked for hashes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.openssh import SshServer, started

FAMILY = "sftp"


def start(folder: Path) -> AbstractContextManager[SshServer]:
    return started("sshd", folder, locked=False)
