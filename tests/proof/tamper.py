"""Faults for a store: each kind is done behind everybody's back, and must be named with its file.

A kind's `check` and `verify` are what the command must say of it; None where it cannot see it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

from tests.conformance.test_fails_closed import put_in_parts
from tests.proof.figures import Tally
from tests.servers.base import Headers, Options, Server, Stored
from tests.servers.moto import MotoServer
from tests.servers.trouble import flipped
from tests.site import Result

FOLDERS = ("photos", "photos/2019 summer", "avatars", "docs")
ENDINGS = ("jpg", "png", "pdf", "txt")
SHORTEST, LONGEST = 8, 2000
CACHED = "max-age=86400"
CACHING: Mapping[str, Options] = {
    "s3": {"object_parameters": {"CacheControl": CACHED}, "default_acl": "authenticated-read"},
    "azure": {"cache_control": CACHED},
}
"""Options of the families whose objects have headers, or an ACL, that can be lost."""
FOLDED = frozenset({"dropbox"})
"""Families that find an object under a name in another case."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A file, what was done to its object, and what each command must say of it."""

    name: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Store:
    """One bucket seen by its server, with the file that each object was made of."""

    server: Server
    options: Options
    files: dict[str, bytes]
    chance: random.Random
    earlier: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Stored] = field(default_factory=dict)

    def find_keys(self) -> None:
        for key in self.server.keys(self.options):
            name = key
            while name not in self.files:
                name = name.partition("/")[2]
                assert name, f"{key} is of no file"
            self.keys[name] = key

    def put(self, name: str, data: bytes, **headers: str) -> None:
        """Put other bytes in the place of an object, or other headers beside them."""
        given = {**headers_of(self.kept[name]), **headers}
        found = Headers(**{k: v for k, v in given.items() if v})  # type: ignore[typeddict-item]
        self.server.put(self.options, self.keys[name], data, **found)

    def delete(self, name: str) -> None:
        self.server.delete(self.options, self.keys[name])

    def tamper(self, names: Sequence[str], kinds: Sequence[Kind]) -> list[Fault]:
        """Do each kind to its share of the names, whose objects are kept for `repair`."""
        self.kept.update((n, self.server.peek(self.options, self.keys[n])) for n in names)
        faults = []
        for pair, kind in zip(
            zip(names[::2], names[1::2], strict=True), cycle(kinds), strict=False
        ):
            for name, other in zip(pair, reversed(pair), strict=True):
                kind.do(self, name, other)
                faults.append(Fault(name=name, kind=kind))
        return faults

    def repair(self) -> None:
        known = set(self.keys.values())
        for key in set(self.server.keys(self.options)) - known:
            self.server.delete(self.options, key)
        for name, stored in self.kept.items():
            self.put(name, stored.data)
        self.kept.clear()


def headers_of(stored: Stored) -> dict[str, str]:
    return {"content_type": stored.content_type, "cache_control": stored.cache_control}


def content(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(SHORTEST, LONGEST))


def make_files(chance: random.Random, count: int) -> dict[str, bytes]:
    return {
        f"{chance.choice(FOLDERS)}/Img{n:05}.{chance.choice(ENDINGS)}": content(chance)
        for n in range(count)
    }


# What can be done to an object


@dataclass(frozen=True, kw_only=True)
class Kind:
    title: str
    do: Callable[[Store, str, str], None]
    check: str | None = r"content differs|size in the store"
    verify: str | None = r"content differs|failed"
    extra: bool = False
    """It leaves an object that belongs to no file."""


def flip(store: Store, name: str, _: str) -> None:
    store.put(name, flipped(store.files[name], store.chance))


def truncate(store: Store, name: str, _: str) -> None:
    data = store.files[name]
    store.put(name, data[: store.chance.randrange(len(data))])


def remove(store: Store, name: str, _: str) -> None:
    store.delete(name)


def swap(store: Store, name: str, other: str) -> None:
    store.put(name, store.files[other])


def rename(store: Store, name: str, _: str) -> None:
    store.delete(name)
    folder, slash, last = store.keys[name].rpartition("/")
    store.server.put(store.options, folder + slash + last.swapcase(), store.files[name])


def put_back(store: Store, name: str, _: str) -> None:
    store.put(name, store.earlier[name])


def flip_unhashed(store: Store, name: str, _: str) -> None:
    key = store.keys[name]
    put_in_parts(store.options, key, flipped(store.files[name], store.chance), part=5 << 20)


def retype(store: Store, name: str, _: str) -> None:
    store.put(name, store.files[name], content_type="text/html")


def uncache(store: Store, name: str, _: str) -> None:
    store.put(name, store.files[name], cache_control="")


def grant(acl: str, store: Store, name: str, _: str) -> None:
    assert isinstance(store.server, MotoServer)
    store.server.grant(store.options, store.keys[name], acl)


GONE = r"not in the store"
RENAMED = Kind(title="wrong case", do=rename, check=GONE, verify="failed", extra=True)
RENAMED_FOLDED = Kind(title="wrong case", do=rename, check=GONE, verify=None)
EARLIER = Kind(title="earlier version", do=put_back)
CONTENT = (
    Kind(title="byte flipped", do=flip),
    Kind(title="truncated", do=truncate),
    Kind(title="missing", do=remove, check=GONE, verify="failed"),
    Kind(title="swapped", do=swap),
)
UNHASHED = Kind(title="byte flipped, no hash", do=flip_unhashed)
HEADERS = (
    Kind(title="content type", do=retype, check=None, verify="(?i)content_?type is 'text/html'"),
    Kind(title="cache control lost", do=uncache, check=None, verify="(?i)cache_?control is None"),
)
ACLS = tuple(
    Kind(title=f"ACL made {acl}", do=partial(grant, acl), check=None, verify=f"ACL {says}")
    for acl, says in {"public-read": "grants AllUsers READ", "private": "lacks"}.items()
)


def kinds(server: Server) -> tuple[Kind, ...]:
    """Return the kinds of faults that the server's store can have; earlier versions come apart."""
    return (
        *CONTENT,
        RENAMED_FOLDED if server.family in FOLDED else RENAMED,
        *([UNHASHED] if server.family == "s3" else []),
        *(HEADERS if server.family in CACHING else []),
        *(ACLS if isinstance(server, MotoServer) else []),
    )


# What a report must say


def judge(result: Result, faults: Iterable[Fault], names: Iterable[str]) -> Tally:
    """Hold a report of `check` or `verify` against what was done to the objects of `names`."""
    reasons = result.reasons()
    says = {f: getattr(f.kind, result.report["command"]) for f in faults}
    visible = {fault.name: (fault.kind.title, words) for fault, words in says.items() if words}
    return Tally(
        cases=len(visible),
        missed=[
            f"{title}: {name}: {reasons.get(name, 'not named')}"
            for name, (title, words) in visible.items()
            if not re.search(words, reasons.get(name, ""))
        ],
        false_alarms=[f"{name}: {reasons[name]}" for name in reasons if name not in visible]
        + [f"{name}: it is no file" for name in reasons.keys() - set(names)],
    )
