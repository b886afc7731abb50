"""Harness: bad networks and servers; no run says verified of what is not there.

Each run ends soon and says why and what to do; the same command ends verified once all is well.
"""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.proof.figures import Proof, Tally
from tests.proof.tamper import make_files
from tests.proof.test_on_the_way import site_of, wrong_in
from tests.proof.wrong_judge import CREDULOUS, FORGIVING, Planted
from tests.servers.base import Options, Server
from tests.servers.proxy import Proxy
from tests.servers.trouble import Trouble, flipping, reset, resetting, slowed
from tests.site import Result, Site

HARNESS = "bad networks and servers"
EVER = 1_000_000
BOUND = 120
"""Seconds after which each run has ended, on a busy machine."""
KIB = 1 << 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trouble, the exit codes that may come of it, and what the run then says."""

    begin: Callable[[Proxy, random.Random], None]
    codes: frozenset[int]
    says: str = ""
    bound: float = BOUND


def case(
    begin: Callable[[Proxy, random.Random], None], *codes: int, says: str = "", bound: float = BOUND
) -> Case:
    return Case(begin=begin, codes=frozenset(codes), says=says, bound=bound)


def answers(
    status: int, code: str, matching: str, times: int = EVER, **headers: str
) -> Callable[[Proxy, random.Random], None]:
    body = f"<Error><Code>{code}</Code><Message>It is so.</Message></Error>".encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    def begin(proxy: Proxy, _: random.Random) -> None:
        proxy.answer(status, body, matching=matching, times=times, headers=fields)

    return begin


def troubles(
    make: Callable[[Proxy, random.Random], Trouble], matching: str, times: int = EVER
) -> Callable[[Proxy, random.Random], None]:
    def begin(proxy: Proxy, chance: random.Random) -> None:
        proxy.trouble(make(proxy, chance), matching=matching, times=times)

    return begin


def says_all_is_well(matching: str, body: bytes) -> Callable[[Proxy, random.Random], None]:
    def begin(proxy: Proxy, _: random.Random) -> None:
        proxy.answer(200, body, matching=matching, times=EVER)

    return begin


PUT, READ, LIST = "^PUT ", r"^GET .*/(Img|big)", r"^GET .*(list-type|max-keys|prefix=)"
FAILED = "connection|reset|EOF"
CASES = {
    "no answer, only resets": case(
        troubles(lambda _p, _c: Trouble(before=reset), ""), 5, says=FAILED
    ),
    "some uploads are reset in the middle": case(
        troubles(lambda _p, _c: Trouble(up=partial(resetting, 5)), PUT, 8), 0
    ),
    "all uploads are reset in the middle": case(
        troubles(lambda _p, _c: Trouble(up=partial(resetting, 5)), PUT), 6, says=FAILED
    ),
    "some downloads are reset in the middle": case(
        troubles(lambda _p, _c: Trouble(down=partial(resetting, 5)), READ, 8), 0, 7, says=FAILED
    ),
    "all downloads are reset in the middle": case(
        troubles(lambda _p, _c: Trouble(down=partial(resetting, 5)), READ), 6, 7, says=FAILED
    ),
    "each request waits": case(
        troubles(lambda p, _c: Trouble(before=partial(p.over.wait, 0.3)), ""), 0
    ),
    "uploads at 20 KiB a second": case(
        troubles(lambda p, _c: Trouble(up=partial(slowed, 20 * KIB, p.over)), PUT), 0
    ),
    "1 KiB a second for a while": case(
        troubles(lambda p, _c: Trouble(up=partial(slowed, KIB, p.over, 4 * KIB)), PUT, 10), 0
    ),
    "one upload hangs for ever": case(
        troubles(lambda p, _c: Trouble(before=p.over.wait), "^PUT .*Img00007"), 6, says="."
    ),
    "all uploads hang for ever": case(
        troubles(lambda p, _c: Trouble(before=p.over.wait), PUT), 6, says="."
    ),
    "500 now and then": case(answers(500, "InternalError", PUT, 8), 0),
    "500 for one file": case(
        answers(500, "InternalError", "^PUT .*Img00007"), 6, says="InternalError"
    ),
    "500 for all uploads": case(answers(500, "InternalError", PUT), 6, says="InternalError|500"),
    "503 SlowDown for a while": case(answers(503, "SlowDown", PUT, 12), 0),
    "503 SlowDown for ever": case(answers(503, "SlowDown", PUT), 6, says="slow down|SlowDown"),
    "429 with Retry-After": case(answers(429, "TooManyRequests", PUT, 6, Retry_After="1"), 0),
    "403 of an expired token after a while": case(
        answers(403, "ExpiredToken", "^PUT .*(docs|photos)"), 5, says="expired"
    ),
    "403 AccessDenied after a while": case(
        answers(403, "AccessDenied", "^PUT .*(docs|photos)"), 5, says="may not"
    ),
    "507 as the store is full": case(
        answers(507, "InsufficientStorage", PUT), 6, says="full|space|room|Insufficient"
    ),
    "a login page in the place of each answer": case(
        says_all_is_well("", b"<html>Please log in to this network</html>"), 5, 6, 7, says="."
    ),
    "a login page in the place of downloads": case(
        says_all_is_well(READ, b"<html>Please log in</html>"), 7, says="differs"
    ),
    "uploads that are only said to be stored": case(says_all_is_well(PUT, b""), 6, 7, says="."),
    "one byte of a download is another": case(
        troubles(lambda _p, c: Trouble(down=partial(flipping, c)), READ), 7, says="differs"
    ),
    "one byte of the listings is another": case(
        troubles(lambda _p, c: Trouble(down=partial(flipping, c)), LIST), 0, 2, 5, 6, 7, says="."
    ),
}


SHORT = {
    "some uploads are reset in the middle",
    "403 of an expired token after a while",
    "a login page in the place of downloads",
    "uploads that are only said to be stored",
}
"""Cases of the short form, too."""
LONG = {
    "all uploads are reset in the middle",
    "one upload hangs for ever",
    "all uploads hang for ever",
    "500 for all uploads",
    "503 SlowDown for ever",
}
"""Ended after two minutes without any gain."""


def parameter(title: str) -> Any:
    marks = [] if title in SHORT else [pytest.mark.full]
    return pytest.param(title, marks=marks)


@pytest.mark.on("rclone_s3")
@pytest.mark.parametrize("title", [parameter(title) for title in CASES])
def test_trouble_between_us_and_the_store(
    title: str, proof: Proof, server: Server, bucket: Options, tmp_path: Path
) -> None:
    chance = random.Random(f"{proof.seed} {title}")
    files = some_files(chance)
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, tmp_path, files)
        CASES[title].begin(proxy, chance)
        done, seconds = migrated(site, 300 if title in LONG else BOUND)
        lies = told_wrongly(server, bucket, site, files)
        proxy.heal()
        again = site.migrate("--no-thumbnails")
    proven(proof, lies, well(server, bucket, files, again))
    assert seconds < (300 if title in LONG else CASES[title].bound)
    ended_clearly(done, CASES[title].codes, CASES[title].says)


def some_files(chance: random.Random) -> dict[str, bytes]:
    """Return small files, and some that take more than one block on their way."""
    big = {f"photos/big{n}.jpg": chance.randbytes(100 * KIB) for n in range(2)}
    return {**make_files(chance, 40), **big}


def migrated(site: Site, patience: float = BOUND) -> tuple[Result, float]:
    start = time.monotonic()
    done = replace(site, patience=patience).migrate("--no-thumbnails")
    return done, time.monotonic() - start


def told_wrongly(
    server: Server, options: Options, site: Site, files: Mapping[str, bytes]
) -> list[str]:
    """Return the files that the last run's ledger calls verified and whose object is wrong."""
    runs = sorted(site.runs.glob("2*/ledger.sqlite"))
    if not runs:
        return []
    with closing(sqlite3.connect(runs[-1])) as ledger:
        found = ledger.execute("SELECT name FROM entry WHERE state = 'verified'").fetchall()
    return sorted(wrong_in(server, options, files) & {name for (name,) in found})


def well(server: Server, options: Options, files: Mapping[str, bytes], done: Result) -> list[str]:
    """Return what is not well after the run on a healthy network."""
    states = done.report and done.states()
    if (done.code, states) != (0, {"verified": len(files)}):
        return [f"exit code {done.code}, {states}, {done.out[-1000:]}"]
    return sorted(wrong_in(server, options, files))


def proven(proof: Proof, lies: list[str], unwell: list[str]) -> None:
    proof.holds(HARNESS, Tally(cases=1, missed=lies, false_alarms=unwell))


def ended_clearly(done: Result, codes: frozenset[int], says: str) -> None:
    """Check the exit code, and that the last words name the cause, with a tip."""
    assert done.code in codes, (done.code, done.out[-3000:], done.err[-2000:])
    assert "Traceback" not in done.out + done.err
    if done.code == 0:
        return
    events = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    problems = [p for event in events if event["event"] == "error" for p in event["problems"]]
    assert all(problem["tip"] for problem in problems)
    words = [p["what"] for p in problems] or list(done.reasons().values())
    assert words
    assert all(re.search(says, text) for text in words), words


# The harness itself


def planted(
    defect: str, title: str, server: Server, bucket: Options, folder: Path
) -> tuple[Result, Site, dict[str, bytes]]:
    chance = random.Random(1)
    files = make_files(chance, 24)
    with server.proxied(bucket) as (options, proxy):
        site = Planted(**vars(site_of(server, options, folder, files)), defect=defect)
        CASES[title].begin(proxy, chance)
        return migrated(site)[0], site, files


@pytest.mark.on("rclone_s3")
def test_the_harness_sees_a_program_that_says_verified_of_what_is_not_there(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    title = "uploads that are only said to be stored"
    done, site, files = planted(FORGIVING, title, server, bucket, tmp_path)
    lies = told_wrongly(server, bucket, site, files)
    assert lies
    assert set(lies) < files.keys()
    assert well(server, bucket, files, done) != []


@pytest.mark.on("rclone_s3")
def test_the_harness_sees_a_program_that_believes_an_answer_with_a_wrong_body(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    title = "a login page in the place of downloads"
    done, _, files = planted(CREDULOUS, title, server, bucket, tmp_path)
    assert done.states() == {"verified": len(files)}
    with pytest.raises(AssertionError):
        ended_clearly(done, CASES[title].codes, CASES[title].says)


@pytest.mark.on("rclone_s3")
def test_the_harness_sees_an_end_without_its_cause_and_a_store_that_lost_an_object(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    title = "403 of an expired token after a while"
    done, site, files = planted("import sys\n", title, server, bucket, tmp_path)
    ended_clearly(done, CASES[title].codes, CASES[title].says)
    with pytest.raises(AssertionError):
        ended_clearly(done, CASES[title].codes, "quota")
    with pytest.raises(AssertionError):
        ended_clearly(done, frozenset({6}), CASES[title].says)
    again = replace(site, options=bucket).migrate("--no-thumbnails")
    assert well(server, bucket, files, again) == []
    lost = min(files)
    server.delete(bucket, lost)
    assert well(server, bucket, files, again) == [lost]
