"""FTP and FTPS: what the URL means to the class, encodings, certificates, and its defects."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tests import django_side
from tests.servers import pyftpdlib
from tests.servers.base import Options
from tests.servers.ftp import FtpServer, User
from tests.site import Result, Site

EACH = pytest.mark.on("ftp")
PLAIN = pytest.mark.on("proftpd", "pyftpdlib")
SECURE = pytest.mark.on("proftpd_tls")
KEEPS_BYTES = pytest.mark.on("proftpd", "proftpd_tls")
CONSENT = {"RCLONE_FTP_NO_CHECK_CERTIFICATE": "true"}
SPACES = ("two words.jpg", "a  b/c  d.jpg", " lead.jpg", "trail.jpg ", ".hidden", "x -> y.jpg")
Make = Callable[..., Site]


@pytest.fixture
def make(bucket: Options, server: FtpServer, tmp_path: Path) -> Make:
    """Return a function: what differs in the options in, a site with one file out."""

    def made(**options: object) -> Site:
        site = Site.on(server, {**bucket, **options}, tmp_path)
        site.add("photo 1.jpg")
        return site

    return made


def place(bucket: Options) -> str:
    return str(bucket["location"]).rpartition("/")[2]


def told(result: Result) -> str:
    return result.out + result.err


def verified(result: Result) -> bool:
    assert result.code == 0, told(result)
    return result.states() == {"verified": 1}


@EACH
@pytest.mark.parametrize("form", ["{}", "/{}", "/{}/", "./{}//"])
def test_the_path_of_the_url_leads_where_django_goes(
    server: FtpServer, bucket: Options, make: Make, form: str
) -> None:
    site = make(location=server.url(server.user, form.format(place(bucket))))
    assert verified(site.migrate())
    assert server.keys(bucket) == ["photo 1.jpg"]
    assert not django_side.read(site, ["photo 1.jpg"]).errors


@EACH
def test_no_path_is_the_root_of_the_server(
    server: FtpServer, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, {**bucket, "location": server.url(server.user, "")}, tmp_path)
    name = f"{place(bucket)}/photo.jpg"
    site.add(name)
    assert verified(site.migrate())
    assert server.keys(bucket) == ["photo.jpg"]
    assert not django_side.read(site, [name]).errors


@KEEPS_BYTES
def test_names_in_latin_1_arrive_as_django_reads_them(
    server: FtpServer, bucket: Options, tmp_path: Path
) -> None:
    names = ("café.jpg", "grüße/ñ.jpg", "a\x85b.jpg", "plain.jpg")
    latin = {"location": bucket["location"]}
    site = Site.on(server, latin, tmp_path)
    for name in (*names, "日本.jpg"):
        site.add(name)
    result = site.migrate("--skip-refused")
    assert result.states() == {"verified": len(names), "refused": 1}, told(result)
    assert 'if the server takes UTF-8, set "encoding": "utf-8"' in result.reasons()["日本.jpg"]
    assert set(map(os.fsencode, server.keys(bucket))) == {n.encode("latin-1") for n in names}
    assert not django_side.read(site, names).errors
    again = site.migrate("--skip-refused")
    assert again.report["changes"].keys() == {"same"}


@EACH
def test_a_name_that_breaks_the_size_of_the_class_is_verified_by_its_bytes(
    server: FtpServer, bucket: Options, make: Make
) -> None:
    site = make()
    for name in SPACES:
        site.add(name, name.encode() * 100)
    result = site.migrate()
    assert result.code == 0, told(result)
    assert result.report["evidence"]["bytes"]["files"] == len(SPACES) + 1
    server.put(bucket, SPACES[0], b"x" * len(SPACES[0].encode() * 100))
    assert site.run("check").reasons().keys() == {SPACES[0]}


def test_a_server_without_mlsd_is_listed_by_its_lines(tmp_path: Path) -> None:
    with pyftpdlib.start(tmp_path, "no-mlsd") as server:
        site = Site.on(server, server.options, tmp_path)
        for name in SPACES:
            site.add(name, b"ours")
        server.put(server.options, "deep/er/their  s.jpg", b"theirs")
        site.add("deep/er/their  s.jpg", b"not theirs")
        result = site.migrate()
        assert result.states() == {"verified": len(SPACES), "conflict": 1}, told(result)
        assert site.migrate().report["changes"] == {
            "same": {"files": len(SPACES), "bytes": 4 * len(SPACES)},
            "conflict": {"files": 1, "bytes": 10},
        }


@SECURE
def test_a_certificate_of_an_unknown_authority_needs_consent(
    server: FtpServer, bucket: Options, make: Make
) -> None:
    site = make()
    for command in ("plan", "migrate"):
        result = site.run(command, SSL_CERT_FILE="")
        assert result.code == 5
        assert "not of an authority that this machine knows" in told(result)
        assert "RCLONE_FTP_NO_CHECK_CERTIFICATE=true" in told(result)
    assert server.keys(bucket) == []
    assert verified(site.migrate(SSL_CERT_FILE="", **CONSENT))
    assert any("accepts any certificate" in note for note in site.plan().report["notes"])


@EACH
def test_the_scheme_must_be_the_server_s(server: FtpServer, make: Make) -> None:
    secure = bool(server.environ)
    location = server.url(server.user, "x")
    wrong = location.replace("ftps://", "ftp://") if secure else f"ftps{location[3:]}"
    result = make(location=wrong).migrate(**CONSENT)
    assert result.code in (2, 5)
    assert ("asks for TLS" if secure else "does not offer TLS") in told(result)


@PLAIN
def test_active_mode_is_told(server: FtpServer, bucket: Options, make: Make) -> None:
    result = make(location=f"a{bucket['location']}").migrate()
    assert verified(result)
    assert any("rclone cannot do that" in note for note in result.report["notes"])


@EACH
@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("aftps://u:s3cretpass@h:21/", "Only ftp, aftp, ftps schemes"),
        ("ftp://u:s3cretpass@h/", "Improperly formatted location URL"),
        ("ftp://u:s3cretpass@nowhere.invalid:21/", "host name cannot be resolved"),
        ("ftp://u:s3cretpass@127.0.0.1:1/", "nothing listens"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(
    make: Make, location: str, words: str
) -> None:
    result = make(location=location).migrate()
    assert result.code in (2, 5)
    assert words in told(result)
    assert "s3cretpass" not in told(result)


@EACH
def test_a_wrong_password_is_refused_and_not_shown(
    server: FtpServer, bucket: Options, make: Make
) -> None:
    secret = "Wr0ng@/secret"
    result = make(location=server.url(User(name="owner", password=secret), place(bucket))).migrate()
    assert result.code == 5
    assert "does not let this user in" in told(result)
    assert secret not in told(result)


@EACH
def test_a_missing_folder_is_refused_and_not_made(server: FtpServer, make: Make) -> None:
    before = sorted(server.home.iterdir())
    result = make(location=server.url(server.user, "missing/too")).migrate()
    assert result.code == 5
    assert "there is no such folder on the server" in told(result)
    assert sorted(server.home.iterdir()) == before


@EACH
def test_a_user_who_may_only_read_is_told_so(
    server: FtpServer, bucket: Options, make: Make
) -> None:
    options = server.read_only(bucket)
    assert options
    result = make(**options).migrate()
    assert result.code == 5
    assert "this user may not write there" in told(result)
    assert server.keys(bucket) == []


@pytest.mark.on("pyftpdlib")  # of which only the other options are taken
def test_a_server_that_hangs_up_at_once_is_told_as_that(server: FtpServer, make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        Thread(target=hang_up, daemon=True).start()
        result = make(location=f"ftp://owner:word@127.0.0.1:{listener.getsockname()[1]}/").migrate()
        listener.shutdown(socket.SHUT_RDWR)
    assert result.code == 6
    assert "closed the connection without a word" in told(result)
    assert "see whether it is an FTP server" in told(result)
