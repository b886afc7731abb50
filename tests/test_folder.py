"""A folder as the target: modes, room, nesting, links, and the options that JSON gets wrong."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clients.filesystem import Folder
from tests import django_side
from tests.conformance.observe import tree
from tests.servers.base import Options, Server
from tests.site import Result, Site

pytestmark = pytest.mark.on("folder")
NAMES = ("a.jpg", "x/b.jpg", "x/y/c.jpg", "x/line\nend.jpg")


@pytest.fixture
def site(server: Server, bucket: Options, tmp_path: Path) -> Site:
    made = Site.on(server, bucket, tmp_path)
    for name in NAMES:
        made.add(name, name.encode())
    return made


@contextmanager
def umask(mode: int) -> Iterator[None]:
    before = os.umask(mode)
    try:
        yield
    finally:
        os.umask(before)


def target(site: Site) -> Path:
    return Path(site.options["location"])


def modes(folder: Path) -> dict[str, str]:
    """Return mode and group of all that is in a folder."""
    found = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*")}
    return {name: f"{status.st_mode:o} {status.st_gid}" for name, status in found.items()}


def said(result: Result) -> str:
    events = [json.loads(line) for line in result.out.splitlines()]
    return " ".join(str(event.get("problems", "")) for event in events) + result.err


@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"file_permissions_mode": 0o640, "directory_permissions_mode": 0o750},
        {"file_permissions_mode": 0o664, "directory_permissions_mode": 0o2775},
    ],
)
def test_modes_and_groups_are_those_of_a_save(
    site: Site, server: Server, options: Options, mask: int
) -> None:
    site = replace(site, options={**site.options, **options})
    twin = replace(site, options={**site.options, **server.new_bucket()})
    for folder in (target(site), target(twin)):
        if not os.geteuid():
            os.chown(folder, -1, 12345)
    with umask(mask):
        assert site.migrate().code == 0
        django_side.save(twin, NAMES)
    assert modes(target(site)) == modes(target(twin))
    expected = options.get("file_permissions_mode", 0o644)
    assert modes(target(site))["x/b.jpg"].startswith(f"100{expected:o} ")


def test_folders_that_were_there_keep_their_modes(site: Site) -> None:
    site = replace(site, options={**site.options, "directory_permissions_mode": 0o750})
    (target(site) / "x").mkdir(mode=0o711)
    assert site.migrate().code == 0
    found = modes(target(site))
    assert found["x"].startswith("40711 ")
    assert found["x/y"].startswith("40750 ")


def test_a_run_that_died_before_it_set_the_modes_sets_them_when_it_goes_on(site: Site) -> None:
    with umask(0o077):
        assert site.migrate().code == 0
    (ledger,) = site.runs.glob("*/ledger.sqlite")
    with sqlite3.connect(ledger) as database:  # as it stands while rclone copies
        database.execute("UPDATE entry SET state='planned', evidence=NULL, tags=NULL")
    database.close()
    (target(site) / "a.jpg").chmod(0o600)
    assert site.migrate().code == 0
    assert modes(target(site))["a.jpg"].startswith("100644 ")


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("file_permissions_mode", 644, "so mode 644 is written 420"),
        ("file_permissions_mode", "0640", "so mode 0640 is written 416"),
        ("file_permissions_mode", "0o600", "so mode 600 is written 384"),
        ("file_permissions_mode", True, "True is not a number from 0 to 4095"),
        ("file_permissions_mode", -1, "-1 is not a number"),
        ("directory_permissions_mode", 755, "so mode 755 is written 493"),
        ("directory_permissions_mode", 0o644, "cannot be the mode of a folder"),
        ("location", "photos", "must be an absolute path"),
        ("location", None, "location is missing"),
        ("location", "/", "the root of the whole system"),
        ("base_ulr", "/m/", "did you mean 'base_url'"),
    ],
)
def test_an_option_that_means_something_else_is_refused(
    site: Site, option: str, value: Any, text: str
) -> None:
    site = replace(site, options={**site.options, option: value})
    result = site.migrate()
    assert (result.code, text in said(result)) == (2, True), said(result)
    assert not any(target(site).iterdir()) if option != "location" else True


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_target_that_is_no_folder_is_not_made(site: Site, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "target"
    if kind == "a file":
        place.write_text("mine")
    result = replace(site, options={"location": str(place)}).migrate()
    assert result.code == (5 if kind == "missing" else 2), said(result)
    assert "TIP" in said(result) or "tip" in said(result)
    assert place.is_file() == (kind == "a file")


def _above(site: Site) -> Path:
    return site.folder


def _inside(site: Site) -> Path:
    return site.media / "x"


def _by_a_link(site: Site) -> Path:
    link = site.folder / "elsewhere"
    link.symlink_to(site.media, target_is_directory=True)
    return link / "x"


@pytest.mark.parametrize("place", [lambda s: s.media, _above, _inside, _by_a_link])
def test_source_and_target_may_not_lie_in_each_other(
    site: Site, place: Callable[[Site], Path]
) -> None:
    site = replace(site, options={"location": str(place(site))})
    before = tree(site.media)
    result = site.migrate()
    assert (result.code, "share files" in said(result)) == (2, True), said(result)
    assert tree(site.media) == before


def test_a_disk_that_is_too_small_is_told_before_the_copy(site: Site, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        site = replace(site, options={"location": str(disk)})
        site.add("big.bin", b"0" * (2 << 20))
        result = site.migrate()
        assert (result.code, "and the store has" in said(result)) == (6, True), said(result)
        assert not any(disk.iterdir())
        assert site.migrate("--exclude", "big.bin").code == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_links_in_the_target_are_not_followed_out(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"outside")
    (target(site) / "x").symlink_to(outside, target_is_directory=True)
    (target(site) / "a.jpg").symlink_to(outside / "a.jpg")
    result = site.migrate("--skip-refused")
    assert result.states() == {"refused": 3, "conflict": 1}
    assert "is a link in the target folder" in result.reasons()["x/b.jpg"]
    forced = site.migrate("--skip-refused", "--overwrite-conflicts")
    assert forced.states() == {"refused": 3, "verified": 1}
    assert (target(site) / "a.jpg").read_bytes() == b"a.jpg"
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == {"a.jpg": b"outside"}


def test_files_and_folders_in_each_others_places_are_refused(site: Site) -> None:
    (target(site) / "a.jpg").mkdir()
    (target(site) / "x").write_bytes(b"mine")
    result = site.migrate("--skip-refused")
    assert result.reasons()["a.jpg"] == "a.jpg is a folder in the target folder"
    assert result.reasons()["x/b.jpg"] == "x is a file in the target folder"
    assert result.states() == {"refused": 4}
    assert (target(site) / "x").read_bytes() == b"mine"


def test_a_name_that_the_disk_takes_for_another_is_seen() -> None:
    """/proc is a file system that finds names which it does not list: those of threads."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        fault = Folder("/proc").refusal(f"{thread.native_id}/x.jpg")
        assert fault.startswith(f"{thread.native_id} is another name of a file that is there")
        assert not Folder("/proc").refusal("no-such-process/x.jpg")
    finally:
        done.set()
        thread.join()


def test_what_the_class_saved_and_has_changed_is_saved_again(site: Site) -> None:
    assert site.migrate().code == 0
    site.add("x/line\nend.jpg", b"changed")
    result = site.migrate()
    assert (result.code, result.states()) == (0, {"verified": 4}), result.reasons()
    assert (target(site) / "x/line\nend.jpg").read_bytes() == b"changed"
    assert len([p for p in target(site).rglob("*") if p.is_file()]) == 4
