"""Stores that no test can reach: rclone and boto3 must send the same request to the same host.

A proxy leads the vendor's host names to a server here that records what it is asked to store.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import django_side
from tests.servers.connect_proxy import connecting
from tests.site import Site

NAME = "galleries/Été à la mer/100 % #1.jpg"
BUCKET = "family-photos"
KEYS = {"access_key": "AKIAVENDORVENDOR0000", "secret_key": "vendor-secret-key-of-the-tests"}
EMPTY = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
)


@dataclass(frozen=True, kw_only=True)
class Put:
    """What decides where an object goes and as what."""

    host: str
    path: str
    region: str
    content_type: str
    cache_control: str
    acl: str


@dataclass(frozen=True)
class Recorder:
    url: str
    puts: list[Put] = field(default_factory=list)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Serve an empty bucket that takes everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/s3", self.headers["Authorization"])
            recorder.puts.append(
                Put(
                    host=self.headers["Host"],
                    path=self.path.partition("?")[0],
                    region=scope[1] if scope else "",
                    content_type=self.headers.get("Content-Type", ""),
                    cache_control=self.headers.get("Cache-Control", ""),
                    acl=self.headers.get("X-Amz-Acl", ""),
                )
            )
            self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')

        def do_GET(self) -> None:
            self._answer(200, EMPTY, **{"Content-Type": "application/xml"})

        def do_HEAD(self) -> None:
            self._answer(404)

        def _answer(self, status: int, body: str = "", **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        recorder = Recorder(f"http://127.0.0.1:{server.server_address[1]}")
        yield recorder
        server.shutdown()


@dataclass(frozen=True, kw_only=True)
class Vendor:
    options: dict[str, Any]
    hosts: tuple[str, ...]  # that both may ask
    path_style: bool


def endpoint(
    host: str, *, region: str | None = None, path_style: bool = True, **more: Any
) -> Vendor:
    options = {"endpoint_url": f"https://{host}", **more}
    if region:
        options["region_name"] = region
    return Vendor(options=options, hosts=(host, f"{BUCKET}.{host}"), path_style=path_style)


PARIS = "s3.eu-west-3.amazonaws.com"
VENDORS = {
    "Amazon S3": Vendor(
        options={"region_name": "eu-west-3", "default_acl": "public-read"},
        hosts=(PARIS, f"{BUCKET}.{PARIS}"),
        path_style=False,
    ),
    "Amazon S3, path": Vendor(
        options={"region_name": "eu-west-3", "addressing_style": "path"},
        hosts=(PARIS,),
        path_style=True,
    ),
    "Amazon S3, first region": Vendor(
        options={},
        hosts=(
            "s3.amazonaws.com",
            f"{BUCKET}.s3.amazonaws.com",
            f"{BUCKET}.s3.us-east-1.amazonaws.com",
        ),
        path_style=False,
    ),
    "Amazon S3, endpoint given": endpoint(PARIS, region="eu-west-3"),
    "Cloudflare R2": endpoint("0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"),
    "Backblaze B2": endpoint("s3.eu-central-003.backblazeb2.com", region="eu-central-003"),
    "DigitalOcean Spaces": endpoint("fra1.digitaloceanspaces.com", region="fra1"),
    "DigitalOcean Spaces, virtual": endpoint(
        "fra1.digitaloceanspaces.com", region="fra1", path_style=False, addressing_style="virtual"
    ),
    "Oracle Cloud": endpoint(
        "namespace.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", region="eu-frankfurt-1"
    ),
    "Scaleway": endpoint("s3.fr-par.scw.cloud", region="fr-par"),
    "MinIO": endpoint("minio.example.org"),
}


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
def test_rclone_asks_for_the_same_object_as_boto3(vendor: Vendor, tmp_path: Path) -> None:
    options = {**KEYS, "bucket_name": BUCKET, "location": "media", **vendor.options}
    options["object_parameters"] = {"CacheControl": "max-age=86400"}
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    with (
        recording() as recorder,
        connecting(dict.fromkeys(vendor.hosts, recorder.url), certificates) as environ,
    ):
        site = Site(folder=tmp_path, options=options, variables=environ)
        site.add(NAME)
        site.migrate()
        by_rclone = recorder.puts.copy()
        django_side.save(site, [NAME])
        by_boto3 = recorder.puts[len(by_rclone) :]
    assert len(by_rclone) == len(by_boto3) == 1, (by_rclone, by_boto3)
    rclone, boto3 = by_rclone[0], by_boto3[0]
    if set(vendor.hosts) == set(VENDORS["Amazon S3, first region"].hosts):
        assert {rclone.host, boto3.host} <= set(vendor.hosts)
        boto3 = Put(**{**vars(boto3), "host": rclone.host})
    assert rclone == boto3
    assert rclone.path.startswith(f"/{BUCKET}/media/") is vendor.path_style
