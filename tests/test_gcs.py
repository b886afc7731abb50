"""Google Cloud Storage: credentials, ACLs, what an object carries, what the class compresses."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import django_side
from tests.conformance.observe import stored
from tests.conformance.twin import compare
from tests.servers.base import Options
from tests.servers.connect_proxy import connecting
from tests.servers.gcs import GcsServer
from tests.servers.proxy import Proxy
from tests.site import Result, Site

pytestmark = pytest.mark.on("gcs")
UPLOAD = "/upload/storage/v1/"
NOISE = {"uploadType", "name", "alt", "prettyPrint", "upload_id", "fields"}


@pytest.fixture
def site(server: GcsServer, bucket: Options, tmp_path: Path) -> Site:
    return Site.on(server, bucket, tmp_path)


def with_options(site: Site, **options: Any) -> Site:
    return replace(site, options={**site.options, **options})


def is_verified(result: Result, files: int) -> bool:
    assert (result.code, result.states()) == (0, {"verified": files}), (result.out, result.err)
    return True


def uploads(proxy: Proxy) -> list[dict[str, list[str]]]:
    """Return the queries that say something about an object, in the order of their uploads."""
    queries = [parse_qs(r.query) for r in proxy.writes if r.path.startswith(UPLOAD)]
    return [{k: v for k, v in query.items() if k not in NOISE} for query in queries]


ACLS: dict[str, Options] = {
    "none": {},
    "named": {"default_acl": "publicRead"},
    "named as in XML": {"default_acl": "public-read"},
    "of the objects": {"object_parameters": {"acl": "projectPrivate"}},
    "of the objects first": {"default_acl": "private", "object_parameters": {"acl": "publicRead"}},
    "of the objects none": {"default_acl": "private", "object_parameters": {"acl": None}},
}


@pytest.mark.parametrize("options", ACLS.values(), ids=ACLS)
def test_rclone_asks_for_the_acl_that_django_asks_for(
    server: GcsServer, site: Site, options: Options
) -> None:
    site = with_options(site, **options)
    site.add("a.jpg")
    with server.proxied(site.options) as (_, proxy):
        django_side.save(with_options(site, **server.new_bucket()), ["a.jpg"])
        by_django = uploads(proxy)
        assert is_verified(site.migrate(), 1)
        by_both = uploads(proxy)
    assert len(by_django) == 1
    assert by_both == by_django * 2
    named = "publicRead" in str(options) or "public-read" in str(options)
    assert (by_django == [{"predefinedAcl": ["publicRead"]}]) == named


PARAMETERS: dict[str, dict[str, Any]] = {
    "headers": {
        "cache_control": "public, max-age=86400",
        "content_disposition": 'attachment; filename="a b.bin"',
        "content_language": "de",
        "metadata": {"origin": "a=b; c, d", "number": 5},
        "storage_class": "NEARLINE",
    },
    "capitals": {"metadata": {"Owner": "the family"}, "cache_control": "no-store"},
    "not ASCII": {"content_disposition": 'inline; filename="größe.jpg"'},
    "type": {"content_type": "application/x-site", "content_encoding": "identity"},
}
NAMES = ("a.jpg", "b.tar.gz", "c.css", "d.unknown", "in/e.svgz", ".f.js")


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
@pytest.mark.parametrize("packed", [False, True], ids=["", "gzip"])
def test_an_object_carries_what_django_would_have_given_it(
    server: GcsServer, site: Site, parameters: dict[str, Any], packed: bool
) -> None:
    site = with_options(site, object_parameters=parameters, gzip=packed, location="loc/sub")
    for name in NAMES:
        site.add(name, gzip.compress(name.encode()))
    assert is_verified(site.migrate("--sample=all"), len(NAMES))
    twin = with_options(site, **server.new_bucket())
    django_side.save(twin, NAMES)
    tally = compare(server, stored(server, site.options), stored(server, twin.options))
    assert not tally.different
    assert tally.equal["key"] == len(NAMES)


def test_the_names_of_metadata_keep_their_capitals(
    server: GcsServer, bucket: Options, site: Site
) -> None:
    metadata = {"Owner": "the family"}
    site = with_options(site, object_parameters={"metadata": metadata})
    site.add("a.jpg")
    assert is_verified(site.migrate(), 1)
    assert server.storage.objects[bucket["bucket_name"]]["a.jpg"]["metadata"] == metadata


def test_what_the_class_compresses_is_proven_by_its_hash_and_read_back(
    server: GcsServer, bucket: Options, site: Site
) -> None:
    site = with_options(site, gzip=True)
    for name in ("a.css", "b.svg", "c.jpg"):
        site.add(name, b"body { color: red } " * 500)
    result = site.migrate("--sample=all")
    assert is_verified(result, 3)
    assert result.report["evidence"].keys() == {"hash"}
    sizes = {key: len(server.peek(bucket, key).data) for key in server.keys(bucket)}
    assert sizes["c.jpg"] == 10_000
    assert max(sizes["a.css"], sizes["b.svg"]) < 1000
    assert server.peek(bucket, "a.css").content_encoding == "gzip"
    server.put(bucket, "a.css", gzip.compress(b"other"), content_encoding="gzip")
    assert site.run("check").reasons().keys() == {"a.css"}


def test_a_key_of_the_kms_goes_with_the_class_s_own_upload(server: GcsServer, site: Site) -> None:
    key = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
    site = with_options(site, object_parameters={"kms_key_name": key})
    site.add("a.jpg")
    with server.proxied(site.options) as (_, proxy):
        assert is_verified(site.migrate(), 1)
        assert uploads(proxy) == [{"kmsKeyName": [key]}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"credentials": {"private_key": "S3CRET-KEY"}}, "GOOGLE_APPLICATION_CREDENTIALS=/path"),
        ({"credentials": "/S3CRET-KEY.json"}, "GOOGLE_APPLICATION_CREDENTIALS=/path"),
        ({"default_acl": "everybody"}, "Invalid predefined ACL: everybody"),
        ({"object_parameters": {"custom_time": "2031-05-01"}}, "wants a date"),
        ({"object_parameters": {"md5_hash": "x"}}, "one checksum cannot fit"),
        ({"object_parameters": {"colour": "x"}}, "no upload of this class"),
        ({"location": "/x"}, "cannot begin with a leading slash"),
        ({"bucket_name": None}, "bucket_name is missing"),
        ({"bucket_nam": "x"}, "did you mean 'bucket_name'"),
    ],
)
def test_what_cannot_be_migrated_is_refused_with_the_way_out(
    site: Site, options: Options, said: str
) -> None:
    result = with_options(site, **options).plan()
    assert result.code == 2, result.out
    assert said in result.out
    assert "S3CRET" not in result.out + result.err


def test_a_missing_bucket_is_not_made(server: GcsServer, site: Site) -> None:
    site = with_options(site, bucket_name="nowhere", project_id="p")
    site.add("a.jpg")
    result = site.migrate()
    assert (result.code, result.report["problems"][0]["what"].split(":")[0]) == (5, "bucket_name")
    assert "nowhere" not in server.storage.buckets


def test_a_name_that_google_forbids_is_refused(
    server: GcsServer, bucket: Options, site: Site
) -> None:
    for name in ("line\nend", "return\r", ".well-known/acme-challenge/x", "tab\t"):
        site.add(name)
    assert site.migrate("--skip-refused").states() == {"verified": 1, "refused": 3}
    assert server.keys(bucket) == ["tab\t"]


def test_what_the_sdk_cannot_unpack_is_told_as_a_defect_of_reading(site: Site) -> None:
    site.add("real.gz", gzip.compress(b"packed"))
    site.add("fake.gz", b"not packed")
    result = site.migrate("--sample=all")
    assert is_verified(result, 2)
    assert "this one is no gzip file" in json.dumps(result.report)


# Application default credentials: a service account, and Google's hosts led to loopback.


@dataclass(frozen=True, kw_only=True)
class Google:
    """Where tokens come from: `agents` asked for one, and `refuse` says whether they get it."""

    environ: dict[str, str]
    proxy: Proxy
    agents: list[str] = field(default_factory=list)
    refuse: threading.Event = field(default_factory=threading.Event)


class _Tokens(BaseHTTPRequestHandler):
    google: ClassVar[Google]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.google.agents.append(self.headers["User-Agent"])
        answer: dict[str, Any] = {"access_token": "t0ken", "token_type": "Bearer", "expires_in": 60}
        if self.google.refuse.is_set():
            answer = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        body = json.dumps(answer).encode()
        self.send_response(400 if self.google.refuse.is_set() else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()
        thread.join()


@pytest.fixture
def google(server: GcsServer, bucket: Options, tmp_path: Path) -> Iterator[Google]:
    handler = type("Tokens", (_Tokens,), {})
    with server.proxied(bucket) as (_, proxy), serving(handler) as tokens:
        hosts = {"storage.googleapis.com": proxy.url, "oauth2.googleapis.com": tokens}
        with connecting(hosts, tmp_path) as environ:
            google = Google(environ=dict(environ), proxy=proxy)
            handler.google = google  # type: ignore[attr-defined]
            yield google


def service_account(path: Path) -> None:
    """Write the key file that Google's console gives for a service account."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "family",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "site@family.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.write_text(json.dumps(account))


class Configured(Site):
    """A site whose `.env` names its credentials, as its admin would."""

    def write_env(self) -> None:
        super().write_env()
        with (self.folder / ".env").open("a", encoding="utf-8") as file:
            file.write("GOOGLE_APPLICATION_CREDENTIALS=key.json\n")


@pytest.fixture
def configured(google: Google, bucket: Options, site: Site) -> Site:
    site.add("a/b.jpg", b"picture")
    return Configured(
        folder=site.folder,
        options=bucket,
        storage_class=site.storage_class,
        variables=google.environ,
    )


def test_credentials_named_in_env_reach_django_and_rclone(
    server: GcsServer, bucket: Options, google: Google, configured: Site
) -> None:
    service_account(configured.folder / "key.json")
    assert is_verified(configured.migrate("--sample=all"), 1)
    assert server.peek(bucket, "a/b.jpg").data == b"picture"
    assert {agent.split("/")[0] for agent in google.agents} == {"python-requests", "Go-http-client"}
    sent = {r.headers.get("authorization") for r in google.proxy.requests}
    assert sent == {"Bearer t0ken"}
    agents = {r.headers.get("user-agent", "").split("/")[0] for r in google.proxy.requests}
    assert agents == {"gcloud-python", "google-api-go-client"}


def test_refused_credentials_are_said_to_be(google: Google, configured: Site) -> None:
    service_account(configured.folder / "key.json")
    google.refuse.set()
    result = configured.migrate()
    assert result.code == 5
    assert "does not accept the credentials" in result.out
    assert "PRIVATE KEY" not in result.out


@pytest.mark.parametrize("content", [None, "{}", "no JSON"], ids=["missing", "empty", "no JSON"])
def test_credentials_that_are_none_are_a_problem_of_the_configuration(
    configured: Site, content: str | None
) -> None:
    if content:
        (configured.folder / "key.json").write_text(content)
    result = configured.plan()
    assert result.code == 2
    assert "no usable Google credentials" in result.out


def test_a_missing_right_names_the_bucket(google: Google, configured: Site) -> None:
    service_account(configured.folder / "key.json")
    message = "site@family does not have storage.objects.create access to the Cloud Storage object."
    body = {"error": {"code": 403, "message": message, "errors": [{"reason": "forbidden"}]}}
    google.proxy.answer(403, json.dumps(body).encode(), times=9, matching="^POST /upload/")
    result = configured.migrate()
    assert result.code == 5
    assert result.report["problems"][0]["what"].startswith("bucket_name: the credentials are valid")
