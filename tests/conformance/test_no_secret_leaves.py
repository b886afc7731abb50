"""Promise 6: no secret in arguments, output, reports, ledgers, or what a killed run leaves."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import forked
from tests.conformance.observe import rclones, running, wait_for
from tests.servers import process
from tests.servers.base import Options, Server
from tests.servers.proxy import proxying
from tests.site import Site

SECRET_NAMES = re.compile("key|secret|token|pass|credential|connection_string|location")
FOR_RCLONE = re.compile(
    "RCLONE_.*|PATH|HOME|TMPDIR|LANG|LC_ALL|SSL_CERT_(FILE|DIR)|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
    "|SSH_AUTH_SOCK|GOGC|GOMEMLIMIT"
)
OTHER = "DJANGO_SECRET_KEY"


def planted(length: int = 16) -> str:
    """Return a secret that must be quoted in a URL and cannot occur by chance."""
    return f"{secrets.token_hex(length)[: length - 3]}+/="


def secrets_in(value: Any, *, marked: bool = False) -> Iterator[str]:
    """Yield the texts that stand under names of secrets, and the passwords of URLs."""
    match value:
        case Mapping():
            for name, item in value.items():
                yield from secrets_in(item, marked=marked or bool(SECRET_NAMES.search(name)))
        case str() if "://" in value:
            if password := urlsplit(value).password:
                yield unquote(password)
        case str() if value.startswith("-----BEGIN"):
            yield from value.splitlines()[1:-1]
        case str() if marked and len(value) > 7 and not Path(value).exists():
            yield value


def forms(secret: str) -> tuple[bytes, ...]:
    raw = secret.encode()
    texts = (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
    return (*(text.encode() for text in texts), base64.b64encode(raw).rstrip(b"="))


@dataclass(frozen=True, kw_only=True)
class Secretive(Site):
    """A site whose `.env` holds a secret that is none of the program's business."""

    other: str = field(default_factory=planted)

    def write_env(self) -> None:
        super().write_env()
        with (self.folder / ".env").open("a") as file:
            file.write(f"{OTHER}={self.other}\n")

    def environ(self, **extra: str) -> dict[str, str]:
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return super().environ(**{"TMPDIR": str(temporary), **extra})

    def leaked(self, *texts: bytes) -> set[str]:
        """Return which of its secrets stand in these texts, or in a file that was left."""
        left = [p for p in self.folder.rglob("*") if p.is_file() and p.name != ".env"]
        said = [*texts, *(path.read_bytes() for path in left)]
        known = {self.other, *secrets_in(self.options)}
        return {s for s in known for form in forms(s) if any(form in text for text in said)}

    def open_to_others(self) -> list[str]:
        found = [self.runs, *self.runs.rglob("*")]
        return [f"{p} {p.stat().st_mode:o}" for p in found if p.stat().st_mode & 0o77]


@pytest.fixture
def umask() -> Iterator[None]:
    """Have the umask of most systems, under which a careless file is readable by all."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@dataclass(kw_only=True)
class Seen:
    arguments: set[bytes] = field(default_factory=set)
    variables: dict[bytes, bytes] = field(default_factory=dict)


@contextmanager
def watching(site: Site) -> Iterator[Seen]:
    """Look at each rclone of the site, again and again, as another user of the machine could."""
    seen, done = Seen(), threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            for arguments, variables in rclones(site).values():
                seen.arguments.add(arguments)
                seen.variables.update(variables)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def say(site: Site, *args: str, written: bool = False) -> tuple[int, bytes]:
    """Run the program as a person does; return its exit code and all that it said."""
    if not written:
        site.write_env()
    done = subprocess.run(
        site.command(*args),
        cwd=site.folder,
        env=site.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def call(site: Site, *args: str, written: bool = False) -> tuple[int, bytes]:
    """Do the same in a process that shows no arguments and variables of its own in /proc."""
    if not written:
        site.write_env()
    module = site.storage_class.rpartition(".")[0]
    done = forked.run(
        site.command(*args), cwd=site.folder, env=site.environ(), module=module, timeout=120
    )
    return done.returncode, (done.stdout + done.stderr).encode()


def secretive(server: Server, options: Options, folder: Path) -> Secretive:
    site = Secretive.on(server, options, folder)
    site.add("photo.jpg", os.urandom(200_000))
    assert isinstance(site, Secretive)
    return site


def test_a_run_and_what_it_leaves_hold_no_secret(
    server: Server, bucket: Options, tmp_path: Path, umask: None
) -> None:
    site = secretive(server, bucket, tmp_path)
    with watching(site) as seen:
        code, said = say(site, "migrate", "--bwlimit=500k")
    as_json = site.run("verify")
    _, config = call(site, "config")
    assert (code, as_json.code) == (0, 0), said
    assert site.leaked(said, config, as_json.out.encode(), *seen.arguments) == set()
    assert site.open_to_others() == []
    assert seen.arguments
    names = {name.decode() for name in seen.variables}
    assert {name for name in names if not FOR_RCLONE.fullmatch(name)} == set()
    assert site.other.encode() not in seen.variables.values()


def test_a_killed_run_leaves_no_secret(
    server: Server, bucket: Options, tmp_path: Path, umask: None
) -> None:
    site = secretive(server, bucket, tmp_path)
    with running(site, "migrate", "--bwlimit=50k") as run:
        run.await_stage("copying")
        assert wait_for(lambda: rclones(site))
        run.kill()
    assert next(site.runs.glob("*/ledger.sqlite"))
    assert site.leaked() == set()
    assert site.open_to_others() == []


def pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form, none = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none).decode()


@pytest.mark.on("s3")
def test_secrets_that_only_some_sites_have_do_not_leave_either(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with proxying(bucket["endpoint_url"]) as proxy:
        login = f"user:{quote(planted(), safe='')}@"
        url = proxy.url.replace("//", f"//{login}")
        options = {
            **bucket,
            "proxies": {"http": url},
            "cloudfront_key_id": "K2JCJMDEHXQW5F",
            "cloudfront_key": pem(),
        }
        site = secretive(server, options, tmp_path)
        with watching(site) as seen:
            code, said = call(site, "migrate", "--bwlimit=500k")
        assert (code, proxy.errors) == (0, []), said
        assert proxy.writes
    _, config = call(site, "config")
    assert site.leaked(said, config, *seen.arguments) == set()


def wrong(bucket: Options) -> dict[str, tuple[Options, set[int]]]:
    """Return options that a server refuses, with the exit codes that may tell it."""
    customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": secrets.token_hex(16)}
    return {
        "wrong secret": ({**bucket, "secret_key": planted(40)}, {5}),
        "wrong key": ({**bucket, "access_key": secrets.token_hex(10).upper()}, {5}),
        "token": ({**bucket, "security_token": planted(60)}, {0, 5}),
        "own encryption": ({**bucket, "object_parameters": customer}, {0, 5, 6, 7}),
    }


@pytest.mark.on("s3")
@pytest.mark.parametrize("case", wrong({}))
def test_a_refusal_tells_no_secret(
    server: Server, bucket: Options, tmp_path: Path, case: str
) -> None:
    options, codes = wrong(bucket)[case]
    site = secretive(server, options, tmp_path)
    code, said = call(site, "migrate", "--sample=5%")
    assert site.leaked(said) == set()
    assert code in codes, said


@pytest.mark.on("s3")
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_a_server_says_of_a_secret_is_masked(
    server: Server, bucket: Options, tmp_path: Path, method: str
) -> None:
    with server.proxied(bucket) as (options, proxy):
        site = secretive(server, options, tmp_path)
        words = f"<Code>AccessDenied</Code><Message>{bucket['secret_key']}</Message>"
        proxy.answer(403, f"<Error>{words}</Error>".encode(), times=100, matching=f"^{method}")
        code, said = call(site, "migrate")
    assert code == 5
    logs = [log.read_bytes() for log in site.runs.glob("*/rclone.log.jsonl")]
    assert b"***" in b"".join((said, *logs))
    assert site.leaked(said) == set()


def unusable() -> dict[str, tuple[Options, set[int]]]:
    """Return options that fail before there is a server, with the exit codes that tell it."""
    nobody = process.free_address()
    through = f"http://user:{quote(planted(), safe='')}@{nobody}"
    keys = {"access_key": planted(), "secret_key": planted(20)}
    some = {**keys, "bucket_name": "media", "endpoint_url": f"http://{nobody}"}
    return {
        "nobody there": (some, {5, 6}),
        "no proxy there": ({**some, "proxies": {"http": through}}, {5, 6}),
        "misspelt option": ({**some, "secret_keyy": planted()}, {2}),
        "wrong type": ({**some, "secret_key": {"secret": planted()}}, {2, 5, 6}),
        "proxies as text": ({**some, "proxies": through}, {2}),
        "half a pair": ({**some, "cloudfront_key": planted(40)}, {2}),
        "bad key": ({**some, "cloudfront_key": planted(40), "cloudfront_key_id": "K"}, {2}),
        "not a bucket": ({**some, "bucket_name": "no/bucket"}, {2}),
    }


@pytest.mark.parametrize("case", unusable())
def test_an_error_tells_no_secret(tmp_path: Path, case: str) -> None:
    options, codes = unusable()[case]
    site = Secretive(folder=tmp_path, options=options)
    site.add("photo.jpg")
    code, said = call(site, "migrate")
    assert site.leaked(said) == set()
    assert code in codes, said


@pytest.mark.parametrize(
    "spoil", [('", "', '" "'), ('"}', '"'), ('{"', '{"x": nul, "'), ("'{", "{"), ("}'", "}' x")]
)
def test_broken_json_is_shown_without_its_secrets(tmp_path: Path, spoil: tuple[str, str]) -> None:
    options, _ = unusable()["nobody there"]
    site = Secretive(folder=tmp_path, options=options)
    site.add("photo.jpg")
    site.write_env()
    env = site.folder / ".env"
    env.write_text(env.read_text().replace(*spoil))
    code, said = call(site, "plan", written=True)
    assert code == 2, said
    assert site.leaked(said) == set()
