"""The test servers themselves, so that a promise which fails on one of them is not their fault."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError, SSLError

from tests.conformance.observe import key_of, save_by_django
from tests.conftest import Pool
from tests.servers import kinds
from tests.servers.base import Options, Server
from tests.servers.proxy import proxying
from tests.servers.s3 import client

ROOT = Path(__file__).parent.parent
NAMES = ["plain.txt", "a/b c+d&e=f%20.jpg", "größe/ünï-日本.png", "~tilde'(quotes)!*.txt"]
HEADERS: dict[str, Any] = {
    "content_type": "image/x-test",
    "content_encoding": "gzip",
    "content_language": "de",
    "content_disposition": "inline",
    "cache_control": "max-age=60",
    "metadata": {"who": "me"},
}


@pytest.fixture
def connect() -> Iterator[Any]:
    """Return a function: options in, boto3 client out."""
    with ExitStack() as stack:
        yield lambda options, **extra: stack.enter_context(
            client(
                "s3", options["endpoint_url"], options["access_key"], options["secret_key"], **extra
            )
        )


@pytest.mark.parametrize("key", NAMES)
def test_what_was_put_is_what_is_seen(server: Server, bucket: Options, key: str) -> None:
    server.put(bucket, key, b"picture")
    assert server.peek(bucket, key).data == b"picture"
    assert server.keys(bucket) == [key]


@pytest.mark.on("s3")
def test_headers_and_etag_are_seen(server: Server, bucket: Options) -> None:
    server.put(bucket, "a.txt", b"picture", **HEADERS)
    seen = server.peek(bucket, "a.txt")
    assert {name: getattr(seen, name) for name in HEADERS} == HEADERS
    assert seen.etag == hashlib.md5(b"picture").hexdigest()


def test_a_new_bucket_is_empty_and_alone(server: Server, bucket: Options) -> None:
    server.put(server.options, "elsewhere.txt", b"1")
    assert server.keys(bucket) == []


def test_what_was_deleted_is_not_seen(server: Server, bucket: Options) -> None:
    server.put(bucket, "a.txt", b"1")
    server.delete(bucket, "a.txt")
    assert server.keys(bucket) == []
    with pytest.raises(LookupError):
        server.peek(bucket, "a.txt")


def test_the_storage_class_works_with_the_options(server: Server, bucket: Options) -> None:
    save_by_django(server, bucket, "photos/größe 1.jpg", b"picture")
    assert server.peek(bucket, key_of(server, bucket, "photos/größe 1.jpg")).data == b"picture"


@pytest.mark.on("s3")
@pytest.mark.parametrize(
    ("option", "code"),
    [("access_key", "InvalidAccessKeyId"), ("secret_key", "SignatureDoesNotMatch")],
)
def test_a_wrong_key_is_refused(
    server: Server, bucket: Options, connect: Any, option: str, code: str
) -> None:
    wrong = connect({**bucket, option: "0" * 20})
    with pytest.raises(ClientError) as refused:
        wrong.list_objects_v2(Bucket=bucket["bucket_name"])
    assert refused.value.response["Error"]["Code"] == code


@pytest.mark.on("minio", "moto")
def test_a_read_only_user_lists_and_reads_but_does_not_write(
    server: Server, bucket: Options, connect: Any
) -> None:
    server.put(bucket, "a.txt", b"1")
    options = server.read_only(bucket)
    assert options
    reader, name = connect(options), bucket["bucket_name"]
    assert reader.list_objects_v2(Bucket=name)["KeyCount"] == 1
    with closing(reader.get_object(Bucket=name, Key="a.txt")["Body"]) as body:
        assert body.read() == b"1"
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.put_object(Bucket=name, Key="b.txt", Body=b"2")
    assert server.keys(bucket) == ["a.txt"]


@pytest.mark.on("minio", "moto")
def test_encryption_and_tags_are_seen(server: Server, bucket: Options, connect: Any) -> None:
    connect(bucket).put_object(
        Bucket=bucket["bucket_name"],
        Key="a.txt",
        Body=b"1",
        ServerSideEncryption="AES256",
        Tagging="color=blue",
    )
    seen = server.peek(bucket, "a.txt")
    assert (seen.encryption, seen.tags) == ("AES256", {"color": "blue"})


@pytest.mark.on("moto")
def test_acl_and_storage_class_are_seen(server: Server, bucket: Options, connect: Any) -> None:
    connect(bucket).put_object(
        Bucket=bucket["bucket_name"],
        Key="a.txt",
        Body=b"1",
        ACL="public-read",
        StorageClass="STANDARD_IA",
    )
    seen = server.peek(bucket, "a.txt")
    assert seen.acl == ("AllUsers READ", "owner FULL_CONTROL")
    assert seen.storage_class == "STANDARD_IA"


@pytest.mark.on("moto")
def test_what_came_in_parts_without_an_acl_is_private(
    server: Server, bucket: Options, connect: Any
) -> None:
    s3, where = connect(bucket), {"Bucket": bucket["bucket_name"], "Key": "a.txt"}
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=b"1")
    parts = [{"ETag": part["ETag"], "PartNumber": 1}]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert server.peek(bucket, "a.txt").acl == ("owner FULL_CONTROL",)


@pytest.mark.on("s3")
def test_the_proxy_tells_reads_from_writes(server: Server, bucket: Options, connect: Any) -> None:
    with server.proxied(bucket) as (options, proxy):
        s3 = connect(options)
        s3.list_objects_v2(Bucket=bucket["bucket_name"])
        assert (len(proxy.requests), proxy.writes) == (1, ())
        s3.put_object(Bucket=bucket["bucket_name"], Key="a b.txt", Body=b"1", ContentType="x/y")
        (write,) = proxy.writes
    assert (write.method, write.path) == ("PUT", f"/{bucket['bucket_name']}/a%20b.txt")
    assert (write.headers["content-type"], write.status) == ("x/y", 200)


@pytest.mark.on("s3")
def test_a_large_object_goes_through_the_proxy_whole(
    server: Server, bucket: Options, connect: Any
) -> None:
    data = os.urandom(20 << 20)
    with server.proxied(bucket) as (options, _):
        s3, where = connect(options), {"Bucket": bucket["bucket_name"], "Key": "big.bin"}
        s3.put_object(**where, Body=data)
        with closing(s3.get_object(**where)["Body"]) as body:
            assert body.read() == data
    assert server.peek(bucket, "big.bin").data == data


@pytest.mark.on("s3")
def test_the_proxy_says_slow_down_as_often_as_it_was_told(
    server: Server, bucket: Options, connect: Any
) -> None:
    slow_down = b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
    with server.proxied(bucket) as (options, proxy):
        proxy.answer(503, slow_down, times=2, matching=r"^PUT .*/a\.txt")
        s3, name = connect(options, attempts=3), bucket["bucket_name"]
        s3.put_object(Bucket=name, Key="b.txt", Body=b"2")
        s3.put_object(Bucket=name, Key="a.txt", Body=b"1")
        assert [(r.path[-5:], r.status) for r in proxy.requests] == [
            ("b.txt", 200),
            ("a.txt", 503),
            ("a.txt", 503),
            ("a.txt", 200),
        ]
    assert server.keys(bucket) == ["a.txt", "b.txt"]


@pytest.mark.on("s3")
def test_tls_is_trusted_only_with_its_authority(
    server: Server, bucket: Options, connect: Any, tmp_path: Path
) -> None:
    with server.proxied(bucket, tmp_path) as (options, proxy):
        with pytest.raises(SSLError):
            connect(options).list_objects_v2(Bucket=bucket["bucket_name"])
        assert eventually(lambda: proxy.errors)
        trusting = connect(options, verify=str(proxy.authority))
        trusting.put_object(Bucket=bucket["bucket_name"], Key="a.txt", Body=b"1")
    assert server.keys(bucket) == ["a.txt"]


class Echo(BaseHTTPRequestHandler):
    """Answer with the request as it came: target, one header, and the body, in chunks."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        target = self.requestline.split()[1].encode()
        for part in (target, b"|", self.headers["X-Odd"].encode("latin-1"), b"|", body):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Echo) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()
        thread.join()


def test_the_proxy_passes_chunks_on_as_they_came(echo: str) -> None:
    headers = {"Transfer-Encoding": "chunked", "X-Odd": "größe  x"}
    with proxying(echo) as proxy:
        connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
        with closing(connection):
            for _ in range(2):  # on one connection
                connection.request(
                    "PUT", "//a%2Fb?c=d", iter([b"one", b"two"]), headers, encode_chunked=True
                )
                with connection.getresponse() as answer:
                    assert answer.read() == "//a%2Fb?c=d|größe  x|onetwo".encode("latin-1")
    assert [(r.path, r.query) for r in proxy.requests] == [("//a%2Fb", "c=d")] * 2


def test_the_proxy_waits_with_the_body_until_the_server_wants_it(echo: str) -> None:
    fields = [b"X-Odd: x", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"\r\n"]
    with proxying(echo) as proxy:
        parts = urlsplit(proxy.url)
        with (
            socket.create_connection((parts.hostname, parts.port), timeout=10) as client_end,
            client_end.makefile("rb") as answers,
        ):
            client_end.sendall(b"\r\n".join([b"PUT /a HTTP/1.1", *fields]))
            assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert answers.readline() == b"\r\n"
            client_end.sendall(b"3\r\none\r\n0\r\n\r\n")
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"


KILLED = """
import os, pathlib, sys
from tests.servers import kinds
with kinds()[sys.argv[1]].start(pathlib.Path(sys.argv[2])) as server:
    print(server.options["endpoint_url"], flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.on("s3")
def test_a_server_ends_with_a_killed_test_run(server: Server, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED, server.name, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -9, run.stderr
    assert eventually(lambda: not is_up(run.stdout.strip()))


def eventually(holds: Callable[[], object]) -> bool:
    """Say whether it holds within 10 seconds."""
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_up(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    with closing(connection):
        try:
            connection.connect()
        except ConnectionError:
            return False
        return True


@pytest.mark.parametrize(
    ("required", "outcome"), [("", "1 skipped"), ("all", "1 error"), ("moto,minio", "1 error")]
)
def test_a_missing_server_is_seen(required: str, outcome: str) -> None:
    hidden = {"MINIO_SERVER": "/nowhere/minio", "REQUIRED_SERVERS": required}
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("MINIO")}
    test = "tests/test_servers.py::test_a_new_bucket_is_empty_and_alone"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--servers=minio", test],
        cwd=ROOT,
        env={**environment, **hidden},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in run.stdout
    assert "scripts/install-minio" in run.stdout


def test_each_server_starts_once(pool: Pool, server: Server) -> None:
    kind = kinds()[server.name]
    assert pool.get(kind) is server
