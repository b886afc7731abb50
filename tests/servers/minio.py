"""MinIO: the S3 server that sites run themselves; checks all, keeps tags and encryption, no ACL.

The program is `MINIO_SERVER`, else `minio` in PATH; a server that already runs can be named by
`MINIO_ENDPOINT` (a URL), `MINIO_ACCESS_KEY` and `MINIO_SECRET_KEY`.
"""

from __future__ import annotations

import base64
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Unpack
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin, S3Error
from minio.credentials import StaticProvider

from tests.servers import process
from tests.servers.base import Headers, MissingServerError, Options, Server, Stored
from tests.servers.s3 import STORAGE_CLASS, bucket_name, storage_options, stored

FAMILY = "s3"
HINT = "no MinIO server: run `scripts/install-minio` and set MINIO_SERVER to what it prints"
# A server that has just said it is ready may still answer 503 with "Retry-After: 60".
PATIENT = urllib3.Retry(
    100,
    backoff_factor=0.1,
    backoff_max=0.2,
    status_forcelist=[503],
    allowed_methods=None,
    respect_retry_after_header=False,
)
READ_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"],
            "Resource": ["arn:aws:s3:::*"],
        }
    ],
}


@dataclass(frozen=True, kw_only=True)
class MinioServer(Server):
    endpoint_option: ClassVar[str] = "endpoint_url"

    client: Any = field(repr=False)
    admin: Any = field(repr=False)

    def new_bucket(self) -> Options:
        bucket = bucket_name()
        self.client.make_bucket(bucket)
        return {**self.options, "bucket_name": bucket}

    def read_only(self, options: Options) -> Options:
        user, secret = secrets.token_hex(8), secrets.token_hex(16)
        self.admin.user_add(user, secret)
        self.admin.policy_add("read-only-objects", policy=READ_ONLY)
        self.admin.policy_set("read-only-objects", user=user)
        return {**options, "access_key": user, "secret_key": secret}

    def keys(self, options: Options) -> list[str]:
        entries = self.client.list_objects(options["bucket_name"], recursive=True)
        return sorted(entry.object_name for entry in entries)

    def peek(self, options: Options, key: str) -> Stored:
        bucket = options["bucket_name"]
        try:
            answer = self.client.get_object(bucket, key)
        except S3Error as error:
            raise LookupError(key) from error
        with closing(answer):
            data = answer.read(decode_content=False)
        return stored(data, answer.headers, tags=self.client.get_object_tags(bucket, key) or {})

    def put(self, options: Options, key: str, data: bytes, **headers: Unpack[Headers]) -> None:
        metadata = dict(headers.pop("metadata", {}))
        content_type = headers.pop("content_type", "application/octet-stream")
        metadata |= {name.replace("_", "-").title(): str(text) for name, text in headers.items()}
        self.client.put_object(
            options["bucket_name"],
            key,
            io.BytesIO(data),
            len(data),
            content_type=content_type,
            metadata=metadata,
        )

    def delete(self, options: Options, key: str) -> None:
        self.client.remove_object(options["bucket_name"], key)


@contextmanager
def start(folder: Path) -> Iterator[MinioServer]:
    """Yield a server of our own, or the one that the environment names."""
    if url := os.environ.get("MINIO_ENDPOINT"):
        keys = os.environ["MINIO_ACCESS_KEY"], os.environ["MINIO_SECRET_KEY"]
        with _connected(url, *keys) as server:
            yield server
        return
    program = os.environ.get("MINIO_SERVER") or process.find("minio")
    if program is None or not Path(program).is_file():
        raise MissingServerError(HINT)
    keys = secrets.token_hex(8), secrets.token_hex(16)
    with _started(program, folder, *keys) as url, _connected(url, *keys) as server:
        yield server


@contextmanager
def _started(program: str, folder: Path, access_key: str, secret_key: str) -> Iterator[str]:
    address = process.free_address()
    url = f"http://{address}"
    env = {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # With a key of its own it can encrypt: AES256 and aws:kms.
        "MINIO_KMS_SECRET_KEY": f"test-key:{base64.b64encode(secrets.token_bytes(32)).decode()}",
    }
    serve = ["server", "--quiet", "--certs-dir", folder / "certs", "--address", address]
    command = [program, *map(str, serve), str(folder / "drive")]
    with process.running(command, ready=url, log=folder / "minio.log", env=env):
        yield url


@contextmanager
def _connected(url: str, access_key: str, secret_key: str) -> Iterator[MinioServer]:
    address, secure = urlsplit(url).netloc, url.startswith("https:")
    bucket = bucket_name()
    with urllib3.PoolManager(retries=PATIENT) as pool:
        client = Minio(address, access_key, secret_key, secure=secure, http_client=pool)
        client.make_bucket(bucket)
        provider = StaticProvider(access_key, secret_key)
        yield MinioServer(
            name="minio",
            family=FAMILY,
            storage_class=STORAGE_CLASS,
            options=storage_options(url, access_key, secret_key, bucket),
            client=client,
            admin=MinioAdmin(
                endpoint=address, credentials=provider, secure=secure, http_client=pool
            ),
        )
