"""OpenSSH with a user who is locked into a folder and has no shell: there are no hashes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.openssh import SshServer, started

FAMILY = "sftp"


def start(folder: Path) -> AbstractContextManager[SshServer]:
    return started("sshd_chroot", folder, locked=True)
