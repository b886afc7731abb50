"""Dropbox: the promises that its tokens, its folding of names and its class put at risk."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.utils.module_loading import import_string

from orchestrator.digest import ContentHash
from tests.servers.base import Options
from tests.servers.dropbox import DropboxServer
from tests.servers.dropbox_account import content_hash
from tests.site import Result, Site

pytestmark = pytest.mark.on("dropbox")
BLOCK = 4 << 20
Make = Callable[..., Site]


@pytest.fixture
def make(server: DropboxServer, bucket: Options, tmp_path: Path) -> Make:
    """Return a function: options that differ from the account's in, site out."""
    return lambda **options: Site.on(server, {**bucket, **options}, tmp_path)


@pytest.fixture
def storage(
    server: DropboxServer, bucket: Options, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a function that makes the real class on the account."""
    for variable, value in server.environ.items():
        monkeypatch.setenv(variable, value)
    if not settings.configured:
        settings.configure(USE_TZ=True)
    return lambda **options: import_string(server.storage_class)(**bucket, **options)


def calls(server: DropboxServer, options: Options, agent: str = "") -> Counter[str]:
    """Count the calls of a client by route; agents are OfficialDropbox… and rclone/…."""
    noted = server.fake.calls[server.account(options).refresh_token].requests
    return Counter(
        call.path.removeprefix("/2/") for call in noted if agent in call.headers["user-agent"]
    )


def problem(result: Result) -> str:
    events = [json.loads(line) for line in result.out.splitlines()]
    found = [p for event in events for p in event.get("problems", ())]
    return " ".join(f"{p['what']} TIP {p['tip']}" for p in found)


SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 9 << 20, (16 << 20) + 3)


def test_files_of_every_size_are_proven_by_their_content_hash(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    site = make(root_path="/site/media")
    data = {f"a/{size}.bin": os.urandom(size) for size in SIZES}
    for name, content in data.items():
        site.add(name, content)
    done = site.migrate("--sample=all")
    assert (done.code, done.report["verdict"]) == (0, "verified"), done.out
    assert {kind: n["files"] for kind, n in done.report["evidence"].items()} == {"hash": len(data)}
    held = {f"site/media/{name}": content for name, content in data.items()}
    assert {key: server.peek(bucket, key).data for key in server.keys(bucket)} == held
    by_rclone = calls(server, bucket, "rclone")
    assert by_rclone["files/upload_session/finish_batch_v2"] < len(data)
    assert by_rclone["files/upload"] == 0


@pytest.mark.parametrize("step", [1000, BLOCK - 1, BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("size", [0, 1, BLOCK, 2 * BLOCK + 1])
def test_the_content_hash_does_not_depend_on_how_the_bytes_come(size: int, step: int) -> None:
    data, hasher = os.urandom(size), ContentHash()
    for start in range(0, size, step):
        hasher.update(data[start : start + step])
    assert hasher.values() == (content_hash(data),)


def refreshing(_: DropboxServer, options: Options) -> dict[str, Any]:
    return dict(options)


def both(server: DropboxServer, options: Options) -> dict[str, Any]:
    stale = server.fake.new_token(server.account(options), until=time.time() - 1)
    return {**options, "oauth2_access_token": stale}


def access_only(server: DropboxServer, options: Options) -> dict[str, Any]:
    return {"oauth2_access_token": server.fake.new_token(server.account(options))}


def access_and_app(server: DropboxServer, options: Options) -> dict[str, Any]:
    return {**access_only(server, options), "app_key": options["app_key"]}


@pytest.mark.parametrize("credentials", [refreshing, both, access_only, access_and_app])
def test_each_kind_of_credentials_works_and_stays_out_of_every_file(
    server: DropboxServer,
    bucket: Options,
    tmp_path: Path,
    credentials: Callable[[DropboxServer, Options], Mapping[str, Any]],
) -> None:
    options = credentials(server, bucket)
    site = Site.on(server, options, tmp_path)
    site.add("a.jpg")
    done = site.migrate(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    assert (done.code, server.keys(bucket)) == (0, ["a.jpg"]), done.out
    tokens = {v for k, v in options.items() if k != "app_key"} | server.fake.tokens.keys()
    (tmp_path / ".env").unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    texts = [done.out, done.err, *(path.read_text(errors="replace") for path in files)]
    assert len(files) > 4
    assert [t for token in tokens for t in texts if token in t] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"oauth2_refresh_token": "revoked-token"}, "oauth2_refresh_token: .*TIP copy the token"),
        ({"app_secret": "wrong-secret"}, "oauth2_refresh_token: .*app_secret"),
        ({"oauth2_refresh_token": "", "app_key": ""}, "oauth2_access_token: .*4 hours"),
        (
            {"oauth2_access_token": "nonsense", "oauth2_refresh_token": ""},
            "oauth2_.*copy the token",
        ),
    ],
)
def test_credentials_that_are_no_good_are_named_before_anything_happens(
    server: DropboxServer,
    bucket: Options,
    make: Make,
    wrong: Mapping[str, Any],
    said: str,
) -> None:
    site = make(**{**both(server, bucket), **wrong})
    site.add("a.jpg")
    done = site.migrate()
    assert done.code == 5
    assert re.match(said, problem(done))
    assert server.keys(bucket) == []


def test_an_app_that_may_not_write_is_told_which_permissions_it_needs(
    server: DropboxServer, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, server.read_only(bucket), tmp_path)
    site.add("a.jpg")
    assert site.plan().code == 0
    done = site.migrate()
    assert done.code == 5
    assert "files.content.write" in problem(done)


@pytest.mark.parametrize(
    ("root", "folder"),
    [
        ("/", ""),
        ("/Site/Media/", "Site/Media/"),
        ("/a/../b", "b/"),
        ("/größe 1/#%ü", "größe 1/#%ü/"),
    ],
)
def test_a_root_path_is_where_the_class_has_it(
    server: DropboxServer, bucket: Options, make: Make, root: str, folder: str
) -> None:
    site = make(root_path=root)
    site.add("x/y.jpg")
    done = site.migrate()
    assert (done.code, server.keys(bucket)) == (0, [f"{folder}x/y.jpg"]), done.out


@pytest.mark.parametrize(
    "root", ["media", "", None, ".", "//media", "/media ", "/a /b", "/sym␊bol"]
)
def test_a_root_path_that_means_another_place_is_refused(
    server: DropboxServer, bucket: Options, make: Make, root: str | None
) -> None:
    site = make(root_path=root)
    site.add("a.jpg")
    done = site.migrate()
    assert done.code == 2
    assert problem(done).startswith("root_path: ")
    assert calls(server, bucket) == {}


def test_a_root_path_that_is_a_file_is_refused(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    server.put(bucket, "media", b"a file")
    site = make(root_path="/media")
    site.add("a.jpg")
    done = site.migrate()
    assert (done.code, server.keys(bucket)) == (2, ["media"])
    assert "a file where a folder is needed" in problem(done)


def test_a_root_folder_in_another_case_is_the_same_folder(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    server.put(bucket, "Apps/Media/a.jpg", b"hello")
    site = make(root_path="/apps/media")
    site.add("a.jpg", b"hello")
    site.add("b.jpg", b"more")
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 2}), done.out
    assert server.keys(bucket) == ["Apps/Media/a.jpg", "Apps/Media/b.jpg"]
    assert done.report["direct"] == {}
    assert site.run("check").code == 0


@pytest.mark.parametrize(
    "twins",
    [
        ("a/photo.jpg", "a/PHOTO.JPG"),
        ("A/photo.jpg", "a/photo.jpg"),
        ("\u00e9.jpg", "e\u0301.jpg"),
        ("\u00c9/x.jpg", "e\u0301/X.jpg"),
        ("\u00c5.jpg", "\u212b.jpg"),
        ("stra\u00dfe.jpg", "STRASSE.JPG"),
    ],
)
def test_files_that_dropbox_takes_for_one_stop_a_run_before_it_writes(
    server: DropboxServer, bucket: Options, make: Make, twins: tuple[str, str]
) -> None:
    site = make()
    for name in (*twins, "ok.jpg"):
        site.add(name, name.encode())
    with server.proxied(bucket) as (_, watch):
        stopped = site.migrate()
        assert watch.writes == ()
        assert watch.requests
    assert (stopped.code, stopped.states()) == (7, {"refused": 2, "planned": 1})
    assert all("would be the one object" in why for why in stopped.reasons().values())
    done = site.migrate("--skip-refused")
    assert (done.code, done.states()) == (7, {"refused": 2, "verified": 1})
    assert server.keys(bucket) == ["ok.jpg"]


def test_folders_that_dropbox_takes_for_one_lose_no_file(
    server: DropboxServer, bucket: Options, make: Make, storage: Callable[..., Any]
) -> None:
    server.put(bucket, "Photos/old.jpg", b"old")
    names = ["Dir/a.jpg", "dir/b.jpg", "DIR/sub/c.jpg", "dir/Sub/d.jpg", "e\u0301/1", "\u00e9/2"]
    names += ["photos/new.jpg", "alone/x.jpg"]
    site = make()
    for name in names:
        site.add(name, name.encode())
    done = site.migrate("--sample=all")
    assert (done.code, done.states()) == (0, {"verified": len(names)}), done.out
    held = [server.peek(bucket, key).data for key in server.keys(bucket)]
    assert sorted(held) == sorted([b"old", *(name.encode() for name in names)])
    for name in names:
        with storage().open(name) as file:
            assert file.read() == name.encode()
    again = site.run("check")
    assert (again.code, again.states()) == (0, {"verified": len(names)})


def test_an_object_in_another_case_is_a_conflict(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    server.put(bucket, "a/Photo.JPG", b"hello")
    site = make()
    site.add("a/photo.jpg", b"hello")
    done = site.migrate()
    assert (done.code, done.states()) == (7, {"conflict": 1})
    assert "/a/Photo.JPG" in done.reasons()["a/photo.jpg"]
    assert server.keys(bucket) == ["a/Photo.JPG"]


@pytest.mark.parametrize("in_store", [False, True])
def test_a_file_where_a_folder_is_needed_is_refused(
    server: DropboxServer, bucket: Options, make: Make, *, in_store: bool
) -> None:
    site = make()
    site.add("name", b"file")
    if in_store:
        server.put(bucket, "Name/x.jpg", b"x")
    else:
        site.add("Name/x.jpg", b"x")
    done = site.migrate("--skip-refused")
    assert (done.code, done.states()["refused"]) == (7, 1)
    assert "folder of this name" in done.reasons()["name"]
    assert server.keys(bucket) == ["Name/x.jpg"]


FORBIDDEN = ["desktop.ini", "a/Thumbs.db", ".DS_Store", "Icon\r", ".dropbox", "a/.dropbox.attr"]
FORBIDDEN += ["del\x7f.jpg", "space ", "folder /x.jpg", "a\\\\b.jpg", ".\\x.jpg"]


def test_names_that_dropbox_does_not_take_are_refused(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    site = make()
    for name in (*FORBIDDEN, "desktop.ini.jpg"):
        site.add(name)
    with server.proxied(bucket) as (_, watch):
        done = site.migrate("--skip-refused")
        refused = [
            c for c in watch.requests if c.status == 409 and c.path != "/2/files/get_metadata"
        ]
    assert done.states() == {"refused": len(FORBIDDEN), "verified": 1}
    for reason in done.reasons().values():
        assert re.search("does not allow this name|would not be a plain path", reason)
    assert (server.keys(bucket), refused) == (["desktop.ini.jpg"], [])


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_is_refused_the_class_could_not_save(storage: Callable[..., Any], name: str) -> None:
    from dropbox.exceptions import ApiError

    with pytest.raises(ApiError, match=r"disallowed_name|malformed_path"):
        storage()._save(name, ContentFile(b"x", name=name))


ODD = ["back\\slash.jpg", "tab\t.jpg", "line\nend.jpg", "return\r.jpg", "fullwidth\uff3c.jpg", "␠"]
ODD += [
    "\u201b\uff3c.jpg",
    "␊.jpg",
    "␡.jpg",
    "a␠",
    ".dropboxXattr",
    "\u201b.jpg",
    "dot.",
    " lead.jpg",
    "\uff0e",
    "\uff0f",
]
ODD += ["e\u0301.jpg", "\u0130.jpg", '*:"<>|?.jpg', "~$lock.docx", "#%&+.jpg", "\U0001f389.jpg"]


def test_odd_names_have_the_very_key_that_a_save_gives_them(
    server: DropboxServer, make: Make, bucket: Options, storage: Callable[..., Any]
) -> None:
    site = make(root_path="/ours")
    for name in ODD:
        site.add(name, name.encode())
        storage(root_path="/theirs")._save(name, ContentFile(name.encode(), name=name))
    done = site.migrate("--sample=all")
    assert (done.code, done.states()) == (0, {"verified": len(ODD)}), done.reasons()
    held = {key: server.peek(bucket, key).data for key in server.keys(bucket)}
    ours, theirs = (
        {key.removeprefix(root): data for key, data in held.items() if key.startswith(root)}
        for root in ("ours/", "theirs/")
    )
    assert ours == theirs
    assert len(ours) == len(ODD)


@pytest.mark.parametrize("mode", ["update", "replace"])
def test_a_write_mode_that_cannot_save_is_refused(make: Make, mode: str) -> None:
    site = make(write_mode=mode)
    site.add("a.jpg")
    done = site.migrate()
    assert done.code == 2
    assert problem(done).startswith("write_mode: ")


@pytest.mark.parametrize("mode", ["add", "overwrite"])
def test_a_file_that_changed_after_a_run_replaces_its_object(
    server: DropboxServer, bucket: Options, make: Make, mode: str
) -> None:
    site = make(write_mode=mode)
    names = ["by-rclone.jpg", "by\tclass.jpg", "foreign\t.jpg"]
    for name in names:
        site.add(name, b"first")
    server.put(bucket, names[2], b"of somebody else")
    assert site.migrate().states() == {"verified": 2, "conflict": 1}
    for name in names:
        site.add(name, b"second")
    done = site.migrate()
    assert done.states() == {"verified": 2, "conflict": 1}, done.reasons()
    held = [server.peek(bucket, name).data for name in names]
    assert held == [b"second", b"second", b"of somebody else"]


def test_a_token_that_ends_within_a_run_is_renewed(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    server.account(bucket).expires = 5  # rclone renews a token 10 seconds before its end
    site = make()
    for number in range(40):
        site.add(f"{number}.jpg", b"%d" % number)
    done = site.migrate()
    assert (done.code, done.states()) == (0, {"verified": 40}), done.out
    assert calls(server, bucket, "rclone")["/oauth2/token"] > 10


LIMITED = {"reason": {".tag": "too_many_requests"}, "retry_after": 1}


@pytest.mark.parametrize(
    ("status", "route"),
    [
        (429, "files/upload_session/start"),
        (429, "files/upload_session/finish_batch_v2"),
        (429, "files/list_folder"),
        (429, "files/upload "),
        (503, "files/upload_session/append_v2"),
        (503, "files/download"),
    ],
)
def test_a_store_that_asks_to_slow_down_is_waited_for(
    server: DropboxServer, bucket: Options, make: Make, status: int, route: str
) -> None:
    site = make()
    for name in ("a.jpg", "b.jpg", "by\tclass.jpg"):
        site.add(name)
    headers = {"Content-Type": "application/json", "Retry-After": "1"}
    body = json.dumps({"error_summary": "too_many_requests/..", "error": LIMITED}).encode()
    with server.proxied(bucket) as (_, watch):
        watch.answer(status, body, times=2, matching=f"^POST /2/{route}", headers=headers)
        done = site.migrate()
        met = [call for call in watch.requests if call.status == status]
    assert (done.code, done.states()) == (0, {"verified": 3}), done.out
    assert len(met) == 2


def test_a_listing_of_many_pages_is_read_to_its_end(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    server.account(bucket).page = 7
    site = make()
    for number in range(30):
        site.add(f"{number % 3}/{number}.jpg", b"%d" % number)
        server.put(bucket, f"{number % 3}/{number}.jpg", b"%d" % number)
    with server.proxied(bucket) as (_, watch):
        done = site.migrate()
        assert watch.writes == ()
    assert (done.code, done.states()) == (0, {"verified": 30}), done.out


def test_bytes_that_rot_in_the_store_are_found(
    server: DropboxServer, bucket: Options, make: Make
) -> None:
    site = make()
    for name in ("a.jpg", "by\tclass.jpg", "sound.jpg"):
        site.add(name, b"hello")
    assert site.migrate().code == 0
    server.put(bucket, "a.jpg", b"hellO")
    server.delete(bucket, "by\tclass.jpg")
    done = site.run("check")
    assert (done.code, done.states()) == (7, {"failed": 2, "verified": 1})


def test_the_class_has_the_defects_that_its_page_names(
    server: DropboxServer, bucket: Options, storage: Callable[..., Any]
) -> None:
    from django.core.exceptions import SuspiciousFileOperation
    from dropbox.exceptions import ApiError

    server.account(bucket).page = 2
    site = storage(root_path="/media")
    for name in ("a/1.jpg", "a/2.jpg", "a/3.jpg"):
        site.save(name, ContentFile(b"hello"))
    opened = site.open("a/1.jpg")
    assert (opened.read(), opened.name) == (b"hello", "/media/a/1.jpg")
    with pytest.raises(SuspiciousFileOperation):
        site.save(opened.name, ContentFile(b"x"))
    opened.close()
    with pytest.raises((ValueError, AttributeError)):
        opened.open()
    assert len(site.listdir("a")[1]) == 2
    assert "/tmp/" in site.url("a/1.jpg")
    assert site.url("none.jpg") is None
    unread = site.open("none.jpg")
    with pytest.raises(ApiError):
        unread.read()
    unread._file.close()  # the class leaves it behind
    with pytest.warns(DeprecationWarning, match="deprecated"), pytest.raises(ApiError):
        site.delete("none.jpg")
