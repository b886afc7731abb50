"""Libcloud's driver AZURE_BLOBS: it talks to Microsoft's host, and a proxy leads it to Azurite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers import azurite
from tests.servers.base import MissingServerError
from tests.servers.connect_proxy import connecting
from tests.servers.libcloud_settings import HINT, ProxiedServer

FAMILY = "libcloud"
HOST = f"{azurite.ACCOUNT}.blob.core.windows.net"


class AzureServer(ProxiedServer[azurite.AzuriteServer]):
    def login(self) -> Mapping[str, str]:
        return {"user": azurite.ACCOUNT, "key": self.behind.key}

    def create(self, bucket: str) -> None:
        self.behind.service.create_container(bucket)


@contextmanager
def start(folder: Path) -> Iterator[AzureServer]:
    if find_spec("libcloud") is None:
        raise MissingServerError(HINT)
    with azurite.start(folder) as behind:
        backend = f"http://{urlsplit(behind.url).netloc}"
        with connecting({HOST: backend}, folder) as environ:
            yield AzureServer.started(
                name="libcloud_azure",
                provider="AZURE_BLOBS",
                bucket_option="azure_container",
                behind=behind,
                environ=environ,
            )
