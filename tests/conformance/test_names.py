"""Promises 1 and 2 for names: stored as Django stores them and readable there, or refused."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.progress import printable
from orchestrator.template import load_all
from tests import django_side
from tests.conformance.corpus import HOSTILE, LIMIT, content, long_name
from tests.conformance.observe import stored
from tests.conformance.twin import Recorder, compare
from tests.servers.base import Options, Server, Stored
from tests.site import Result, Site

ALL = tuple(name for names in HOSTILE.values() for name in names)


def test_a_hostile_name_is_stored_as_django_stores_it_or_refused(
    server: Server, bucket: Options, tmp_path: Path, record_property: Recorder
) -> None:
    site = Site.on(server, bucket, tmp_path)
    twin = replace(site, options=server.new_bucket())
    for name in ALL:
        site.add(name, content(name))
    result = site.migrate("--skip-refused", "--sample=50%")  # all are read below
    saved = django_side.save(twin, [name for name in ALL if _is_allowed(server, name)])
    verified = _verified(result, ALL)
    rest = [name for name in ALL if name not in verified]
    assert len(verified) >= 60
    assert not set(saved.errors) & verified
    ours, theirs = stored(server, site.options), stored(server, twin.options)
    tally = compare(server, ours, _of(verified, theirs))
    tally.record(server, record_property)
    assert not tally.different
    assert _of(verified, ours).keys() == ours.keys()
    assert tally.equal["key"] == len(verified)
    assert _readable(site, verified) == verified
    storable = _readable(twin, rest) - saved.errors.keys()
    storable -= {*HOSTILE["bytes"]}
    assert not storable


def test_names_that_would_be_one_object_are_refused_together(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    names = ("folder/x.jpg", "folder\\x.jpg")
    site = Site.on(server, bucket, tmp_path)
    twin = replace(site, options=server.new_bucket())
    for name in (*names, "other.jpg"):
        site.add(name, content(name))
    django_side.save(twin, names)
    result = site.migrate("--skip-refused")
    apart = _readable(twin, names)
    assert _verified(result, names) == apart
    assert apart or all("would be the one object" in reason for reason in result.reasons().values())
    assert len(server.keys(site.options)) == len(apart) + 1


@pytest.mark.on("s3")
@pytest.mark.parametrize("location", ["tab\t␊/\u201b", "é e\u0301 🎉\uff0f\uff0e/[x]{y}*/-rf"])
def test_a_hostile_location_is_part_of_the_key_as_in_django(
    server: Server, bucket: Options, tmp_path: Path, location: str
) -> None:
    site = Site.on(server, {**bucket, "location": location}, tmp_path)
    twin = replace(site, options={**server.new_bucket(), "location": location})
    room = LIMIT - len(f"{location}/".encode())
    names = ("x.jpg", "a/y.jpg", long_name(room))
    for name in (*names, long_name(room + 1)):
        site.add(name, content(name))
    result = site.migrate("--skip-refused")
    assert _verified(result, names) == set(names)
    assert result.states() == {"verified": len(names), "refused": 1}
    django_side.save(twin, names)
    tally = compare(server, stored(server, site.options), stored(server, twin.options))
    assert not tally.different


def _verified(result: Result, names: Collection[str]) -> set[str]:
    """Return the names that the report does not name; each other has a reason, and all are told."""
    shown = {printable(name): name for name in names}
    assert len(shown) == len(names)
    reasons = result.reasons()
    assert all(reasons.values())
    assert result.report["unaccounted"] == 0
    assert sum(result.states().values()) == result.report["entries"]["files"]
    assert result.states().get("verified", 0) == result.report["entries"]["files"] - len(reasons)
    return {name for text, name in shown.items() if text not in reasons}


def _of(names: Iterable[str], objects: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return the objects that hold the content of one of the names."""
    contents = {content(name) for name in names}
    return {key: found for key, found in objects.items() if found.data in contents}


def _readable(site: Site, names: Iterable[str]) -> set[str]:
    """Return the names under which Django opens their own file, and no other name opens it."""
    read = django_side.read(site, names).given
    times = Counter(read.values())
    digests = {name: hashlib.sha256(content(name)).hexdigest() for name in read}
    return {n for n, digest in read.items() if digest == digests[n] and times[digest] == 1}


def _is_allowed(server: Server, name: str) -> bool:
    """Say whether the vendor takes this name; an emulator may take more."""
    names = next(t for t in load_all() if t.family == server.family).names
    forbidden = names.forbidden and names.forbidden.search(name)
    return len(os.fsencode(name)) <= names.max_bytes and not forbidden
