"""The rclone that copies: what it says of each file, what is in flight, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.daemon import Daemon, EndedError
from orchestrator.envfile import Settings
from orchestrator.errors import AccessRefusedError, RcloneUnusableError, StuckError
from orchestrator.event import Event
from orchestrator.gate import Call, Flight
from orchestrator.job import Route, Wishes
from orchestrator.job import route as make_route
from orchestrator.rclone import OWN, _end
from orchestrator.storage import Upload, load
from orchestrator.transfer import Threads
from tests.conformance.observe import wait_for

FOLDER = "django.core.files.storage.FileSystemStorage"


@pytest.fixture
def route(tmp_path: Path) -> Iterator[Route]:
    """Return the way from one folder to another."""
    source, store, work = tmp_path / "media", tmp_path / "store", tmp_path / "run" / "work"
    for folder in (source, store, work):
        folder.mkdir(parents=True)
    target = load(
        Settings(
            storage_class=FOLDER,
            options={"location": str(store)},
            variables={},
            disputed={},
            source=None,
        )
    )
    found = make_route(target, source, work, Wishes(), lambda _: None)
    yield found
    found.close()


def test_a_list_is_sent_and_what_was_not_found_is_named(route: Route, tmp_path: Path) -> None:
    names = [f"a/{n}.txt" for n in range(50)]
    (route.source / "a").mkdir()
    for name in names:
        (route.source / name).write_text(name)
    call = route.rclone.copy_names([*names, "a/gone.txt"], Upload(), Flight(start=8, most=8))
    assert call.unsent() == {"a/gone.txt": "rclone did not find it"}
    assert {(tmp_path / "store" / name).read_text() for name in names} == {*names}
    assert route.rclone.sent[0] == len(names)


def test_a_list_is_looked_up_by_name_however_large_its_folder(route: Route) -> None:
    folder = route.source / "a"
    folder.mkdir()
    for n in range(50):
        (folder / f"{n}.txt").write_text("")
    os.utime(folder, (0, folder.stat().st_mtime))  # who lists it moves the first one
    call = route.rclone.copy_names(["a/7.txt"], Upload(), Flight(start=8, most=8))
    assert call.unsent() == {}
    assert folder.stat().st_atime == 0
    assert len(list(folder.iterdir())) == 50
    if folder.stat().st_atime == 0:
        pytest.skip("this disk does not note when a folder is listed")


def test_rclone_is_told_how_much_memory_it_may_use(route: Route) -> None:
    child = route.rclone.daemon().child
    variables = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    assert b"GOMEMLIMIT=%d" % (OWN + route.wishes.memory) in variables


def test_what_rclone_cannot_write_is_named_with_its_reason(route: Route, tmp_path: Path) -> None:
    (route.source / "a").write_text("file")
    (tmp_path / "store" / "a").mkdir()  # where the file should be
    (tmp_path / "store" / "a" / "b").write_text("kept")
    (route.source / "c").write_text("file")
    unsent = route.rclone.copy_names(["a", "c"], Upload(), Flight(start=8, most=8)).unsent()
    assert unsent.keys() == {"a"}
    assert "rename failed" in unsent["a"]


def test_a_dead_rclone_is_an_error_and_the_next_call_starts_another(route: Route) -> None:
    (route.source / "a").write_text("a")
    first = route.rclone.daemon()
    first.child.kill()
    first.child.wait()
    with pytest.raises(EndedError):
        first.copy({"_config": {}}, Call(waiting={"a"}, flight=Flight(start=1, most=1)))
    assert not route.rclone.copy_names(["a"], Upload(), Flight(start=1, most=1)).unsent()
    assert route.rclone.daemon() is not first


def test_it_ends_with_its_standard_input_and_leaves_no_socket(route: Route) -> None:
    daemon = route.rclone.daemon()
    assert daemon.address.is_socket()
    assert daemon.child.stdin
    daemon.child.stdin.close()
    assert daemon.child.wait(10) == 0
    route.rclone.close()
    assert not daemon.address.exists()


def test_none_is_started_and_nothing_is_written_for_it_once_the_run_is_being_ended(
    route: Route,
) -> None:
    """A shard's thread may come to its list only after the run was interrupted."""
    (route.source / "a").write_text("a")
    route.close()
    before = set(route.rclone.work.iterdir())
    with pytest.raises(EndedError):
        route.rclone.daemon()
    with pytest.raises(EndedError):
        route.rclone.copy_names(["a"], Upload(), Flight(start=1, most=1))
    assert set(route.rclone.work.iterdir()) == before


def test_its_socket_asks_for_a_password_that_is_on_no_command_line(route: Route) -> None:
    daemon = route.rclone.daemon()
    argv = Path(f"/proc/{daemon.child.pid}/cmdline").read_text()
    assert daemon.password not in argv
    stranger = Daemon(
        child=daemon.child, address=daemon.address, password="wrong", ears=daemon.ears
    )
    with pytest.raises(json.JSONDecodeError):
        stranger.ask("core/stats", {})


def test_a_setting_that_rclone_no_longer_knows_ends_the_run(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be ignored without a word."""
    monkeypatch.setattr("orchestrator.daemon.OURS", ("NoCheckDest", "NoSuchSetting"))
    with pytest.raises(RcloneUnusableError, match="NoSuchSetting"):
        route.rclone.daemon()


def test_who_waits_is_told_why_rclone_was_ended(route: Route) -> None:
    cause = AccessRefusedError("no")
    (route.source / "a").write_text("a")
    daemon = route.rclone.daemon()
    daemon.end(cause)
    with pytest.raises(EndedError) as ended:
        daemon.copy({"_config": {}}, Call(waiting={"a"}, flight=Flight(start=1, most=1)))
    assert ended.value.cause is cause


@pytest.mark.parametrize("stored", [False, True])
def test_bytes_of_files_that_are_all_refused_are_no_gain(
    route: Route, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """Each is sent before it is refused, so bytes move for as long as there are files."""
    monkeypatch.setattr("orchestrator.daemon.STUCK", 0.5)
    daemon = route.rclone.daemon()
    names = [f"{number:02}" for number in range(20)]
    with daemon.gate.through(Call(waiting=set(names), flight=Flight(start=4, most=4))):
        for number, name in enumerate(names):
            daemon._advance(number, [{"name": name, "bytes": 1000 + number}])
            if stored and number % 4 == 0:
                daemon.hear(Event(level="info", message="Copied (new)", name=name))
            else:
                daemon.hear(Event(level="error", message="Failed to copy: 500", name=name))
            time.sleep(0.1)
    assert isinstance(daemon.cause, StuckError) is not stored


def test_a_log_that_comes_in_pieces_is_heard_line_by_line(route: Route) -> None:
    """Lines come in turns, and the last one may have no end."""
    pieces = [b'{"level":"info","msg":"on', b'e"}\n{"level":"err', b'or","msg":"two"}\nthree']
    heard: list[Event] = []
    script = "import sys, time\n" + "".join(
        f"sys.stderr.buffer.write({piece!r}); sys.stderr.flush(); time.sleep(0.1)\n"
        for piece in pieces
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as child:
        route.rclone._follow(child, heard.append)
    assert [(event.level, event.message) for event in heard] == [
        ("info", "one"),
        ("error", "two"),
        ("critical", "three"),
    ]
    log = route.rclone.work.parent / "rclone.log.jsonl"
    assert log.read_bytes() == b"".join(pieces) + b"\n"


def test_rclone_is_ready_before_it_is_needed(route: Route) -> None:
    crew = Threads(route=route)
    crew.prepare()
    assert wait_for(lambda: route.rclone._daemon and route.rclone._daemon.alive)


def test_an_rclone_that_does_not_start_is_told_by_who_needs_it(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.daemon.OURS", ("NoSuchSetting",))
    with Threads(route=route) as crew:
        crew.prepare()
        with pytest.raises(RcloneUnusableError):
            route.rclone.copy_names([], Upload(), Flight(start=1, most=1))


def test_the_last_words_of_an_rclone_that_ended_are_heard(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.rclone.PACE", 0.5)
    heard: list[Event] = []
    script = (
        "import sys, time\nfor w in ('first', 'last'): print(w, file=sys.stderr); time.sleep(0.1)"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    ear = threading.Thread(target=route.rclone._follow, args=(child, heard.append))
    ear.start()
    assert child.wait(10) == 0
    _end(child, ear)
    assert [event.message for event in heard] == ["first", "last"]
