"""ProFTPD with explicit TLS, which it asks for; its certificate has an authority of its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.ftp import FtpServer
from tests.servers.proftpd import started

FAMILY = "ftp"


def start(folder: Path) -> AbstractContextManager[FtpServer]:
    return started("proftpd_tls", folder, tls=True)
