"""Secrets of every kind of option, planted, and all the forms in which one could be seen."""

from __future__ import annotations

import base64
import html
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.proof.inputs import S3

AZURE = "storages.backends.azure_storage.AzureStorage"
DROPBOX = "storages.backends.dropbox.DropboxStorage"
SFTP = "storages.backends.sftpstorage.SFTPStorage"
FTP = "storages.backends.ftp.FTPStorage"
LIBCLOUD = "storages.backends.apache_libcloud.LibCloudStorage"
GCS = "storages.backends.gcloud.GoogleCloudStorage"
OTHERS = (
    *("DJANGO_SECRET_KEY", "EMAIL_HOST_PASSWORD", "SENTRY_KEY", "STRIPE_SECRET", "JWT_SIGNING_KEY"),
    *("AWS_UNUSED_TOKEN", "RCLONE_RC_PASS", "RCLONE_CONFIG_PASS", "GITHUB_TOKEN", "PGPASSWORD"),
)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """The two lines of a site whose options hold secrets, and what those are."""

    label: str
    storage: str
    options: Mapping[str, Any]
    secrets: tuple[str, ...]
    lines: tuple[str, ...] = ()
    others: Mapping[str, str] = field(default_factory=lambda: {n: new() for n in OTHERS})

    def env(self, options: Mapping[str, Any] | None = None) -> bytes:
        found = json.dumps(dict(self.options if options is None else options))
        text = found.replace("'", "\\u0027")
        lines = [f"MEDIA_STORAGE={self.storage}", f"MEDIA_STORAGE_OPTIONS='{text}'", *self.lines]
        return "\n".join([*lines, *(f"{k}={v}" for k, v in self.others.items()), ""]).encode()

    def all(self) -> tuple[str, ...]:
        return (*self.secrets, *self.others.values())


def new(length: int = 24) -> str:
    """Return a secret that must be quoted in a URL and cannot occur by chance."""
    return f"{secrets.token_hex(length // 2)}+/~="


def forms(secret: str) -> Iterator[bytes]:
    """Yield what a secret looks like in plain, quoted, escaped and encoded text."""
    raw = secret.encode()
    quoted = [quote(secret, safe=""), quote(secret), quote_plus(secret)]
    escaped = [json.dumps(secret)[1:-1], repr(secret)[1:-1], html.escape(secret)]
    yield from (re.sub("%..", lambda found: found[0].lower(), text).encode() for text in quoted)
    yield from (text.encode() for text in (secret, *quoted, *escaped))
    for text in (raw.hex(), raw.hex().upper()):
        yield text.encode()
    for before in range(3):  # as in base64 of user:password, whatever the user's length
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        core = base64.b64encode(bytes(before) + raw)[first:last]
        yield from (core, core.translate(bytes.maketrans(b"+/", b"-_")))


def leaked(secret: str, texts: list[bytes]) -> bool:
    return any(form in text for form in {*forms(secret)} for text in texts)


def login(address: str) -> tuple[str, str]:
    secret = new()
    return secret, f"http://user:{quote(secret, safe='')}@{address}"


def rsa_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, none = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none).decode()


def s3(address: str, **more: Any) -> Planted:
    keys = {name: new() for name in ("access_key", "secret_key", "security_token")}
    customer, key = secrets.token_hex(16), rsa_key()
    parameters = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": customer}
    options: dict[str, Any] = {**keys, "bucket_name": "family", "endpoint_url": f"http://{address}"}
    options |= {"cloudfront_key_id": "K2JCJMDEHXQW5F", "cloudfront_key": key}
    options |= {"object_parameters": parameters, **more}
    lines = key.splitlines()[1:-1]
    return Planted(
        label="S3",
        storage=S3,
        options=options,
        secrets=(*keys.values(), customer, *lines[:3]),
    )


def s3_proxy(address: str) -> Planted:
    keys: dict[str, Any] = {name: new() for name in ("access_key", "secret_key")}
    secret, url = login(address)
    options: dict[str, Any] = {**keys, "bucket_name": "family", "endpoint_url": f"http://{address}"}
    options |= {"proxies": {"http": url, "https": url}}
    return Planted(label="S3, proxy", storage=S3, options=options, secrets=(*keys.values(), secret))


def s3_environment(address: str) -> Planted:
    """Plant the keys beside the options, where boto3 takes them from."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    keys = {name: new() for name in names}
    options = {"bucket_name": "family", "endpoint_url": f"http://{address}"}
    return Planted(
        label="S3, environment",
        storage=S3,
        options=options,
        secrets=tuple(keys.values()),
        lines=tuple(f"{k}={v}" for k, v in keys.items()),
    )


def azure(_: str) -> Iterator[Planted]:
    key, signature = base64.b64encode(secrets.token_bytes(32)).decode(), new()
    sas = f"sv=2024-11-04&ss=b&srt=co&sp=rwdlc&se=2030-01-01&sig={quote(signature, safe='')}"
    account = {"account_name": "family", "azure_container": "media"}
    plain = f"DefaultEndpointsProtocol=http;AccountName=family;AccountKey={key}"
    where = "BlobEndpoint=http://127.0.0.1:9/family"
    known: dict[str, tuple[dict[str, Any], str]] = {
        "account_key": ({**account, "account_key": key}, key),
        "sas_token": ({**account, "sas_token": sas}, signature),
        "connection_string": (
            {"azure_container": "media", "connection_string": f"{plain};{where}"},
            key,
        ),
        "connection_string with SAS": (
            {
                "azure_container": "media",
                "connection_string": f"{where};SharedAccessSignature={sas}",
            },
            signature,
        ),
    }
    for name, (options, secret) in known.items():
        yield Planted(label=f"Azure, {name}", storage=AZURE, options=options, secrets=(secret,))


def dropbox(address: str) -> Iterator[Planted]:
    app = {"app_key": new(), "app_secret": new()}
    for name in ("oauth2_refresh_token", "oauth2_access_token"):
        options = {**app, name: new(60), "root_path": "/media"}
        secret, url = login(address)
        yield Planted(
            label=f"Dropbox, {name}",
            storage=DROPBOX,
            options=options,
            secrets=(*app.values(), options[name], secret),
            lines=(f"HTTPS_PROXY={url}",),
        )


def others(address: str, folder: Path) -> Iterator[Planted]:
    host, port = address.split(":")
    password, phrase, key = new(), new(), rsa_key()
    params = {"username": "site", "password": password, "passphrase": phrase, "port": int(port)}
    file = folder / "id_rsa"
    file.write_text(key)
    params |= {"key_filename": str(file), "timeout": 3}
    yield Planted(
        label="SFTP",
        storage=SFTP,
        options={"host": host, "root_path": "/srv", "params": params},
        secrets=(password, phrase, *key.splitlines()[1:4]),
    )
    password = new()
    location = f"ftp://site:{quote(password, safe='')}@{address}/media"
    yield Planted(label="FTP", storage=FTP, options={"location": location}, secrets=(password,))
    driver = {"type": "libcloud.storage.types.Provider.S3", "user": new(), "key": new()}
    text = json.dumps({"default": {**driver, "bucket": "family"}})
    yield Planted(
        label="libcloud",
        storage=LIBCLOUD,
        options={"provider_name": "default"},
        secrets=(driver["key"],),
        lines=(f"LIBCLOUD_PROVIDERS='{text}'", f"HTTPS_PROXY={address}"),
    )
    account = folder / "account.json"
    found = {"type": "service_account", "private_key": key, "private_key_id": new()}
    found |= {"client_email": "a@b.invalid", "token_uri": f"http://{address}/token"}
    account.write_text(json.dumps(found))
    yield Planted(
        label="Google",
        storage=GCS,
        options={"bucket_name": "family"},
        secrets=(found["private_key_id"], *key.splitlines()[1:4]),
        lines=(f"GOOGLE_APPLICATION_CREDENTIALS={account}",),
    )


def everything(address: str, folder: Path) -> list[Planted]:
    """Return a site for each kind of option that holds a secret."""
    some = (s3(address), s3_proxy(address), s3_environment(address))
    return [*some, *azure(address), *dropbox(address), *others(address, folder)]
