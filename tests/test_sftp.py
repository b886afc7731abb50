"""SFTP: keys, the server's own key, modes and owners, and where root_path leads."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests import django_side
from tests.conformance.observe import tree
from tests.servers.base import Options
from tests.servers.openssh import SshServer, make_key
from tests.site import Result, Site

pytestmark = pytest.mark.on("sftp")
NAMES = ("a.txt", "old/b.txt", "old/new/c.txt", "new/deep/d.txt")
Make = Callable[..., Site]


@pytest.fixture
def make(bucket: Options, server: SshServer, tmp_path: Path) -> Make:
    """Return a function: what differs in the options in, a site with one file out."""

    def made(params: Options | None = None, **options: object) -> Site:
        asked = {**bucket, **options, "params": {**bucket["params"], **(params or {})}}
        kept = {name: value for name, value in asked["params"].items() if value is not None}
        site = Site.on(server, {**asked, "params": kept}, tmp_path)
        site.add("photo é 1.jpg")
        return site

    return made


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    socket = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
        while not Path(socket).exists():
            assert process.poll() is None
        yield socket
        process.terminate()


def told(result: Result) -> str:
    return result.out + result.err


def verified(result: Result) -> bool:
    assert result.code == 0, told(result)
    return result.states() == {"verified": 1}


@pytest.mark.parametrize(
    ("form", "unlock"),
    [
        ("RFC4716", {}),
        ("PEM", {}),
        ("RFC4716", {"passphrase": "sésame 1"}),
        ("PEM", {"passphrase": "sesame 2"}),
        ("RFC4716", {"password": "sesame 3"}),
    ],
)
def test_a_key_file_lets_both_in(
    server: SshServer, make: Make, tmp_path: Path, form: str, unlock: Mapping[str, str]
) -> None:
    passphrase = "".join(unlock.values())
    wrong = make_key(tmp_path / "wrong")
    right = make_key(tmp_path / "right", passphrase=passphrase, form=form)
    server.authorize(right.with_suffix(".pub"))
    site = make({"password": None, "key_filename": [str(wrong), str(right)], **unlock})
    result = site.migrate()
    assert verified(result)
    assert result.report["remote"]["key_file"] == str(right)
    assert passphrase == "" or passphrase not in told(result)


def test_a_key_in_the_home_of_the_user_lets_both_in(
    server: SshServer, make: Make, tmp_path: Path
) -> None:
    (tmp_path / ".ssh").mkdir()
    server.authorize(make_key(tmp_path / ".ssh/id_ed25519").with_suffix(".pub"))
    found = {"password": None, "look_for_keys": True}
    assert verified(make(found).migrate(HOME=str(tmp_path)))


def test_an_agent_lets_both_in(server: SshServer, make: Make, tmp_path: Path, agent: str) -> None:
    key = make_key(tmp_path / "key")
    server.authorize(key.with_suffix(".pub"))
    subprocess.run(["ssh-add", "-q", key], env={"SSH_AUTH_SOCK": agent}, check=True)
    site = make({"password": None, "allow_agent": True})
    assert site.migrate().code == 5
    assert verified(site.migrate(SSH_AUTH_SOCK=agent))


def test_a_wrong_password_is_refused_and_not_shown(make: Make) -> None:
    result = make({"password": "Wr0ng-secret"}).migrate()
    assert result.code == 5
    assert "does not let this user in" in told(result)
    assert "Wr0ng-secret" not in told(result)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_the_server_key_that_django_trusts_is_pinned(
    server: SshServer, make: Make, tmp_path: Path, kind: str
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.options['params']['port']} {server.host_key(kind)}\n")
    result = make(known_host_file=str(known)).migrate()
    assert verified(result)
    assert result.report["remote"]["host_keys"] == server.host_key(kind)


def test_an_unknown_server_key_is_pinned_and_told(
    server: SshServer, make: Make, tmp_path: Path
) -> None:
    result = make(known_host_file=str(tmp_path / "none")).migrate()
    assert verified(result)
    kind = result.report["remote"]["host_keys"].split()[0].removeprefix("ssh-")
    shown = subprocess.check_output(
        ["ssh-keygen", "-lf", server.home / f".keys/{kind}.pub"], text=True
    )
    assert any(shown.split()[1] in note for note in result.report["notes"])


def test_a_changed_server_key_stops_before_anything_is_sent(
    server: SshServer, bucket: Options, make: Make, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.options['params']['port']} {other}")
    result = make(known_host_file=str(known)).migrate()
    assert result.code == 5
    assert "another key than the one that is known" in told(result)
    assert server.keys(bucket) == []


def modes(server: SshServer, options: Options) -> dict[str, tuple[int, int, int]]:
    """Return mode, user and group of all files and folders."""
    root = server.folder(options)
    found = ((path, path.stat()) for path in root.rglob("*"))
    return {str(p.relative_to(root)): (s.st_mode, s.st_uid, s.st_gid) for p, s in found}


@pytest.mark.parametrize(
    "options", [{}, {"file_mode": 0o640, "dir_mode": 0o2750}, {"file_mode": 0o600}]
)
def test_modes_and_owners_are_those_of_django(
    server: SshServer, tmp_path: Path, options: Options
) -> None:
    ours, theirs = ({**server.new_bucket(), **options} for _ in range(2))
    for place in (ours, theirs):
        server.put(place, "old/there.txt", b"was there")
    site, twin = (Site.on(server, place, tmp_path) for place in (ours, theirs))
    for name in (*NAMES, "by the class\x01/e.txt"):
        site.add(name)
    before = tree(site.media)
    result = site.migrate()
    assert result.code == 0, told(result)
    assert not django_side.save(twin, (*NAMES, "by the class\x01/e.txt")).errors
    assert modes(server, ours) == modes(server, theirs)
    assert tree(site.media) == before


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("file_mode", "0644", "written 420"),
        ("file_mode", 644, "mode 1204"),
        ("dir_mode", 755, "written 493"),
        ("uid", "1000", "'1000' is not a whole number"),
    ],
)
def test_a_mode_that_json_cannot_mean_is_refused(
    make: Make, option: str, value: object, words: str
) -> None:
    result = make(**{option: value}).plan()
    assert result.code == 2
    assert option in told(result)
    assert words in told(result)


def test_an_owner_is_set_and_one_that_may_not_be_is_told(server: SshServer, make: Make) -> None:
    own, group = server.owner
    assert verified(make(uid=own, gid=group).migrate())
    site = make(uid=own + 12345)
    site.add("new/other.jpg")
    result = site.migrate()
    assert result.code == 5
    assert "uid and gid need the rights of root" in told(result)


@pytest.mark.parametrize("form", ["{}", "./{}", "{}/", ".//{}"])
def test_root_path_leads_where_django_goes(
    server: SshServer, bucket: Options, make: Make, form: str
) -> None:
    name = bucket["root_path"].rpartition("/")[2]
    site = make(root_path=form.format(name))
    assert verified(site.migrate())
    assert server.keys(bucket) == ["photo é 1.jpg"]
    assert not django_side.read(site, ["photo é 1.jpg"]).errors


@pytest.mark.parametrize(
    ("root", "code", "words"),
    [
        ("", 2, "root_path: it is empty"),
        ("missing", 5, "root_path: there is no such folder"),
        ("/missing/too", 5, "root_path: there is no such folder"),
    ],
)
def test_a_root_path_into_which_django_could_not_save_is_refused(
    server: SshServer, make: Make, root: str, code: int, words: str
) -> None:
    before = sorted(server.home.iterdir())
    result = make(root_path=root).migrate()
    assert (result.code, words in told(result)) == (code, True), told(result)
    assert sorted(server.home.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interactive": True}, "interactive asks a person"),
        ({"host": ""}, "host is missing"),
        ({"params": {"pkey": "ssh-ed25519"}}, "params.pkey: a PKey object cannot come from JSON"),
        ({"params": {"usernam": "me"}}, "did you mean 'username'?"),
        ({"params": {"hostname": "me"}}, "no option 'params.hostname'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    make: Make, options: dict[str, Options], words: str
) -> None:
    result = make(**options).plan()
    assert result.code == 2
    assert words in told(result)


def test_a_shell_gives_hashes_and_none_gives_bytes(server: SshServer, make: Make) -> None:
    site = make()
    site.add('it\'s $(odd) `x` "q" *.jpg')
    result = site.migrate()
    assert result.code == 0, told(result)
    kind = {"sshd": "hash", "sshd_chroot": "bytes"}[server.name]
    assert {k: v["files"] for k, v in result.report["evidence"].items()} == {kind: 2}


def test_a_user_who_may_only_read_is_told_so(
    server: SshServer, bucket: Options, tmp_path: Path
) -> None:
    options = server.read_only(bucket)
    assert options
    site = Site.on(server, options, tmp_path)
    site.add("photo.jpg")
    result = site.migrate()
    assert result.code == 5
    assert re.search("root_path: this user may not do that", told(result))


def test_a_name_in_the_store_that_is_not_utf8_is_told(
    server: SshServer, bucket: Options, make: Make
) -> None:
    (server.folder(bucket) / os.fsdecode(b"caf\xe9.jpg")).touch()
    result = make().migrate()
    assert result.code == 6
    assert "holds a name that is not UTF-8" in told(result)


def test_a_link_on_the_server_is_what_it_leads_to(
    server: SshServer, bucket: Options, make: Make
) -> None:
    server.put(bucket, "real/theirs.jpg", b"theirs")
    (server.folder(bucket) / "linked").symlink_to("real")
    (server.folder(bucket) / "real/round").symlink_to("..")
    site = make()
    site.add("linked/theirs.jpg", b"ours")
    result = site.migrate()
    assert result.states() == {"verified": 1, "conflict": 1}, told(result)
    assert server.peek(bucket, "real/theirs.jpg").data == b"theirs"
