"""Libcloud's driver S3_EU_WEST: it talks to Amazon's host, and a proxy leads it to moto."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.servers.base import MissingServerError
from tests.servers.connect_proxy import connecting
from tests.servers.libcloud_settings import HINT, ProxiedServer
from tests.servers.moto import MotoServer, serving
from tests.servers.s3 import client, storage_options

FAMILY = "libcloud"
HOST = "s3-eu-west-1.amazonaws.com"
LOGIN = {"user": "AKIALIBCLOUD00000000", "key": "libcloud-secret-key-of-the-tests"}
"""moto cannot check Libcloud's signatures, so it takes any."""


class S3Server(ProxiedServer[MotoServer]):
    def login(self) -> Mapping[str, str]:
        return LOGIN

    def create(self, bucket: str) -> None:
        self.behind.s3.create_bucket(Bucket=bucket)


@contextmanager
def start(folder: Path) -> Iterator[S3Server]:
    if find_spec("libcloud") is None:
        raise MissingServerError(HINT)
    keys = LOGIN["user"], LOGIN["key"]
    with (
        serving(folder) as url,
        connecting({HOST: url}, folder) as environ,
        client("s3", url, *keys) as s3,
    ):
        yield S3Server.started(
            name="libcloud_s3",
            provider="S3_EU_WEST",
            bucket_option="bucket_name",
            behind=MotoServer(
                name="moto",
                family="s3",
                storage_class="",
                options=storage_options(url, *keys, ""),
                s3=s3,
                iam=None,
            ),
            environ=environ,
        )
