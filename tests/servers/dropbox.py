"""Dropbox: a fake of its API, for the real SDK and the real rclone; a bucket is an account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

from tests.servers.base import Headers, Options, Server, Stored
from tests.servers.dropbox_account import Account
from tests.servers.fake_dropbox import Calls, FakeDropbox, running

FAMILY = "dropbox"
STORAGE_CLASS = "storages.backends.dropbox.DropboxStorage"


@dataclass(frozen=True, kw_only=True)
class DropboxServer(Server):
    fake: FakeDropbox = field(repr=False)

    def account(self, options: Options) -> Account:
        """Return the account that a refresh token or an access token lets in."""
        refresh = options.get("oauth2_refresh_token")
        if refresh:
            return self.fake.accounts[refresh]
        return self.fake.tokens[options["oauth2_access_token"]].account

    def new_bucket(self) -> Options:
        return account_options(self.fake.new_account())

    def keys(self, options: Options) -> list[str]:
        entries = self.account(options).entries.values()
        return sorted(entry.path[1:] for entry in entries if entry.data is not None)

    def peek(self, options: Options, key: str) -> Stored:
        path = f"/{key.removeprefix('/')}"
        found = next((e for e in self.account(options).entries.values() if e.path == path), None)
        if found is None or found.data is None:
            raise LookupError(key)
        return Stored(data=found.data, etag=found.metadata["content_hash"])

    def put(self, options: Options, key: str, data: bytes, **_: Unpack[Headers]) -> None:
        """Store bytes; Dropbox has no headers."""
        commit = {"path": f"/{key.removeprefix('/')}", "mode": "overwrite"}
        self.account(options).put(commit, data)

    def delete(self, options: Options, key: str) -> None:
        self.account(options).remove(f"/{key.removeprefix('/')}")

    def read_only(self, options: Options) -> Options:
        token = self.fake.new_token(self.account(options), writes=False)
        return {"oauth2_access_token": token}

    @contextmanager
    def proxied(
        self,
        options: Options,
        folder: Path | None = None,  # noqa: ARG002  # it speaks TLS always
    ) -> Iterator[tuple[Options, Calls]]:
        """Yield the calls of the account: the fake is a TLS proxy itself."""
        calls = Calls(self.fake.url, self.fake.authority)
        self.fake.calls[self.account(options).refresh_token] = calls
        yield options, calls


def account_options(account: Account) -> Options:
    return {
        "app_key": account.app_key,
        "app_secret": account.app_secret,
        "oauth2_refresh_token": account.refresh_token,
    }


@contextmanager
def start(folder: Path) -> Iterator[DropboxServer]:
    with running(folder) as fake:
        yield DropboxServer(
            name="dropbox",
            family=FAMILY,
            storage_class=STORAGE_CLASS,
            options=account_options(fake.new_account()),
            environ={
                "HTTPS_PROXY": fake.url,
                "REQUESTS_CA_BUNDLE": str(fake.authority),
                "SSL_CERT_FILE": str(fake.authority),
            },
            fake=fake,
        )
