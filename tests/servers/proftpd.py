"""ProFTPD, plain: an FTP server that keeps names byte by byte and offers MLSD."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.servers import certificates, process
from tests.servers.base import MissingServerError
from tests.servers.disk import open_folder, require_root
from tests.servers.ftp import STORAGE_CLASS, FtpServer, User

FAMILY = "ftp"
HINT = "no ProFTPD: run `scripts/install-servers` as root"
OWNER, READER = 54321, 54322
# As another user than root its first process would outlive a killed test run.
CONFIG = """
ServerName test
ServerType standalone
DefaultAddress 127.0.0.1
SocketBindTight on
Port {port}
UseIPv6 off
User root
Group root
ModulePath /usr/lib/proftpd
AuthOrder mod_auth_file.c
AuthUserFile {folder}/passwd
AuthGroupFile {folder}/group
RequireValidShell off
DefaultRoot ~
AllowOverwrite on
AllowStoreRestart on
PidFile {folder}/proftpd.pid
ScoreboardFile {folder}/score
SystemLog {folder}/system.log
TransferLog none
WtmpLog off
DelayEngine off
AllowOverride off
Umask 022 022
<IfModule mod_ctrls.c>
ControlsEngine off
</IfModule>
"""
# ftplib, and so FTPStorage, does not take up the session of its first connection again.
TLS = """
LoadModule mod_tls.c
TLSEngine on
TLSRequired on
TLSECCertificateFile {chain}
TLSECCertificateKeyFile {chain}
TLSProtocol TLSv1.2 TLSv1.3
TLSLog {folder}/tls.log
TLSOptions NoSessionReuseRequired
"""


def start(folder: Path) -> AbstractContextManager[FtpServer]:
    """Yield a server without TLS."""
    return started("proftpd", folder, tls=False)


@contextmanager
def started(name: str, folder: Path, *, tls: bool) -> Iterator[FtpServer]:
    program = shutil.which("proftpd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise MissingServerError(HINT)
    require_root(name)
    users = User(name="owner"), User(name="reader")
    with open_folder() as home:
        port = process.free_address().split(":")[1]
        config = _configure(folder, home, port, users)
        environ = _secure(config) if tls else {}
        command = [program, "--nodaemon", "--config", str(config)]
        with process.running(command, ready=f"tcp://127.0.0.1:{port}", log=folder / "proftpd.log"):
            server = FtpServer(
                name=name,
                family=FAMILY,
                storage_class=STORAGE_CLASS,
                options={"encoding": "utf-8"},
                environ=environ,
                home=home,
                owner=(OWNER, OWNER),
                address=f"{'ftps' if tls else 'ftp'}://%s@127.0.0.1:{port}/",
                user=users[0],
                reader=users[1],
            )
            yield replace(server, options=server.new_bucket())


def _configure(folder: Path, home: Path, port: str, users: tuple[User, User]) -> Path:
    lines = [
        f"{user.name}:{_hashed(user.password)}:{number}:{number}::{home}:/bin/sh\n"
        for user, number in zip(users, (OWNER, READER), strict=True)
    ]
    for name, text in {"passwd": "".join(lines), "group": f"all:x:{OWNER}:\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    config = folder / "proftpd.conf"
    config.write_text(CONFIG.format(port=port, folder=folder))
    return config


def _hashed(password: str) -> str:
    command = ["openssl", "passwd", "-6", "-stdin"]
    run = subprocess.run(command, input=password, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def _secure(config: Path) -> dict[str, str]:
    """Add TLS; return what makes a client trust it."""
    made = certificates.make(config.parent)
    made.chain.chmod(0o600)
    with config.open("a") as file:
        file.write(TLS.format(chain=made.chain, folder=config.parent))
    return {"SSL_CERT_FILE": str(made.authority)}
