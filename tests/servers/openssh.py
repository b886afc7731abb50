"""OpenSSH: one server whose user has a shell, and one whose user is locked into a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.servers import process
from tests.servers.accounts import Account, account
from tests.servers.base import MissingServerError, Options
from tests.servers.disk import DiskServer, open_folder, require_root
from tests.servers.relay import Relay, relaying

KEYS = ".keys"
STORAGE_CLASS = "storages.backends.sftpstorage.SFTPStorage"
HINT = "no OpenSSH server: run `scripts/install-servers` as root"
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {keys}/ed25519
HostKey {keys}/rsa
PidFile none
AuthorizedKeysFile {keys}/authorized
StrictModes no
UsePAM no
PasswordAuthentication yes
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 30
Subsystem sftp {subsystem}
"""
LOCKED = """
ForceCommand internal-sftp
ChrootDirectory {home}
"""


@dataclass(frozen=True, kw_only=True)
class SshServer(DiskServer):
    """`seen` is what its user sees in front of the name of a bucket."""

    seen: str
    reader: Account

    def at(self, name: str) -> Options:
        return {**self.options, "root_path": f"{self.seen}/{name}"}

    def folder(self, options: Options) -> Path:
        return self.home / str(options["root_path"]).removeprefix(self.seen).strip("/")

    def read_only(self, options: Options) -> Options:
        user = {"username": self.reader.name, "password": self.reader.password}
        return {**options, "params": {**options["params"], **user}}

    def authorize(self, public: Path) -> None:
        """Let the holder of a key in."""
        with (self.home / KEYS / "authorized").open("a") as file:
            file.write(public.read_text())

    def host_key(self, kind: str) -> str:
        """Return a host key as a line of a known_hosts file has it, without the host."""
        return " ".join((self.home / KEYS / f"{kind}.pub").read_text().split()[:2])

    @contextmanager
    def relayed(self, options: Options) -> Iterator[tuple[Options, Relay]]:
        """Yield the options through a relay of their own, whose port is known as the server's."""
        port = options["params"]["port"]
        with relaying(port) as relay:
            known = self.home / KEYS / f"known_hosts_{relay.port}"
            known.write_text(f"[127.0.0.1]:{relay.port} {self.host_key('ed25519')}\n")
            params = {**options["params"], "port": relay.port}
            yield {**options, "params": params, "known_host_file": str(known)}, relay


def make_key(
    path: Path, kind: str = "ed25519", *, passphrase: str = "", form: str = "RFC4716"
) -> Path:
    """Write a private key, and its public key beside it with .pub."""
    if form == "PEM":
        kind = "rsa"
    options = ["-q", "-t", kind, "-m", form, "-N", passphrase, "-f", str(path)]
    subprocess.run(["ssh-keygen", *options], check=True)
    return path


@contextmanager
def started(name: str, folder: Path, *, locked: bool) -> Iterator[SshServer]:
    """Run sshd with two users of its own: one owns the buckets, one may only read."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise MissingServerError(HINT)
    require_root(name)
    Path("/run/sshd").mkdir(exist_ok=True)
    with open_folder() as home, account("own", home) as owner, account("read", home) as reader:
        port = process.free_address().split(":")[1]
        config = _configure(home, port, locked=locked)
        command = [program, "-D", "-e", "-f", str(config)]
        with process.running(command, ready=f"tcp://127.0.0.1:{port}", log=folder / "sshd.log"):
            yield _server(name, home, int(port), owner, reader, locked=locked)


def _configure(home: Path, port: str, *, locked: bool) -> Path:
    keys = home / KEYS  # sshd looks there as the user that logs in
    keys.mkdir()
    for kind in ("ed25519", "rsa"):
        make_key(keys / kind, kind)
    (keys / "authorized").touch()
    subsystem = next(filter(os.path.exists, SFTP_SERVERS), "internal-sftp")
    text = (CONFIG + LOCKED if locked else CONFIG).format(
        port=port, keys=keys, home=home, subsystem=subsystem
    )
    config = keys / "sshd_config"
    config.write_text(text)
    return config


def _server(
    name: str, home: Path, port: int, owner: Account, reader: Account, *, locked: bool
) -> SshServer:
    # Without agent and keys of the developer: only the password counts.
    params = {"port": port, "username": owner.name, "password": owner.password}
    params |= {"allow_agent": False, "look_for_keys": False}
    known = home / KEYS / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(home / KEYS / 'ed25519.pub').read_text()}")
    server = SshServer(
        name=name,
        family="sftp",
        storage_class=STORAGE_CLASS,
        options={"host": "127.0.0.1", "params": params, "known_host_file": str(known)},
        home=home,
        owner=owner.ids,
        seen="" if locked else str(home),
        reader=reader,
    )
    return replace(server, options=server.new_bucket())
