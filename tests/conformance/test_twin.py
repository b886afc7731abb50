"""Promise 1: a migrated object equals what `storage.save(name, file)` would have stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests import django_side
from tests.conformance.corpus import SIZES, SOME, TYPES, content, noise
from tests.conformance.observe import stored
from tests.conformance.twin import Recorder, Tally, compare
from tests.servers.base import Options, Server
from tests.site import Site

EVERYTHING: Options = {
    "location": "loc/sub",
    "default_acl": "public-read",
    "object_parameters": {
        "CacheControl": "public, max-age=86400",
        "ContentDisposition": 'attachment; filename="a b.bin"',
        "ContentLanguage": "de, en",
        "Metadata": {"Owner": "the family", "x-origin": "a=b; c, d"},
        "Tagging": "kind=photo&place=at%20home",
        "StorageClass": "REDUCED_REDUNDANCY",
        "ServerSideEncryption": "AES256",
    },
}
OPTION_SETS: Mapping[str, Options] = {
    "everything": EVERYTHING,
    "gzip": {"gzip": True, "location": "packed"},
    "expires": {"object_parameters": {"Expires": "2031-05-01T00:00:00Z", "CacheControl": "public"}},
}


def twins(server: Server, site: Site) -> Tally:
    """Migrate the site's media, let Django save them elsewhere, and compare all that is stored."""
    twin = replace(site, options={**site.options, **server.new_bucket()})
    result = site.migrate()
    assert result.code == 0, (result.err, result.reasons())
    names = sorted(str(path.relative_to(site.media)) for path in _files(site))
    assert result.states() == {"verified": len(names)}
    saved = django_side.save(twin, names)
    assert saved.given == {name: name for name in names}
    return compare(server, stored(server, site.options), stored(server, twin.options))


def _files(site: Site) -> list[Path]:
    return [path for path in site.media.rglob("*") if path.is_file()]


def test_each_type_of_file_is_stored_as_django_stores_it(
    server: Server, bucket: Options, tmp_path: Path, record_property: Recorder
) -> None:
    site = Site.on(server, bucket, tmp_path)
    for name in TYPES:
        site.add(name, content(name))
    tally = twins(server, site)
    tally.record(server, record_property)
    assert not tally.different
    assert tally.equal["key"] == len(TYPES) >= 60


def test_each_size_is_sent_in_the_parts_that_django_sends(
    server: Server, bucket: Options, tmp_path: Path, record_property: Recorder
) -> None:
    site = Site.on(server, bucket, tmp_path)
    for size in SIZES:
        site.add(f"{size}.jpg", noise(size))
    tally = twins(server, site)
    tally.record(server, record_property)
    assert not tally.different
    assert tally.equal["key"] == len(SIZES)


@pytest.mark.on("s3")
@pytest.mark.parametrize("options", OPTION_SETS.values(), ids=OPTION_SETS)
def test_what_the_options_say_of_an_object_is_stored_as_django_stores_it(
    server: Server,
    bucket: Options,
    options: Options,
    tmp_path: Path,
    record_property: Recorder,
) -> None:
    site = Site.on(server, {**bucket, **options}, tmp_path)
    for name in SOME:
        site.add(name, content(name))
    tally = twins(server, site)
    tally.record(server, record_property)
    assert not tally.different
    assert tally.equal["key"] == len(SOME)


@pytest.mark.on("s3")
def test_a_subclass_that_judges_by_the_name_is_asked_for_each_name(
    server: Server, bucket: Options, tmp_path: Path, record_property: Recorder
) -> None:
    site = replace(Site.on(server, bucket, tmp_path), storage_class="tests.site_storage.ByName")
    for name in ("a.pdf", "b.docx", "c.tar.gz", "d.jpg", "In/a.pdf", "In/deep/d.jpg"):
        site.add(name, content(name))
    tally = twins(server, site)
    tally.record(server, record_property)
    assert not tally.different
    assert tally.equal["content_disposition"] == 3
    assert tally.equal["metadata"] == 2
