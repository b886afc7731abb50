"""Azure: every way in, names with dots, content settings, and blobs without a checksum."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import django_side
from tests.conformance.observe import stored
from tests.conformance.twin import compare
from tests.servers.azurite import ACCOUNT, AzuriteServer
from tests.servers.base import Options
from tests.servers.connect_proxy import connecting
from tests.site import Result, Site

pytestmark = pytest.mark.on("azurite")
SUFFIXES = ("core.windows.net", "core.chinacloudapi.cn")
Login = Callable[[AzuriteServer, Options], Options]
LOGINS: dict[str, Login] = {
    "account key": lambda server, _: {"account_key": server.key},
    "account key wins": lambda server, _: {
        "account_key": server.key,
        "sas_token": "sig=of-nobody-at-all",
    },
    "account SAS": lambda server, _: {"sas_token": server.account_sas("rwlc")},
    "container SAS": lambda s, bucket: {"sas_token": "?" + s.container_sas(bucket, "rwlc")},
    "another cloud": lambda server, _: {"account_key": server.key, "endpoint_suffix": SUFFIXES[1]},
    "another cloud, SAS": lambda server, _: {
        "sas_token": "?" + server.account_sas("rwlc"),
        "endpoint_suffix": SUFFIXES[1],
    },
}
STRINGS: dict[str, Callable[[AzuriteServer, Options], str]] = {
    "key": lambda _, bucket: str(bucket["connection_string"]),
    "account SAS": lambda s, _: (
        f"BlobEndpoint={s.url};SharedAccessSignature={s.account_sas('rwlc')}"
    ),
    "container SAS": lambda s, bucket: (
        f"BlobEndpoint={s.url}/;SharedAccessSignature=?{s.container_sas(bucket, 'rwlc')}"
    ),
}


@pytest.fixture
def site(server: AzuriteServer, bucket: Options, tmp_path: Path) -> Site:
    """Return a site with the defaults of the class, which never saves over a blob."""
    options = {name: bucket[name] for name in ("connection_string", "azure_container")}
    return Site.on(server, options, tmp_path)


@pytest.fixture
def production(server: AzuriteServer, bucket: Options, site: Site) -> Iterator[Site]:
    """Yield a site that reaches the account by the host names that Azure gives it."""
    backend = server.url.removesuffix(f"/{ACCOUNT}")
    hosts = {f"{ACCOUNT}.blob.{suffix}": backend for suffix in SUFFIXES}
    options = {"account_name": ACCOUNT, "azure_container": bucket["azure_container"]}
    with connecting(hosts, site.folder) as environ:
        yield replace(site, options=options, variables=environ)


def with_options(site: Site, **options: Any) -> Site:
    return replace(site, options={**site.options, **options})


def remote(site: Site) -> dict[str, str]:
    """Return the remote as `config` writes it for use by hand, secrets and all."""
    result = site.run("config", "--output", "rclone.conf")
    assert result.code == 0, result.out
    path = site.folder / "rclone.conf"
    text = path.read_text()
    path.unlink()
    (secret,) = re.findall(r"(?:^key = |sig=)([^&\n]+)", text, re.MULTILINE)
    assert secret not in result.out + result.err
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)


def is_verified(result: Result, files: int) -> bool:
    assert (result.code, result.states()) == (0, {"verified": files}), (result.out, result.err)
    return True


@pytest.mark.parametrize("login", LOGINS.values(), ids=LOGINS)
def test_each_way_in_leads_django_and_rclone_to_the_same_account(
    server: AzuriteServer, bucket: Options, production: Site, login: Login
) -> None:
    options = login(server, bucket)
    site = with_options(production, **options, location="/photos/")
    site.add("a/größe 1.jpg", b"picture")
    result = site.migrate()
    assert is_verified(result, 1)
    assert server.keys(bucket) == ["photos/a/größe 1.jpg"]
    log = "".join(path.read_text() for path in site.runs.glob("*/*.*") if path.suffix != ".sqlite")
    signatures = parse_qs(options.get("sas_token", "").lstrip("?")).get("sig", [])
    for secret in (server.key, *signatures):
        assert secret not in result.out + result.err + log


@pytest.mark.parametrize("text", STRINGS.values(), ids=STRINGS)
def test_each_form_of_a_connection_string_is_read_as_the_sdk_reads_it(
    server: AzuriteServer, bucket: Options, site: Site, text: Callable[..., str]
) -> None:
    ignored = {"account_key": "aWdub3JlZA==", "sas_token": "sig=ignored", "endpoint_suffix": "x.y"}
    site = with_options(site, connection_string=text(server, bucket), **ignored)
    site.add("a.jpg", b"picture")
    assert is_verified(site.migrate(), 1)
    assert ("key" in remote(site)) == ("AccountKey" in str(site.options["connection_string"]))


def test_exactly_one_way_in_is_written(server: AzuriteServer, bucket: Options, site: Site) -> None:
    base = {"account_name": "acct", "azure_container": "media"}
    by_key = {
        "account": "acct",
        "key": "a2V5a2V5a2V5",
        "endpoint": "http://acct.blob.here.example/",
    }
    by_sas = {
        "account": "acct",
        "sas_url": "https://acct.blob.core.windows.net/media?sv=1&sig=abcdefgh",
    }
    cases: list[tuple[Options, Options]] = [
        (
            {"account_key": "a2V5a2V5a2V5", "azure_ssl": False, "endpoint_suffix": "here.example"},
            by_key,
        ),
        ({"sas_token": "?sv=1&sig=abcdefgh"}, by_sas),
        ({"sas_token": "sv=1&sig=abcdefgh"}, by_sas),
    ]
    auth = {"account", "key", "endpoint", "sas_url", "connection_string"}
    for options, expected in cases:
        written = remote(replace(site, options={**base, **options}))
        assert {k: v for k, v in written.items() if k in auth} == expected
        assert written["no_check_container"] == "true"


def test_the_emulator_s_short_connection_string_becomes_its_address(site: Site) -> None:
    written = remote(with_options(site, connection_string="UseDevelopmentStorage=true"))
    assert written["account"] == "devstoreaccount1"
    assert written["endpoint"] == "http://127.0.0.1:10000/devstoreaccount1/"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"token_credential": "DefaultAzureCredential"},
            "use account_key, sas_token or connection",
        ),
        ({"sas_token": None}, "there are no credentials"),
        ({"account_name": None, "account_key": "a2V5"}, "account_name is missing"),
        ({"account_key": "not base64!"}, "this is no account key"),
        ({"connection_string": "nonsense"}, "malformed"),
        ({"account_key": "a2V5", "azure_container": None}, "azure_container: it is missing"),
        ({"account_key": "a2V5", "object_parameters": {"content_md5": "x"}}, "one checksum cannot"),
        ({"account_key": "a2V5", "object_parameters": {"colour": "x"}}, "no upload of this class"),
        (
            {"account_key": "a2V5", "client_options": {"require_encryption": True}},
            "no option 'client_options.require_encryption'",
        ),
    ],
)
def test_what_cannot_be_migrated_is_refused_with_the_way_out(
    site: Site, options: Options, said: str
) -> None:
    base = {"account_name": "acct", "azure_container": "media"}
    result = replace(site, options={**base, **options}).plan()
    assert result.code == 2, result.out
    assert said in result.out


@pytest.mark.parametrize(
    ("login", "option"),
    [
        (lambda *_: {"account_key": "d3Jvbmcga2V5"}, "account_key"),
        (lambda server, _: {"sas_token": server.account_sas("rwlc", hours=-1)}, "account_key"),
        (lambda server, _: {"sas_token": server.account_sas("wc")}, "sas_token"),
        (
            lambda server, _: {"account_key": server.key, "azure_container": "nope"},
            "azure_container",
        ),
    ],
    ids=["wrong key", "expired SAS", "SAS without list", "no container"],
)
def test_a_refusal_names_the_option_and_nothing_is_made(
    server: AzuriteServer, bucket: Options, production: Site, login: Login, option: str
) -> None:
    site = with_options(production, **login(server, bucket))
    site.add("a.jpg")
    before = [found.name for found in server.service.list_containers()]
    result = site.migrate()
    assert (result.code, result.report["problems"][0]["what"].split(":")[0]) == (5, option)
    assert [found.name for found in server.service.list_containers()] == before


def test_a_sas_that_may_not_write_ends_the_run(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    site = replace(site, options={**site.options, **server.read_only(site.options)})
    site.add("a.jpg")
    result = site.migrate()
    assert (result.code, result.report["problems"][0]["what"].split(":")[0]) == (5, "sas_token")
    assert server.keys(bucket) == []


DOTS = (".hidden", ".well-known/x.txt", "file.", "in/.kept/x", "a\\b.jpg", "dot./x", "...two")


def test_dots_and_backslashes_are_stored_under_django_s_key(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    for name in DOTS:
        site.add(name, name.encode())
    assert is_verified(site.migrate("--sample=all"), len(DOTS))
    keys = {server.peek(bucket, key).data.decode(): key for key in server.keys(bucket)}
    assert keys == {
        ".hidden": "hidden",
        ".well-known/x.txt": "well-known/x.txt",
        "file.": "file",
        "in/.kept/x": "in/.kept/x",
        "a\\b.jpg": "a/b.jpg",
        "dot./x": "dot./x",
        "...two": "two",
    }
    site.add(".hidden", b"changed")  # the class alone would save it under another name
    assert is_verified(site.migrate(), len(DOTS))
    assert server.peek(bucket, "hidden").data == b"changed"
    assert len(server.keys(bucket)) == len(DOTS)


def test_names_that_share_a_key_are_refused_together(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    pairs = {(".x", "x"), ("y", "y."), ("a\\b", "a/b")}
    for pair in pairs:
        for name in pair:
            site.add(name, name.encode())
    result = site.migrate("--skip-refused")
    assert result.reasons().keys() == {name for pair in pairs for name in pair}
    assert server.keys(bucket) == []


def test_content_settings_are_those_of_a_save(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    parameters = {
        "content_disposition": 'attachment; filename="a b.bin"',
        "content_language": "de",
        "metadata": {"who": "me"},
    }
    options = {"cache_control": "max-age=60", "default_content_type": "x-site/unknown"}
    site = with_options(site, **options, object_parameters=parameters)
    names = ("a.jpg", "b.tar.gz", "c.css", "d.unknown", ".e.svgz")
    for name in names:
        site.add(name, gzip.compress(name.encode()))
    assert is_verified(site.migrate("--sample=all"), len(names))
    assert "metadata has no effect" in site.run("config").out
    twin = with_options(site, azure_container=server.new_bucket()["azure_container"])
    django_side.save(twin, names)
    tally = compare(server, stored(server, site.options), stored(server, twin.options))
    assert not tally.different
    assert tally.equal["cache_control"] == tally.equal["content_disposition"] == len(names)
    assert server.peek(bucket, "d.unknown").content_type == "x-site/unknown"


def put_without_md5(server: AzuriteServer, bucket: Options, key: str, data: bytes) -> None:
    """Store a blob as Django does beyond 64 MiB: in blocks, of which no checksum is kept."""
    from azure.storage.blob import BlobBlock

    blob = server.service.get_blob_client(bucket["azure_container"], key)
    blob.stage_block("MDE=", data)
    blob.commit_block_list([BlobBlock("MDE=")])
    assert not server.peek(bucket, key).etag


def test_a_blob_without_a_checksum_is_compared_by_its_bytes(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    packed = gzip.compress(b"packed")
    for name, data in {"same.jpg": b"12345", "other.jpg": b"12346", ".dot.gz": packed}.items():
        site.add(name, data)
    put_without_md5(server, bucket, "same.jpg", b"12345")
    put_without_md5(server, bucket, "other.jpg", b"54321")
    put_without_md5(server, bucket, "dot.gz", packed)
    result = site.migrate()
    assert result.states() == {"verified": 2, "conflict": 1}, result.out
    assert result.reasons().keys() == {"other.jpg"}
    assert result.report["evidence"]["bytes"]["files"] == 2


def test_parts_of_a_large_file_are_proven_by_one_checksum(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    site.add("big.bin", b"0123456789" * 1_000_003)
    result = site.migrate()
    assert is_verified(result, 1)
    assert result.report["evidence"].keys() == {"hash"}


def test_what_the_sdk_cannot_unpack_is_told_as_a_defect_of_reading(site: Site) -> None:
    site.add("real.gz", gzip.compress(b"packed"))
    site.add("fake.gz", b"not packed")
    result = site.migrate("--sample=all")
    assert is_verified(result, 2)
    assert "this one is no gzip file" in json.dumps(result.report)
    assert "fake.gz" in json.dumps(result.report)


def test_a_character_that_no_listing_can_hold_is_refused(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    for name in ("bell\x07.jpg", "\uffff.jpg", "del\x7f.jpg"):
        site.add(name)
    result = site.migrate("--skip-refused")
    assert result.states() == {"verified": 1, "refused": 2}
    assert server.keys(bucket) == ["del\x7f.jpg"]


def test_tls_is_trusted_by_the_site_s_own_authority(
    server: AzuriteServer, bucket: Options, site: Site
) -> None:
    site.add("a.jpg")
    with server.proxied(site.options, site.folder) as (options, proxy):
        assert urlsplit(proxy.url).scheme == "https"
        secure = replace(site, options=options)
        result = secure.migrate()
        assert (result.code, "not trusted" in result.out) == (5, True)
        secure = replace(secure, variables={"REQUESTS_CA_BUNDLE": str(proxy.authority)})
        assert is_verified(secure.migrate(), 1)
