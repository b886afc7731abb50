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


@contextmanager
def start(folder: Path) -> Iterator[RcloneServer]:
    program = process.find("rclone")
    if program is None:
        raise MissingServerError(HINT)
    buckets, bucket = folder / "buckets", bucket_name()
    (buckets / bucket).mkdir(parents=True)
    # A key id of fewer than 16 characters is refused as InvalidAccessKeyId.
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_hex(20)
    address = process.free_address()
    serve = ["--config", os.devnull, "serve", "s3", "--addr", address, str(buckets)]
    serve.append("--no-unicode-normalization")  # else two spellings of a folder become one
    # rclone reads the variable as a line of CSV.
    env = {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}
    url = f"http://{address}"
    with (
        process.running([program, *serve], ready=url, log=folder / "rclone.log", env=env),
        client("s3", url, access_key, secret_key) as s3,
    ):
        yield RcloneServer(
            name="rclone_s3",
            family=FAMILY,
            storage_class=STORAGE_CLASS,
            options=storage_options(url, access_key, secret_key, bucket),
            s3=s3,
            buckets=buckets,
        )
