"""Azurite, Microsoft's emulator of Azure Blob Storage: checks keys and signatures, keeps headers.

The program is `AZURITE`, else `azurite-blob` in PATH.
"""

from __future__ import annotations

import base64
import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Unpack

from tests.servers import process
from tests.servers.base import Headers, MissingServerError, Options, Server, Stored
from tests.servers.proxy import Proxy, proxying

FAMILY = "azure"
HINT = "no Azurite: run `scripts/install-azurite` and set AZURITE to what it prints"
CLASS = "storages.backends.azure_storage.AzureStorage"
ACCOUNT = "orchestratortests"
SETTINGS = (
    "content_type",
    "content_encoding",
    "content_language",
    "content_disposition",
    "cache_control",
)


@dataclass(frozen=True, kw_only=True)
class AzuriteServer(Server):
    endpoint_option: ClassVar[str] = "connection_string"

    url: str
    key: str = field(repr=False)
    service: Any = field(repr=False)

    def _container(self, options: Options) -> Any:
        return self.service.get_container_client(options["azure_container"])

    def new_bucket(self) -> Options:
        container = f"media-{uuid.uuid4().hex[:12]}"
        self.service.create_container(container)
        return {**self.options, "azure_container": container}

    def keys(self, options: Options) -> list[str]:
        return sorted(self._container(options).list_blob_names())

    def peek(self, options: Options, key: str) -> Stored:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            answer = self._container(options).download_blob(key, decompress=False)
        except ResourceNotFoundError as error:
            raise LookupError(key) from error
        found = answer.properties
        texts: Any = {name: getattr(found.content_settings, name) or "" for name in SETTINGS}
        return Stored(
            data=answer.readall(),
            metadata={name.lower(): value for name, value in found.metadata.items()},
            etag=bytes(found.content_settings.content_md5 or b"").hex(),
            storage_class=found.blob_tier or "",
            **texts,
        )

    def put(self, options: Options, key: str, data: bytes, **headers: Unpack[Headers]) -> None:
        from azure.storage.blob import ContentSettings

        metadata = headers.pop("metadata", {})
        settings = ContentSettings(**headers)
        self._container(options).upload_blob(
            key, data, overwrite=True, metadata=dict(metadata), content_settings=settings
        )

    def delete(self, options: Options, key: str) -> None:
        self._container(options).delete_blob(key)

    def read_only(self, options: Options) -> Options:
        parts = f"BlobEndpoint={self.url};SharedAccessSignature={self.account_sas('rl')}"
        return {**options, "connection_string": parts}

    def account_sas(self, rights: str, hours: int = 1) -> str:
        """Return a token for containers and blobs of the whole account."""
        from azure.storage.blob import generate_account_sas

        return str(
            generate_account_sas(
                ACCOUNT,
                self.key,
                resource_types="co",
                permission=rights,
                expiry=datetime.now(UTC) + timedelta(hours=hours),
            )
        )

    def container_sas(self, options: Options, rights: str) -> str:
        """Return a token for one container."""
        from azure.storage.blob import generate_container_sas

        return str(
            generate_container_sas(
                ACCOUNT,
                options["azure_container"],
                self.key,
                permission=rights,
                expiry=datetime.now(UTC) + timedelta(hours=1),
            )
        )

    @contextmanager
    def proxied(
        self, options: Options, folder: Path | None = None
    ) -> Iterator[tuple[Options, Proxy]]:
        before = options["connection_string"]
        with proxying(self.url, folder) as proxy:
            url = self.url.replace(self.url.rpartition("/")[0], proxy.url)
            yield {**options, "connection_string": before.replace(self.url, url)}, proxy


@contextmanager
def start(folder: Path) -> Iterator[AzuriteServer]:
    program = os.environ.get("AZURITE") or process.find("azurite-blob")
    if program is None or not Path(program).is_file():
        raise MissingServerError(HINT)
    key = base64.b64encode(secrets.token_bytes(64)).decode()
    address = process.free_address()
    host, port = address.split(":")
    where = ["--blobHost", host, "--blobPort", port, "--inMemoryPersistence"]
    # Both the SDK and rclone speak a version of the API that is newer than Azurite.
    command = [program, *where, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    env = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
    url = f"http://{address}/{ACCOUNT}"
    with process.running(command, ready=url, log=folder / "azurite.log", env=env):
        yield _connected(url, key)


def _connected(url: str, key: str) -> AzuriteServer:
    from azure.storage.blob import BlobServiceClient

    text = f"AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={url}"
    text = f"DefaultEndpointsProtocol=http;{text}"
    service = BlobServiceClient.from_connection_string(text, retry_total=0)
    service.create_container("media")
    return AzuriteServer(
        name="azurite",
        family=FAMILY,
        storage_class=CLASS,
        # Saving over a blob is the default of the other classes, which the tests compare with.
        options={"connection_string": text, "azure_container": "media", "overwrite_files": True},
        url=url,
        key=key,
        service=service,
    )
