"""pyftpdlib: an FTP server that needs no root; names are UTF-8 on both sides.

    python -m tests.servers.pyftpdlib PORT HOME [no-mlsd]

Names that are not UTF-8 it cannot keep.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from tests.servers import process
from tests.servers.base import MissingServerError
from tests.servers.ftp import STORAGE_CLASS, FtpServer, User

FAMILY = "ftp"
HINT = "pyftpdlib is not installed: run `make venv`, or `pip install pyftpdlib`"
ROOT = Path(__file__).parent.parent.parent
PASSWORDS = "FTP_OWNER", "FTP_READER"
ENCODING = "utf-8"


@contextmanager
def start(folder: Path, *options: str) -> Iterator[FtpServer]:
    if find_spec("pyftpdlib") is None:
        raise MissingServerError(HINT)
    home = folder / "home"
    home.mkdir()
    owner, reader = User(name="owner"), User(name="reader")
    port = process.free_address().split(":")[1]
    command = [sys.executable, "-m", __name__, port, str(home), *options]
    passwords = dict(zip(PASSWORDS, (owner.password, reader.password), strict=True))
    env = {"PYTHONPATH": str(ROOT), **passwords}
    ready, log = f"tcp://127.0.0.1:{port}", folder / "pyftpdlib.log"
    with process.running(command, ready=ready, log=log, env=env):
        server = FtpServer(
            name="pyftpdlib",
            family=FAMILY,
            storage_class=STORAGE_CLASS,
            options={"encoding": ENCODING},
            home=home,
            owner=(os.geteuid(), os.getegid()),
            address=f"ftp://%s@127.0.0.1:{port}/",
            user=owner,
            reader=reader,
        )
        yield replace(server, options=server.new_bucket())


def serve(port: int, home: str, *options: str) -> None:
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

    users = DummyAuthorizer()
    users.add_user("owner", os.environ[PASSWORDS[0]], home, perm="elradfmwMT")
    users.add_user("reader", os.environ[PASSWORDS[1]], home, perm="elr")
    FTPHandler.authorizer, FTPHandler.encoding = users, ENCODING
    for command in ("MLSD", "MLST") if "no-mlsd" in options else ():
        del FTPHandler.proto_cmds[command]
    ThreadedFTPServer(("127.0.0.1", port), FTPHandler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
