"""An S3 server of our own, with one empty bucket: `rclone serve s3`, or MinIO."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.bench.link import LOOPBACK, Link, ended

BUCKET = "bench"
INSTALLED = Path("~/.cache/media-orchestrator/bin/minio").expanduser()  # by scripts/install-minio


@dataclass(frozen=True, kw_only=True)
class Store:
    """A running server, as the client reaches it."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)

    def forget(self) -> None:
        """Have rclone look at its folder again, after it was changed behind its back."""
        self.process.send_signal(signal.SIGHUP)
        time.sleep(1)

    def options(self) -> dict[str, object]:
        return {
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "bucket_name": BUCKET,
            "endpoint_url": self.url,
            "region_name": "us-east-1",
        }


def minio() -> Path | None:
    """Return MinIO's program, if it is installed."""
    found = os.environ.get("MINIO_SERVER") or shutil.which("minio") or str(INSTALLED)
    return Path(found) if Path(found).is_file() else None


@contextmanager
def store(kind: str, link: Link, folder: Path, rclone: Path) -> Iterator[Store]:
    """Start a server with an empty bucket in a new folder, which is gone at the end."""
    access, secret = secrets.token_hex(10).upper(), secrets.token_hex(20)
    address = f"{link.host}:{_free_port()}"
    data = folder / "store"
    data.mkdir()
    try:
        with (folder / "store.log").open("wb") as log:
            command = [*link.server, *_command(kind, rclone, address, data)]
            env = _environment(kind, access, secret)
            child = subprocess.Popen(command, env=env, stdout=log, stderr=log)
            with ended(child), link.through(f"http://{address}") as url:
                _make_bucket(rclone, link, f"http://{address}", access, secret)
                yield Store(url=url, access_key=access, secret_key=secret, process=child)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _command(kind: str, rclone: Path, address: str, data: Path) -> list[str]:
    if kind == "minio":
        return [str(minio()), "server", "--quiet", "--address", address, str(data)]
    return [str(rclone), "serve", "s3", "--addr", address, str(data)]


def _environment(kind: str, access: str, secret: str) -> dict[str, str]:
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    if kind == "minio":
        return env | {"MINIO_ROOT_USER": access, "MINIO_ROOT_PASSWORD": secret}
    return env | {"RCLONE_CONFIG": os.devnull, "RCLONE_AUTH_KEY": f'"{access},{secret}"'}


def _make_bucket(rclone: Path, link: Link, url: str, access: str, secret: str) -> None:
    """Try until the server answers."""
    patience = ["--retries=100", "--retries-sleep=100ms", "--low-level-retries=1"]
    remote = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_S3_ENDPOINT": url,
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ACCESS_KEY_ID": access,
        "RCLONE_S3_SECRET_ACCESS_KEY": secret,
    }
    subprocess.run(
        [*link.server, rclone, "mkdir", f":s3:{BUCKET}", *patience],
        env=_path() | remote,
        check=True,
        capture_output=True,
    )


def _path() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath)}


def _free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])
