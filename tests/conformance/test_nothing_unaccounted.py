"""Promise 2: entries in the source = verified + excluded (by which rule) + refused (why)."""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.progress import printable
from orchestrator.template import load_all
from tests.conformance.observe import stored
from tests.servers.base import Options, Server
from tests.site import Result, Site

NOT_UTF8 = b"a/caf\xe9.jpg"
UNPRIVILEGED = "-dac_override,-dac_read_search"
REFUSED = {  # what stands in the reason of each entry that Django serves or serves badly
    "a/caf\\udce9.jpg": "not UTF-8",
    "alias/caf\\udce9.jpg": "not UTF-8",
    "escaping.jpg": "out of the source",
    "escaping": "out of the source",
    "locked.jpg": "permission denied",
    "locked": "permission denied",
}
HARMLESS = {  # how many entries have nothing to move, by the word in their reason
    "dangling": 1,
    "loop": 6,  # `self`; a/loop and a/b/loop, and those again under each alias of their folders
    "fifo": 1,
    "socket": 1,
}
FILES = {
    *("a/1.jpg", "a/b/2.jpg", "a/zero.txt", "hard.jpg", "x.tmp", "a/y.tmp", "file-alias.jpg"),
    *("a/\u00e9.txt", "a/e\u0301.txt"),
    *("alias/1.jpg", "alias/b/2.jpg", "alias/zero.txt", "alias/y.tmp"),
    *("alias/\u00e9.txt", "alias/e\u0301.txt", "c/up/2.jpg"),
}


class Tally(NamedTuple):
    entries: int
    files: int


class Unprivileged(Site):
    """Root reads everything; without these two rights it meets modes like any other user."""

    def command(self, *args: str) -> list[str]:
        command = super().command(*args)
        if os.geteuid():
            return command
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root without setpriv cannot meet an unreadable file")
        return [setpriv, f"--bounding-set={UNPRIVILEGED}", *command]


def build(site: Site) -> None:
    """Lay out everything that a folder of media can hold besides media."""
    for name in ("a/1.jpg", "a/b/2.jpg", "x.tmp", "a/y.tmp", "a/\u00e9.txt", "a/e\u0301.txt"):
        site.add(name, name.encode())
    site.add("a/zero.txt", b"")
    os.link(site.media / "a/1.jpg", site.media / "hard.jpg")
    site.add(NOT_UTF8)
    site.add("locked/inside.jpg").parent.chmod(0)
    site.add("locked.jpg").chmod(0)
    outside = site.folder / "outside"
    outside.mkdir()
    (outside / "o.jpg").write_bytes(b"o")
    (site.media / "c").mkdir()
    (site.media / "empty/inner").mkdir(parents=True)
    links = {
        "file-alias.jpg": "a/1.jpg",
        "alias": "a",
        "c/up": "../a/b",
        "a/loop": "..",
        "a/b/loop": ".",
        "dangling.jpg": "nowhere",
        "self": "self",
        "escaping.jpg": "../outside/o.jpg",
        "escaping": "../outside",
    }
    for name, target in links.items():
        (site.media / name).symlink_to(target)
    os.mkfifo(site.media / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(site.media / "socket"))


def tally(folder: Path, root: Path, above: tuple[str, ...] = ()) -> Tally:
    """Count what is in a folder as Django would name it: what cannot be entered is one entry."""
    real = os.path.realpath(folder)
    entries = files = 0
    for path in folder.iterdir():
        target = os.path.realpath(path)
        inside = target == str(root) or target.startswith(f"{root}/")
        enterable = path.is_dir() and inside and target not in {*above, real}
        if enterable and path.stat().st_mode & 0o777:
            below = tally(path, root, (*above, real))
            entries, files = entries + below.entries, files + below.files
        else:
            entries += 1
            readable = path.is_file() and inside and path.stat().st_mode & 0o777
            files += bool(readable and _is_utf8(path.name))
    return Tally(entries, files)


def _is_utf8(name: str) -> bool:
    return b"\xe9" not in os.fsencode(name).replace("\u00e9".encode(), b"")


def twins(server: Server) -> set[str]:
    """Return the files that would be one object in a store that folds names."""
    fold = next(t for t in load_all() if t.family == server.family).names.fold
    files = Counter(map(fold, FILES))
    return {name for name in FILES if files[fold(name)] > 1}


@pytest.fixture
def site(server: Server, bucket: Options, tmp_path: Path) -> Site:
    made = Unprivileged.on(server, bucket, tmp_path)
    build(made)
    return made


def test_every_entry_is_verified_excluded_or_refused(
    site: Site, server: Server, bucket: Options
) -> None:
    counted = tally(site.media, site.media.resolve())
    assert counted.files == len(FILES)
    stopped = site.migrate()
    _is_complete(stopped, counted)
    assert stopped.code == 7
    same = twins(server)
    assert stopped.states()["planned"] == counted.files - len(same)
    assert server.keys(bucket) == []
    assert {n: w for n, w in REFUSED.items() if w not in stopped.reasons()[n]} == {}
    assert stopped.reasons().keys() == {*REFUSED, *map(printable, same)}

    done = site.migrate("--skip-refused", "--exclude", "*.tmp")
    _is_complete(done, counted)
    assert (done.code, done.report["verdict"]) == (7, "incomplete")
    assert done.report["unaccounted"] == 0
    assert done.states()["verified"] == counted.files - 3 - len(same)
    assert done.states()["refused"] == len(REFUSED) + len(same)
    _counts_each_rule(done)
    held = stored(server, bucket)
    assert len(held) == done.states()["verified"]
    assert {data.data for data in held.values()} >= {b"a/1.jpg", b"a/b/2.jpg", b""}


def _is_complete(result: Result, counted: Tally) -> None:
    assert result.report["entries"]["files"] == counted.entries, result.err
    assert sum(result.states().values()) == counted.entries


def _counts_each_rule(result: Result) -> None:
    excluded = {rule: count["files"] for rule, count in result.report["excluded"].items()}
    assert excluded.pop("--exclude *.tmp") == 3
    for word, expected in HARMLESS.items():
        assert sum(n for rule, n in excluded.items() if word in rule) == expected
    assert sum(excluded.values()) == sum(HARMLESS.values())


def test_what_an_include_leaves_out_is_counted_too(site: Site) -> None:
    counted = tally(site.media, site.media.resolve())
    rules = ("--include=*.jpg", "--exclude=/locked*", "--exclude=esc*", "--exclude=caf*")
    result = site.plan(*rules)
    _is_complete(result, counted)
    assert result.code == 0
    assert result.states()["planned"] == sum(name.endswith(".jpg") for name in FILES)
    assert "refused" not in result.states()
    excluded = {rule: count["files"] for rule, count in result.report["excluded"].items()}
    assert sum(excluded.values()) == counted.entries - result.states()["planned"]
    others = sum(not name.endswith(".jpg") for name in FILES)
    assert excluded["no --include matches"] == others + len(("self", "fifo", "socket"))


def test_a_source_without_files_is_nothing_to_do(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    (site.media / "empty").mkdir(parents=True)
    result = site.migrate()
    assert (result.code, result.report["entries"]["files"]) == (8, 0)
    assert server.keys(bucket) == []
