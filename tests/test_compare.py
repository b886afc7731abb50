"""Reading an object beside its file: every difference counts, and a file that changed is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from orchestrator.compare import MOVED, Seen, by_class
from orchestrator.digest import BLOCK
from orchestrator.envfile import Settings
from orchestrator.inventory import Rules, walk
from orchestrator.job import Route, Wishes
from orchestrator.job import route as make_route
from orchestrator.ledger import Ledger, Row
from orchestrator.plan import address
from orchestrator.storage import load
from tests.servers.base import Options, Server
from tests.servers.openssh import SshServer
from tests.servers.relay import first
from tests.servers.trouble import resetting

DIFFERS = "the object's content differs"
BYTES = bytes(range(256)) * (2 * BLOCK // 256) + b"end"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Route, Row]]:
    """Yield the way from one folder to another, and the one file that is in both."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "a").write_bytes(BYTES)
    folder_class = "django.core.files.storage.FileSystemStorage"
    with placed(folder_class, {"location": str(store)}, tmp_path) as found:
        yield found


@contextmanager
def placed(class_path: str, options: Options, folder: Path) -> Iterator[tuple[Route, Row]]:
    source, work = folder / "media", folder / "run" / "work"
    source.mkdir()
    (source / "a").write_bytes(BYTES)
    work.mkdir(parents=True)
    settings = Settings(
        storage_class=class_path, options=options, variables={}, disputed={}, source=None
    )
    route = make_route(load(settings), source, work, Wishes(), lambda _: None)
    ledger = Ledger(folder / "ledger.sqlite")
    ledger.walk(walk(source, Rules()))
    address(route.target, ledger)
    yield route, next(iter(ledger.rows()))
    route.close()
    ledger.close()


def flipped(place: int) -> bytes:
    changed = bytearray(BYTES)
    changed[place] ^= 1
    return bytes(changed)


def test_equal_bytes_are_equal_and_are_handed_on(place: tuple[Route, Row], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with copy.open("wb") as body:
        assert by_class(*place, Seen(body=body)) == ""
    assert copy.read_bytes() == BYTES


@pytest.mark.parametrize(
    "stored",
    [
        *map(flipped, (0, BLOCK - 1, BLOCK, len(BYTES) - 1)),
        BYTES[:-1],
        BYTES[:BLOCK],
        b"",
        BYTES + b"\0",
        BYTES + bytes(BLOCK),
    ],
    ids=["first", "before", "behind", "last", "short", "block", "empty", "longer", "much longer"],
)
def test_every_difference_counts(place: tuple[Route, Row], tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "store/a").write_bytes(stored)
    assert by_class(*place, Seen()) == DIFFERS


@pytest.mark.parametrize("now", [None, flipped(0), BYTES + b"more", b""])
def test_a_file_that_changed_since_it_was_listed_is_no_fault_of_the_store(
    place: tuple[Route, Row], tmp_path: Path, now: bytes | None
) -> None:
    file = tmp_path / "media/a"
    file.unlink()
    if now is not None:
        file.write_bytes(now)
    assert by_class(*place, Seen()) == MOVED


def test_an_object_that_cannot_be_read_is_a_fault(place: tuple[Route, Row], tmp_path: Path) -> None:
    (tmp_path / "store/a").unlink()
    assert by_class(*place, Seen()).startswith("reading it failed: FileNotFoundError")


@pytest.mark.on("sshd")
@pytest.mark.parametrize("behind", [500, len(BYTES)], ids=["handshake", "body"])
def test_a_connection_that_breaks_once_is_no_fault_of_the_object(
    server: Server, bucket: Options, tmp_path: Path, behind: int
) -> None:
    assert isinstance(server, SshServer)
    server.put(bucket, "a", BYTES)
    body = BytesIO()
    with (
        server.relayed(bucket) as (options, relay),
        placed(server.storage_class, options, tmp_path) as place,
    ):
        relay.down = first(1, partial(resetting, behind))
        assert by_class(*place, Seen(body=body)) == ""
        assert body.getvalue() == BYTES
        relay.cut()
        relay.refuses = True
        assert by_class(*place, Seen()).startswith("reading it failed")
