"""Promises of the walk: every file is counted once, with what becomes of it and why."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import sys
import tempfile
import tracemalloc
import unicodedata
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigurationError
from orchestrator.inventory import MAX_NESTED_LINKS, Entry, Fate, Kind, Rules, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def write(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listed(root: Path, rules: Rules | None = None, *, skip: Path | None = None) -> dict[str, Entry]:
    entries = list(walk(root, rules or Rules(), skip=skip))
    assert len({e.name for e in entries}) == len(entries), "a name was counted twice"
    return {e.name: e for e in entries}


def candidates(root: Path, rules: Rules | None = None) -> set[str]:
    return {e.name for e in listed(root, rules).values() if e.fate is Fate.CANDIDATE}


def fate(entry: Entry) -> tuple[str, str]:
    return entry.fate.value, entry.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


# What is a file


def test_a_file_carries_its_size_and_times(root: Path) -> None:
    path = write(root / "a" / "b.jpg", b"12345")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    status = path.stat()
    assert listed(root)["a/b.jpg"] == Entry(
        name="a/b.jpg",
        kind=Kind.FILE,
        size=5,
        mtime_ns=1_234_567_890_123_456_789,
        ctime_ns=status.st_ctime_ns,
        fate=Fate.CANDIDATE,
    )


def test_empty_files_count_and_empty_folders_do_not(root: Path) -> None:
    write(root / "empty.txt", b"")
    (root / "nothing" / "in" / "here").mkdir(parents=True)
    assert set(listed(root)) == {"empty.txt"}
    assert listed(root)["empty.txt"].size == 0


def test_hard_links_are_two_files(root: Path) -> None:
    os.link(write(root / "a.jpg"), root / "b.jpg")
    assert candidates(root) == {"a.jpg", "b.jpg"}


def test_the_order_is_by_name_and_does_not_change(root: Path) -> None:
    for name in ("z.jpg", "b/2.jpg", "b/10.jpg", "a/1.jpg", "B.jpg"):
        write(root / name)
    names = [e.name for e in walk(root, Rules())]
    assert names == ["B.jpg", "z.jpg", "a/1.jpg", "b/10.jpg", "b/2.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        "new\nline.jpg",
        "tab\t.jpg",
        "back\\slash.jpg",
        "quote\u201b.jpg",
        "picture\u240a.jpg",
        "-rf",
        "--exclude=x",
        " spaces ",
        ".hidden",
        "...",
        "~",
        "a?*[b].jpg",
        "\x01\x7f.jpg",
        "\N{FAMILY}.jpg",
        "n" * 255,
        "é" * 127,
    ],
    ids=ascii,
)
def test_an_odd_name_comes_out_as_it_is(root: Path, name: str) -> None:
    write(root / "folder" / name)
    assert candidates(root) == {f"folder/{name}"}


def test_unicode_twins_are_two_files(root: Path) -> None:
    twins = {unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD")}
    for name in twins:
        write(root / name)
    assert len(twins) == 2
    assert candidates(root) == twins


def test_a_name_that_is_not_utf8_is_refused_and_shown_escaped(root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    entry = listed(root)["caf\udce9.jpg"]
    assert fate(entry) == (
        "refused",
        "name is not UTF-8: caf\\xe9.jpg; Django cannot address it",
    )
    entry.reason.encode()


def test_every_file_in_a_folder_that_is_not_utf8_is_refused(root: Path) -> None:
    folder = os.fsdecode(b"\xff")
    write(root / folder / "deep" / "a.jpg")
    write(root / folder / "b.jpg")
    assert {e.fate for e in listed(root).values()} == {Fate.REFUSED}
    assert set(listed(root)) == {f"{folder}/b.jpg", f"{folder}/deep/a.jpg"}


def test_a_name_that_is_not_utf8_does_not_matter_where_nothing_would_move(root: Path) -> None:
    os.mkfifo(root / os.fsdecode(b"\xff"))
    assert [fate(e) for e in walk(root, Rules())] == [("excluded", "fifo: has no content")]


# What has no content


def test_a_fifo_and_a_socket_have_no_content(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path may have 108 bytes only
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
    (root / "to_pipe").symlink_to("pipe")
    entries = listed(root)
    assert fate(entries["pipe"]) == ("excluded", "fifo: has no content")
    assert fate(entries["sock"]) == ("excluded", "socket: has no content")
    assert fate(entries["to_pipe"]) == ("excluded", "fifo: has no content")
    assert [e.kind for e in entries.values()] == [Kind.FIFO, Kind.SOCKET, Kind.SYMLINK]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_has_no_content(root: Path) -> None:
    try:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this system lets not even root make a device node")
    entry = listed(root)["null"]
    assert (entry.kind, entry.reason) == (Kind.DEVICE, "device: has no content")


# Links


def test_a_link_to_a_file_has_its_targets_size_and_times(root: Path) -> None:
    target = write(root / "originals" / "a.jpg", b"long enough")
    os.utime(target, ns=(5, 5))
    (root / "link.jpg").symlink_to("originals/a.jpg")
    entry = listed(root)["link.jpg"]
    assert (entry.kind, entry.fate) == (Kind.SYMLINK, Fate.CANDIDATE)
    assert (entry.size, entry.mtime_ns) == (11, 5)
    assert entry.ctime_ns == target.stat().st_ctime_ns


@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_to_a_folder_shows_its_files_under_the_links_name(
    root: Path, absolute: bool
) -> None:
    write(root / "2023" / "deep" / "a.jpg")
    (root / "latest").symlink_to(root / "2023" if absolute else "2023")
    assert candidates(root) == {"2023/deep/a.jpg", "latest/deep/a.jpg"}
    assert listed(root)["latest/deep/a.jpg"].kind is Kind.FILE


def test_a_link_is_followed_from_where_it_really_lies(root: Path) -> None:
    write(root / "x" / "side" / "s.jpg")
    (root / "x" / "y").mkdir()
    (root / "x" / "y" / "up").symlink_to("../side")
    (root / "short").symlink_to("x/y")
    assert candidates(root) == {"x/side/s.jpg", "x/y/up/s.jpg", "short/up/s.jpg"}


@pytest.mark.parametrize("target", [".", "..", "../..", "../../a/b"])
def test_a_link_to_a_folder_around_it_is_a_loop(root: Path, target: str) -> None:
    write(root / "a" / "b" / "f.jpg")
    link = root / "a" / "b" / "loop"
    link.symlink_to(target)
    entries = listed(root)
    assert set(entries) == {"a/b/f.jpg", "a/b/loop"}
    assert fate(entries["a/b/loop"])[0] == "excluded"
    assert entries["a/b/loop"].reason.startswith("link loop: ")


def test_folders_that_link_to_each_other_end_in_a_loop(root: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        write(root / one / f"{one}.jpg")
        (root / one / other).symlink_to(f"../{other}")
    assert candidates(root) == {"a/a.jpg", "a/b/b.jpg", "b/b.jpg", "b/a/a.jpg"}
    assert listed(root)["a/b/a"].reason.startswith("link loop: ")


def test_links_to_themselves_are_a_loop(root: Path) -> None:
    (root / "self").symlink_to("self")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    assert {e.reason for e in listed(root).values()} == {"link loop: the link leads back to itself"}


@pytest.mark.parametrize("target", ["missing.jpg", "/missing/for/sure.jpg", "file.jpg/x"])
def test_a_dangling_link_has_no_content(root: Path, target: str) -> None:
    write(root / "file.jpg")
    (root / "link").symlink_to(target)
    assert fate(listed(root)["link"]) == ("excluded", "dangling link: has no content")
    assert listed(root)["link"].size == 0


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_out_of_the_source_is_refused_and_not_entered(root: Path, is_folder: bool) -> None:
    # The neighbour's name begins like the source's: a comparison of text alone would let it in.
    target = write(root.parent / "media-old" / "secret.jpg")
    (root / "out").symlink_to(target.parent if is_folder else target)
    entries = listed(root)
    assert set(entries) == {"out"}
    assert fate(entries["out"]) == (
        "refused",
        "link leads out of the source: Django serves it, but its target is not in SOURCE",
    )


def test_folder_links_fan_out_to_a_limit_only(root: Path) -> None:
    depth = 60
    for level in range(depth):
        write(root / f"d{level}" / "f.jpg")
        if level < depth - 1:
            (root / f"d{level}" / "n").symlink_to(f"../d{level + 1}")
    entries = listed(root)
    deepest = max(e.name.count("/n") for e in entries.values() if e.fate is Fate.CANDIDATE)
    assert deepest == MAX_NESTED_LINKS
    refused = [e for e in entries.values() if e.fate is Fate.REFUSED]
    assert len(refused) == depth - 1 - MAX_NESTED_LINKS
    assert {e.reason.split(":")[0] for e in refused} == {"path too long"}


# What cannot be read


@contextmanager
def without_rights() -> Iterator[Path]:
    """Give an empty folder, and let a test under root lay down its rights by `nobody()`."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        root = Path(folder, "media")
        Path(folder).chmod(0o755)
        root.mkdir()
        try:
            yield root
        finally:
            for path in (root, *root.iterdir()):
                if not path.is_symlink():
                    path.chmod(0o755)


@contextmanager
def nobody() -> Iterator[None]:
    uid = os.geteuid()
    os.seteuid(NOBODY if uid == 0 else uid)
    try:
        yield
    finally:
        os.seteuid(uid)


def test_what_cannot_be_read_is_refused() -> None:
    with without_rights() as root:
        write(root / "fine.jpg")
        for name in ("no.jpg", "no.tmp"):
            write(root / name).chmod(0)
        (root / "link.jpg").symlink_to("no.jpg")
        for mode, name in ((0o000, "closed"), (0o644, "listed"), (0o000, "private")):
            write(root / name / "inside.jpg")
            (root / name).chmod(mode)
        (root / "into.jpg").symlink_to("closed/inside.jpg")
        (root / "linked").symlink_to("closed")
        rules = Rules(exclude=("private/", "*.tmp"), include=("*.jpg", "*.tmp"))
        with nobody():
            entries = {n: (e.kind.value, *fate(e)) for n, e in listed(root, rules).items()}
    denied = ("refused", "unreadable: permission denied")
    assert entries == {
        "closed": ("directory", *denied),
        "fine.jpg": ("file", "candidate", ""),
        "into.jpg": ("symlink", *denied),
        "link.jpg": ("symlink", *denied),
        "linked": ("symlink", *denied),
        "listed": ("directory", *denied),
        "no.jpg": ("file", *denied),
        "no.tmp": ("file", "excluded", "--exclude *.tmp"),
        "private": ("directory", "excluded", "--exclude private/"),
    }


def test_a_file_that_vanishes_meanwhile_is_no_entry(root: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d/e.jpg"):
        write(root / name)
    entries = walk(root, Rules())
    seen = [next(entries).name]
    (root / "b.jpg").unlink()
    (root / "d" / "e.jpg").unlink()
    (root / "d").rmdir()
    seen += [e.name for e in entries]
    assert seen == ["a.jpg", "c.jpg"]


def test_a_folder_that_vanishes_before_its_turn_is_no_entry(root: Path) -> None:
    for name in ("d/e.jpg", "z.jpg"):
        write(root / name)
    entries = walk(root, Rules())
    assert next(entries).name == "z.jpg"  # by now the folder d has been seen
    shutil.rmtree(root / "d")
    assert list(entries) == []


def test_folders_a_thousand_deep_are_walked(root: Path) -> None:
    folder = root
    for _ in range(1200):
        folder /= "d"
        folder.mkdir()
    write(folder / "deep.jpg")
    assert sys.getrecursionlimit() <= 1200
    assert candidates(root) == {"d/" * 1200 + "deep.jpg"}
    for _ in range(1200):  # pytest removes old folders by recursion
        for child in folder.iterdir():
            child.unlink() if child.is_file() else child.rmdir()
        folder = folder.parent


def test_a_path_that_the_system_cannot_open_is_refused(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=fd)
        fd, outer = os.open("d" * 250, os.O_RDONLY, dir_fd=fd), fd
        os.close(outer)
        os.close(os.open("f" * 250, os.O_CREAT, dir_fd=fd))
    os.close(fd)
    entries = listed(root)
    refused = [e for e in entries.values() if e.fate is Fate.REFUSED]
    assert {e.reason.split(":")[0] for e in refused} == {"path too long"}
    assert Kind.DIRECTORY in {e.kind for e in refused}
    for entry in entries.values():
        fits = len(os.fsencode(root / entry.name)) <= 4095
        assert fits == (entry.fate is Fate.CANDIDATE)
    assert len(entries) - len(refused) > 10


# Rules


@pytest.mark.parametrize(
    ("glob", "excluded"),
    [
        ("*.tmp", {"x.tmp", "a/x.tmp", "a/b/x.tmp"}),
        ("x.???", {"x.tmp", "x.jpg", "a/x.tmp", "a/b/x.tmp"}),
        ("/*.tmp", {"x.tmp"}),
        ("a/*.tmp", {"a/x.tmp"}),
        ("a/**.tmp", {"a/x.tmp", "a/b/x.tmp"}),
        ("**/b/*", {"a/b/x.tmp", "a/b/[x].jpg", "b/y.jpg"}),
        ("a/", {"a/x.tmp", "a/b/x.tmp", "a/b/[x].jpg"}),
        ("**/b/", {"a/b/x.tmp", "a/b/[x].jpg", "b/y.jpg"}),
        ("a", set[str]()),
        ("X.TMP", set[str]()),
        ("[[]x].jpg", {"a/b/[x].jpg"}),
        ("[!x]*", {"a/b/[x].jpg", "b/y.jpg"}),
        ("[w-x].[jt]*", {"x.tmp", "x.jpg", "a/x.tmp", "a/b/x.tmp"}),
        ("a[!b]x.tmp", set[str]()),
        ("**", {"x.tmp", "x.jpg", "a/x.tmp", "a/b/x.tmp", "a/b/[x].jpg", "b/y.jpg"}),
    ],
)
def test_an_excluded_file_is_counted_with_its_rule(
    root: Path, glob: str, excluded: set[str]
) -> None:
    for name in ("x.tmp", "x.jpg", "a/x.tmp", "a/b/x.tmp", "a/b/[x].jpg", "b/y.jpg"):
        write(root / name)
    entries = listed(root, Rules(exclude=(glob,)))
    assert len(entries) == 6
    assert {n for n, e in entries.items() if e.fate is Fate.EXCLUDED} == excluded
    assert {e.reason for e in entries.values()} - {""} <= {f"--exclude {glob}"}


def test_what_no_include_matches_is_excluded_and_an_exclude_wins(root: Path) -> None:
    for name in ("a.jpg", "b.png", "c.txt", "thumbs/a.jpg"):
        write(root / name)
    entries = listed(root, Rules(include=("*.jpg", "*.png"), exclude=("thumbs/",)))
    assert {n: e.reason for n, e in entries.items()} == {
        "a.jpg": "",
        "b.png": "",
        "c.txt": "no --include matches",
        "thumbs/a.jpg": "--exclude thumbs/",
    }


def test_a_rule_settles_what_would_be_refused(root: Path) -> None:
    (root / os.fsdecode(b"\xff.tmp")).write_bytes(b"x")
    (root / "out").symlink_to("/etc")
    entries = listed(root, Rules(exclude=("*.tmp", "out/")))
    assert {e.reason for e in entries.values()} == {"--exclude *.tmp", "--exclude out/"}


def test_a_glob_reaches_across_a_newline_in_a_name(root: Path) -> None:
    write(root / "new\nline" / "x.tmp")
    for glob in ("**/x.tmp", "*.tmp", "**line/"):
        assert not candidates(root, Rules(exclude=(glob,)))


@pytest.mark.parametrize("glob", ["", "[z-a]", "[]"])
def test_a_broken_glob_is_a_configuration_error(root: Path, glob: str) -> None:
    with pytest.raises(ConfigurationError, match="TIP"):
        walk(root, Rules(exclude=(glob,)))


# The run folder


def test_the_run_folder_is_excluded_by_whatever_name_it_is_met(root: Path) -> None:
    runs = root / "migration-runs"
    write(runs / "2024" / "ledger.sqlite")
    write(root / "migration-runs-of-the-club.jpg")
    (root / "alias").symlink_to("migration-runs/2024")
    (root / "ledger").symlink_to("migration-runs/2024/ledger.sqlite")
    entries = listed(root, skip=runs)
    reasons = {n: e.reason for n, e in entries.items()}
    assert reasons == {
        "alias/ledger.sqlite": "the run folder",
        "ledger": "the run folder",
        "migration-runs-of-the-club.jpg": "",
        "migration-runs/2024/ledger.sqlite": "the run folder",
    }


def test_a_run_folder_outside_changes_nothing(root: Path) -> None:
    write(root / "a.jpg")
    assert listed(root, skip=root.parent)["a.jpg"].fate is Fate.CANDIDATE


def test_the_source_itself_cannot_be_the_run_folder(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="run-dir"):
        walk(root, Rules(), skip=root)


# The root


def test_the_source_may_be_a_link(root: Path) -> None:
    write(root / "a.jpg")
    (root / "b.jpg").symlink_to(root / "a.jpg")
    link = root.parent / "link"
    link.symlink_to(root)
    assert candidates(link) == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "no such file"),
        ("file", "not a folder"),
        ("self", "symbolic links"),
        ("/", "whole file system"),
    ],
)
def test_a_source_that_cannot_be_one_is_said_before_the_walk(
    tmp_path: Path, name: str, why: str
) -> None:
    write(tmp_path / "file")
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(ConfigurationError, match=f"{why}[^$]*TIP"):
        walk(tmp_path / name, Rules())


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o311])
def test_an_unreadable_source_is_a_configuration_error(mode: int) -> None:
    with without_rights() as root:
        write(root / "a.jpg")
        root.chmod(mode)
        with nobody(), pytest.raises(ConfigurationError, match=r"cannot be read[^$]*TIP"):
            walk(root, Rules())


# Conservation


def random_tree(root: Path, seed: int) -> None:
    """Fill `root` with folders, files, fifos and links to anything, also out and back."""
    dice = random.Random(seed)
    folders, things = [root], [root]
    for number in range(dice.randint(1, 40)):
        path = dice.choice(folders) / f"{dice.choice('aé-. ')}{number}"
        match dice.choice("dfffpll"):
            case "d":
                path.mkdir()
                folders.append(path)
            case "f":
                path.write_bytes(b"x" * dice.randint(0, 9))
            case "p":
                os.mkfifo(path)
            case _:
                target = dice.choice([*things, root.parent, root / "missing"])
                path.symlink_to(
                    target if dice.random() < 0.5 else os.path.relpath(target, path.parent)
                )
        things.append(path)


def served(folder: Path, root: Path, prefix: str = "", around: tuple[Path, ...] = ()) -> set[str]:
    """List by recursion what Django serves below `folder`: an independent second opinion."""
    names: set[str] = set()
    for child in folder.iterdir():
        name = f"{prefix}{child.name}"
        target = Path(os.path.realpath(child))
        if not child.exists() or not target.is_relative_to(root):
            continue
        if child.is_file():
            names.add(name)
        elif child.is_dir() and not (child.is_symlink() and target in (*around, folder.resolve())):
            names |= served(child, root, f"{name}/", (*around, folder.resolve()))
    return names


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_candidates_are_what_django_serves_and_nothing_is_unaccounted_for(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    root = tmp_path_factory.mktemp("tree") / "media"
    root.mkdir()
    random_tree(root, seed)
    entries = listed(root)
    too_deep = {n for n, e in entries.items() if e.reason.startswith("path too long")}
    expected = {
        n for n in served(root, root) if not any(n.startswith(f"{deep}/") for deep in too_deep)
    }
    assert {n for n, e in entries.items() if e.fate is Fate.CANDIDATE} == expected
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        assert {str(here / name) for name in files} <= set(entries)
        for link in (here / name for name in folders if Path(folder, name).is_symlink()):
            shown = str(link) in entries or any(n.startswith(f"{link}/") for n in entries)
            assert shown or not any(f for _, _, f in os.walk(root / link, followlinks=True))


def test_memory_does_not_grow_with_the_number_of_files(root: Path) -> None:
    def peak(folders: int) -> int:
        for number in range(200 * folders):
            write(root / f"{number // 200:05d}" / f"{'n' * 100}{number}", b"")
        tracemalloc.start()
        assert sum(1 for _ in walk(root, Rules())) == 200 * folders
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    few, many = peak(2), peak(50)
    assert many < 1.5 * few


def test_a_pattern_of_many_stars_ends(tmp_path: Path) -> None:
    """All combinations of places would take longer than anybody lives."""
    (tmp_path / ("a" * 200)).touch()
    rules = Rules(exclude=("*a" * 30 + "*b",), include=("*a" * 30,))
    assert [entry.fate for entry in walk(tmp_path, rules)] == [Fate.CANDIDATE]
