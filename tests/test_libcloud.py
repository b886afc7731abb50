"""Libcloud: its providers, its settings, its secrets, and what its class cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import pytest
from libcloud.storage.types import Provider

from orchestrator.envfile import Settings
from orchestrator.errors import ConfigurationError
from orchestrator.remote import Remote, translate
from orchestrator.storage import Target, _setting, load
from tests import django_side
from tests.servers.base import Options, Server
from tests.servers.libcloud_settings import SETTING, STORAGE_CLASS, LibcloudServer
from tests.site import Result, Site

MIB = 1 << 20
KEY = "c2VjcmV0LWtleS1vZi1saWJjbG91ZA=="
SERVICE_ACCOUNT = "media@project.iam.gserviceaccount.com"
CONSTANTS = sorted(name for name in vars(Provider) if name.isupper())
REFUSED = {
    **dict.fromkeys(("MINIO", "S3_RGW"), "cannot be given one"),
    **dict.fromkeys(("NIMBUS", "NINEFOLD"), "has ended"),
    **dict.fromkeys(("OPENSTACK_SWIFT", "CLOUDFILES_SWIFT"), "goes to Rackspace"),
    **dict.fromkeys(
        ("CLOUDFILES", "CLOUDFILES_US", "CLOUDFILES_UK", "KTUCLOUD"), "nobody has proven"
    ),
    "DUMMY": "in memory",
    "S3_EU_WEST3": '"region": "eu-west-3"',
    "ALIYUN_OSS": "add the region",
    "GOOGLE_STORAGE": "waits for a login in a browser",
}


def entry(provider: str, folder: Path, **more: str) -> dict[str, str]:
    user = str(folder) if provider == "LOCAL" else "somebody"
    kind = f"libcloud.storage.types.Provider.{provider}"
    return {"type": kind, "user": user, "key": KEY, "bucket": "media", **more}


def resolve(providers: Mapping[str, object], **options: str) -> tuple[Target, Remote]:
    django_side.configure({SETTING: json.dumps(providers)})
    target = load(
        Settings(
            storage_class=STORAGE_CLASS,
            options=MappingProxyType(options),
            variables={},
            disputed={},
            source=None,
        )
    )
    return target, translate(target)


@pytest.mark.parametrize("provider", CONSTANTS)
def test_each_provider_is_translated_with_the_drivers_host_or_refused(
    provider: str, tmp_path: Path
) -> None:
    providers = {"default": entry(provider, tmp_path)}
    if provider in REFUSED:
        with pytest.raises(ConfigurationError, match=REFUSED[provider]):
            resolve(providers)
        return
    target, remote = resolve(providers)
    assert remote.config["type"] in {"s3", "azureblob", "b2", "local"}
    if "endpoint" in remote.config:
        assert urlsplit(remote.config["endpoint"]).netloc == target.storage.driver.connection.host
    if remote.config["type"] == "s3":
        assert remote.config.get("region") == target.storage.driver.region
    assert KEY not in json.dumps([remote.masked(), remote.path, remote.flags, remote.notes])
    assert (KEY in remote.config.values()) == (provider != "LOCAL")


@pytest.mark.parametrize(
    ("provider", "more", "config"),
    [
        ("S3_EU_WEST", {"region": "us-east-2"}, {"endpoint": "https://s3-us-east-2.amazonaws.com"}),
        ("S3", {"region": "eu-west-3"}, {"region": "eu-west-3", "force_path_style": "true"}),
        (
            "ALIYUN_OSS",
            {"region": "cn-hangzhou"},
            {"endpoint": "https://oss-cn-hangzhou.aliyuncs.com"},
        ),
        ("GOOGLE_STORAGE", {"user": "GOOG1EXAMPLE"}, {"provider": "GCS", "type": "s3"}),
        ("AZURE_BLOBS", {}, {"account": "somebody", "no_check_container": "true"}),
    ],
)
def test_what_the_dictionary_says_reaches_the_remote(
    provider: str, more: dict[str, str], config: dict[str, str], tmp_path: Path
) -> None:
    _, remote = resolve({"default": entry(provider, tmp_path, **more)})
    assert config.items() <= remote.config.items()


@pytest.mark.parametrize(
    "user", ["somebody", "1234-abcd.apps.googleusercontent.com", "a@gmail.com"]
)
def test_a_google_user_who_would_be_asked_to_log_in_is_refused_at_once(
    user: str, tmp_path: Path
) -> None:
    google = entry("GOOGLE_STORAGE", tmp_path, user=user)
    site = Site(
        folder=tmp_path,
        options={},
        storage_class=STORAGE_CLASS,
        variables={SETTING: json.dumps({"default": google})},
    )
    result = site.plan()
    assert (result.code, "login in a browser" in said(result)) == (2, True), said(result)


@pytest.mark.parametrize("key", ["-----BEGIN PRIVATE KEY-----\nx", "/etc/key.pem"])
def test_a_service_account_needs_its_key_as_json(key: str, tmp_path: Path) -> None:
    google = entry("GOOGLE_STORAGE", tmp_path, user=SERVICE_ACCOUNT, key=key)
    with pytest.raises(ConfigurationError, match="needs the JSON form"):
        resolve({"default": google})


@pytest.mark.parametrize(
    ("providers", "options", "text"),
    [
        ({}, {}, "LIBCLOUD_PROVIDERS has no dictionary 'default'"),
        ({"default": {}}, {"provider_name": "other"}, "has no dictionary 'other'"),
        ({"default": "S3"}, {}, "has no dictionary 'default'"),
        ({"default": {"host": "s3.example.org"}}, {}, "does not read 'host'"),
        ({"default": {"type": "libcloud.storage.types.Provider.S4"}}, {}, "has no attribute 'S4'"),
        ({"default": {"region": "mars-1"}}, {}, "Invalid or unsupported region"),
    ],
)
def test_settings_that_the_class_would_trip_over_are_explained(
    providers: dict[str, object], options: dict[str, str], text: str, tmp_path: Path
) -> None:
    full = {
        name: {**entry("S3", tmp_path), **value} if isinstance(value, dict) else value
        for name, value in providers.items()
    }
    with pytest.raises(ConfigurationError) as refused:
        resolve(full, **options)
    assert text in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000])
def test_settings_that_python_does_not_read_are_no_bug_of_ours(value: str) -> None:
    with pytest.raises(ConfigurationError, match="a number that is too long, or is nested"):
        _setting("LIBCLOUD_PROVIDERS", "json", value)


def said(result: Result) -> str:
    events = [json.loads(line) for line in result.out.splitlines()]
    return " ".join(str(event.get("problems", "")) for event in events) + result.err


@dataclass(frozen=True, kw_only=True)
class InEnvFile(Site):
    """Its settings stand in `.env`, not in the environment."""

    settings: Mapping[str, str]

    def write_env(self) -> None:
        super().write_env()
        with (self.folder / ".env").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in self.settings.items())


@pytest.mark.on("libcloud_local")
def test_the_settings_are_read_from_the_env_file(
    server: LibcloudServer, bucket: Options, tmp_path: Path
) -> None:
    chosen = server.providers()[bucket["provider_name"]]
    settings = {SETTING: json.dumps({"albums": chosen}), "DEFAULT_LIBCLOUD_PROVIDER": "albums"}
    site = InEnvFile(folder=tmp_path, options={}, storage_class=STORAGE_CLASS, settings=settings)
    site.add("a.jpg", b"a")
    assert site.migrate().code == 0
    assert server.peek(bucket, "a.jpg").data == b"a"


LIMITS = {"libcloud_s3": 5 * MIB, "libcloud_azure": 4 * MIB}


@pytest.mark.on("libcloud")
def test_what_the_site_cannot_read_is_told_before_and_proven_all_the_same(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    limit = LIMITS.get(server.name)
    site = Site.on(server, bucket, tmp_path)
    site.add("empty.txt", b"")
    site.add("fits.bin", b"x" * (limit or MIB))
    site.add("large.bin", b"x" * ((limit or MIB) + 1))
    unreadable = {"empty.txt", *(["large.bin"] if limit else [])}
    planned = site.plan()
    assert {item["name"] for item in planned.report["header_notes"]} == unreadable
    assert sum("will not be able to read 1 of" in n for n in planned.report["notes"]) == len(
        unreadable
    )

    done = site.migrate("--sample", "all")
    assert (done.code, done.states()) == (0, {"verified": 3}), done.reasons()
    assert done.report["sample"]["unreadable"] == len(unreadable)
    assert f"{len(unreadable)} of them it cannot read" in done.report["statement"]
    notes = {item["name"]: item["reason"] for item in done.report["header_notes"]}
    assert notes.keys() == unreadable
    assert all(note.startswith("defect of the class") for note in notes.values())


@pytest.mark.on("libcloud_s3", "libcloud_azure")
def test_a_byte_that_the_class_never_reads_is_still_seen(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    data = b"x" * (6 * MIB)
    site.add("large.bin", data)
    assert site.migrate().code == 0
    server.put(bucket, "large.bin", data[:-1] + b"y")
    read = site.run("verify", "--sample", "all")
    assert (read.code, set(read.reasons())) == (7, {"large.bin"})
    assert site.run("check").reasons().keys() == {"large.bin"}


def _wrong_key(chosen: Mapping[str, str]) -> dict[str, str]:
    return {**chosen, "key": "d3JvbmcgYnV0IGJhc2U2NA=="}


def _half_a_key(chosen: Mapping[str, str]) -> dict[str, str]:
    return {**chosen, "key": "not-base64-at-all"}


def _no_bucket(chosen: Mapping[str, str]) -> dict[str, str]:
    return {**chosen, "bucket": "there-is-none"}


@pytest.mark.parametrize(
    "wrong",
    [
        (_wrong_key, 5, "refuses user and key"),
        (_half_a_key, 2, "base64"),
        (_no_bucket, 5, "there is no such bucket"),
    ],
)
@pytest.mark.on("libcloud_azure")
def test_a_login_or_a_bucket_that_is_wrong_is_explained_without_the_key(
    server: LibcloudServer,
    bucket: Options,
    tmp_path: Path,
    wrong: tuple[Callable[[Mapping[str, str]], dict[str, str]], int, str],
) -> None:
    spoilt, code, text = wrong
    chosen = spoilt(server.providers()[bucket["provider_name"]])
    variables = {**server.environ, SETTING: json.dumps({"default": chosen})}
    site = Site(folder=tmp_path, options={}, storage_class=STORAGE_CLASS, variables=variables)
    site.add("a.jpg", b"a")
    result = site.migrate()
    assert (result.code, text in said(result)) == (code, True), said(result)
    left = [path.read_bytes() for path in site.runs.rglob("*") if path.is_file()]
    assert chosen["key"].encode() not in b"".join([*left, result.out.encode(), result.err.encode()])


@pytest.mark.on("libcloud")
def test_the_key_is_nowhere_in_what_a_run_leaves(
    server: LibcloudServer, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    site.add("a.jpg", b"a")
    result = site.migrate()
    assert result.code == 0
    left = b"".join(path.read_bytes() for path in site.runs.rglob("*") if path.is_file())
    key = server.providers()[bucket["provider_name"]]["key"]
    assert key not in left.decode(errors="replace") + result.out + result.err
    shown = site.run("config")
    assert key not in shown.out
    assert ("***" in shown.out) == (server.name != "libcloud_local")


@pytest.mark.on("rclone_s3")
def test_a_subclass_that_chooses_its_own_keys_is_asked_for_each(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    cls = "tests.site_storage.ByFolder"
    site = replace(Site.on(server, bucket, tmp_path), storage_class=cls)
    twin = replace(site, options=server.new_bucket())
    names = [f"{letter}/photo {letter}.jpg" for letter in "abcdefgh"]
    for name in names:
        site.add(name, name.encode())
    done = site.migrate("--sample", "all")
    assert (done.code, done.states()) == (0, {"verified": len(names)}), done.reasons()
    django_side.save(twin, names)
    assert server.keys(site.options) == server.keys(twin.options)
    assert len({key.partition("/")[0] for key in server.keys(bucket)}) > 1
    again = site.migrate()
    assert again.report["changes"].keys() == {"same"}
    server.delete(bucket, server.keys(bucket)[0])
    assert site.run("check").states() == {"verified": len(names) - 1, "failed": 1}


def test_a_class_of_no_known_family_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    dotted = "django.core.files.storage.InMemoryStorage"
    result = Site(folder=tmp_path, options={}, storage_class=dotted).plan()
    assert (result.code, "are not supported" in said(result)) == (2, True)
