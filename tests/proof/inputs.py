"""Hostile input of each kind, drawn from a seed: variables, options, names, templates, ledgers."""
# ruff: noqa: RUF001  # look-alikes are what it is about

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from orchestrator.storage import supported
from tests.conformance.corpus import HOSTILE
from tests.proof.world import FOLDER

S3 = "storages.backends.s3.S3Storage"
CANARY = "neighbour/canary"
NAMES = (
    *("MEDIA_STORAGE", "MEDIA_STORAGE_OPTIONS", "PATH", "LD_PRELOAD", "PYTHONPATH", "HOME"),
    *("RCLONE_CONFIG", "RCLONE_CONFIG_MEDIA_TYPE", "RCLONE_RC", "DJANGO_SETTINGS_MODULE"),
    *("AWS_PROFILE", "AWS_ENDPOINT_URL", "HTTPS_PROXY", "LIBCLOUD_PROVIDERS", "TMPDIR", "é", ""),
)
TEXTS = (
    *("", " ", "\x00", "a\x00b", "a\nb", "a\r\nX-Evil: 1", "-rf", "--config=/etc/passwd", "--rc"),
    *("a:b,c=d:", ":local:/etc", "{}", "{prefix}", "{0.__class__}", "${HOME}", "%(HOME)s", "%s%n"),
    *(f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY}", f"| touch {CANARY}"),
    *("../../etc", "/", "//", ".", "..", "\\", "\\\\server\\x", "\u202egpj", "\ud800", "‛␀", "é"),
    *("\x1b[2J", "\x9b31m", "[media]\ntype = local", "=", "#", "'", '"', "__import__('os')"),
    *("http://", "http://[", "http://user:pa ss@[::1", "file:///etc/passwd", "ftp://\n", "data:,x"),
    *("x" * 5000, "é" * 200_000),
)
VALUES: tuple[Any, ...] = (
    *TEXTS,
    *(0, -1, 10**30, 1.5, -0.0, True, False, None, [], {}, ["a"], [["\n"]], {"a": "b"}),
    *({"": ""}, {"\n": "\n"}, {"a\x00": 1}, [None], {"type": "local"}),
)


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def env_files() -> st.SearchStrategy[bytes]:
    """Draw a file of lines, of which some name a class and some are its options; or any bytes."""
    text = st.one_of(st.sampled_from(TEXTS[:40]), st.text(max_size=30))
    value = st.one_of(
        text, st.sampled_from([FOLDER, S3, *supported(), "os.system", "this.s", "a..b", "."])
    )
    scalar = st.one_of(text, st.integers(), st.floats(), st.booleans(), st.none())
    tree = st.recursive(scalar, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
    known = sorted({name for template in supported().values() for name in template.options})
    options = st.dictionaries(st.one_of(st.sampled_from(known), text), tree, max_size=4)
    quoted = options.map(lambda found: "'" + json.dumps(found).replace("'", "\\u0027") + "'")
    line = st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "", "", "export ", "#", " ", "\ufeff"]),
        st.sampled_from(NAMES),
        st.sampled_from(["=", "=", "=", " = ", ":", ""]),
        st.one_of(value, quoted, st.just("'" + nested(3000) + "'"), st.just("'unclosed")),
    )
    lines = st.lists(line, max_size=6)
    likely = st.builds(
        lambda storage, found, more: [
            f"MEDIA_STORAGE={storage}",
            *more,
            f"MEDIA_STORAGE_OPTIONS={found}",
        ],
        st.sampled_from([FOLDER, S3]),
        quoted,
        lines,
    )
    files = st.one_of(lines, likely).map(
        lambda found: "\n".join(found).encode("utf-8", "surrogatepass")
    )
    return st.one_of(files, files, st.binary(max_size=200))


def bases(address: str) -> dict[str, tuple[dict[str, Any], str]]:
    """Return of each class good options, which name a loopback address where nobody listens."""
    host, port = address.split(":")
    keys = {"access_key": "KEY", "secret_key": "SECRET", "bucket_name": "family"}
    azure = {"account_name": "family", "account_key": "c2VjcmV0", "azure_container": "media"}
    dropbox = {"app_key": "k", "app_secret": "s", "oauth2_refresh_token": "t", "root_path": "/m"}
    params = {"username": "site", "password": "secret", "port": int(port), "timeout": 3}
    driver = {"user": "KEY", "key": "SECRET", "bucket": "family", "secure": False}
    driver |= {"type": "libcloud.storage.types.Provider.S3", "host": host, "port": int(port)}
    return {
        S3: ({**keys, "endpoint_url": f"http://{address}"}, ""),
        "storages.backends.azure_storage.AzureStorage": (
            {**azure, "endpoint_suffix": "invalid"},
            "",
        ),
        "storages.backends.dropbox.DropboxStorage": (dropbox, f"HTTPS_PROXY=http://{address}"),
        "storages.backends.sftpstorage.SFTPStorage": (
            {"host": host, "root_path": "/srv/media", "params": params},
            "",
        ),
        "storages.backends.ftp.FTPStorage": (
            {"location": f"ftp://site:password@{address}/media", "encoding": "utf-8"},
            "",
        ),
        "storages.backends.apache_libcloud.LibCloudStorage": (
            {"provider_name": "default"},
            f"LIBCLOUD_PROVIDERS='{json.dumps({'default': driver})}'",
        ),
        "storages.backends.gcloud.GoogleCloudStorage": (
            {"bucket_name": "family"},
            f"STORAGE_EMULATOR_HOST=http://{address}",
        ),
    }


def names(random: Random, number: int) -> Iterator[bytes]:
    """Draw names of every byte but / and NUL, long ones, deep ones and those of the corpus."""
    corpus = [os.fsencode(name) for names in HOSTILE.values() for name in names]
    alphabet = [bytes([b]) for b in range(1, 256) if b != ord("/")]
    pieces = [
        *alphabet,
        *(t.encode() for t in ("é", "‛", "␀", "／", "．", "\u202e", "\x1b[2J", "-")),
    ]
    for _ in range(number):
        kind = random.randrange(6)
        if kind == 0:
            yield random.choice(corpus)
        elif kind == 1:
            yield random.choice([b"-", b"--", b"- ", b"@"]) + _joined(random, pieces, 20)
        elif kind == 2:
            yield _joined(random, alphabet, 255)[:255]
        elif kind == 3:
            yield b"/".join(_joined(random, pieces, 3) for _ in range(random.randrange(2, 200)))
        else:
            yield _joined(random, pieces, 12)


def _joined(random: Random, pieces: list[bytes], most: int) -> bytes:
    found = b"".join(random.choices(pieces, k=random.randrange(1, most + 1)))
    return b"x" if found in (b".", b"..") else found


def lay(media: Path, name: bytes, data: bytes) -> bool:
    """Make a file where the system allows its name, folder by folder, so that it may be long."""
    fd = os.open(media, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *folders, last = name.split(b"/")
        for folder in folders:
            fd = _entered(fd, folder)
        file = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
        os.write(file, data)
        os.close(file)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def _entered(fd: int, folder: bytes) -> int:
    """Return the descriptor of a folder that is made if need be, in the place of its parent's."""
    with suppress(FileExistsError):
        os.mkdir(folder, dir_fd=fd)
    deeper = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    os.close(fd)
    return deeper


LONG = (
    b"/".join([b"x" * 250] * 20),  # 5,000 bytes: the system opens no such path at once
    b"/".join([b"d"] * 200) + b"/photo.jpg",
    "\u202e".encode() * 85,
    b"\xff" * 255,
)
BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)),
    ]
)
YAML = {
    "python object": "x: !!python/object/apply:os.system ['touch CANARY']",
    "python name": "x: !!python/name:os.system",
    "alias bomb": BOMB,
    "alias bomb as a value": BOMB + "\nroot: *a11\nconfig: {x: *a11}\noptions: {y: {ignore: *a11}}",
    "alias of itself": "root: &r [*r]\nconfig: &c {x: *c}",
    "huge": "x: " + "y" * 5_000_000,
    "deep": "[" * 5000,
    "deep and closed": "x: " + "[" * 400 + "]" * 400,
    "empty": "",
    "a list": "- a\n- b",
    "a text": "hello",
    "not UTF-8": "x: \udcff\udcfe",
    "NUL": "x: \x00",
    "two documents": "a: 1\n---\nb: 2",
    "tab": "a:\n\t- b",
    "a date": "family: 2020-01-01",
    "merge": "<<: {a: b}\n<<: [1]",
}
SWAPS = ("null", "0", "-1", "[]", "{}", "[a]", "{a: b}", "'('", "'{x.__class__}'", "true", "1e999")


def spoilt(random: Random, text: str) -> str:
    """Spoil a good template in one place: a line less, a value of another kind, another indent."""
    lines = text.split("\n")
    place = random.choice(
        [n for n, line in enumerate(lines) if line.strip() and line.strip()[0] != "#"]
    )
    line = lines[place]
    match random.randrange(4):
        case 0:
            del lines[place]
        case 1:
            lines[place] = re.sub(r":.*", lambda _: ": " + random.choice(SWAPS), line, count=1)
        case 2:
            lines[place] = " " + line
        case _:
            where = random.randrange(len(line))
            lines[place] = line[:where] + chr(random.randrange(1, 0x300)) + line[where + 1 :]
    return "\n".join(lines)
