"""`rclone serve s3`: true signatures, files on disk; keeps no ACL, no tags, no storage class."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import process
from tests.servers.base import MissingServerError, Options
from tests.servers.s3 import STORAGE_CLASS, BotoServer, bucket_name, client, storage_options

FAMILY = "s3"
HINT = "rclone is not beside this Python: run `make venv`, or install rclone"


@dataclass(frozen=True, kw_only=True)
class RcloneServer(BotoServer):
    """Asked for an ACL or for tags it answers with an error."""

    buckets: Path

    def folder(self, options: Options) -> Path:
        """Return where the objects lie as files."""
        return self.buckets / str(options["bucket_name"])

    def _acl(self, where: Mapping[str, str]) -> None:  # noqa: ARG002
        return None

    def _tags(self, where: Mapping[str, str]) -> None:  # noqa: ARG002
        return None


def new_keys() -> tuple[str, str]:
    """Return a pair of keys; an id of fewer than 16 characters is refused as InvalidAccessKeyId."""
    return secrets.token_hex(10).upper(), secrets.token_hex(20)


@contextmanager
def serving(folder: Path, address: str, keys: tuple[str, str]) -> Iterator[None]:
    """Serve the buckets in `folder`, until the block ends or for another time."""
    program = process.find("rclone")
    if program is None:
        raise MissingServerError(HINT)
    buckets = folder / "buckets"
    buckets.mkdir(parents=True, exist_ok=True)
    serve = ["--config", os.devnull, "serve", "s3", "--addr", address, str(buckets)]
    serve.append("--no-unicode-normalization")  # else two spellings of a folder become one
    # rclone reads the variable as a line of CSV.
    env = {"RCLONE_AUTH_KEY": f'"{",".join(keys)}"'}
    with process.running(
        [program, *serve], ready=f"http://{address}", log=folder / "rclone.log", env=env
    ):
        yield


@contextmanager
def connected(folder: Path, address: str, keys: tuple[str, str]) -> Iterator[RcloneServer]:
    """Yield what knows the server of a folder, with a first bucket."""
    url, bucket = f"http://{address}", bucket_name()
    with client("s3", url, *keys) as s3:
        s3.create_bucket(Bucket=bucket)
        options = storage_options(url, *keys, bucket)
        yield RcloneServer(
            name="rclone_s3",
            family=FAMILY,
            storage_class=STORAGE_CLASS,
            options=options,
            s3=s3,
            buckets=folder / "buckets",
        )


@contextmanager
def start(folder: Path) -> Iterator[RcloneServer]:
    address, keys = process.free_address(), new_keys()
    with serving(folder, address, keys), connected(folder, address, keys) as server:
        yield server
