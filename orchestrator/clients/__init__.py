"""What only a store's own client can say: which objects there are, and how each is stored.

One module a family, named like its template, with a class `Client(storage)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from orchestrator.digest import Hasher


class Stored(NamedTuple):
    """An object as the store lists it; `hash` is None where the store has none of the whole.

    No dataclass: there are millions of them, as of the ledger's rows.
    """

    key: str
    size: int
    hash: str | None
    tag: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Acl:
    """An object's ACL held against the one that was asked for; only grants to everybody count.

    `untold` says why the store does not tell it, or is ''.
    """

    asked: str
    given: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()
    untold: str = ""


class Client(Protocol):
    """A family's client inherits from this, and may leave out all that has a body here.

    Uses the connection of the storage object it is made with; raises that SDK's errors.
    """

    def probe(self, prefix: str, source: Path) -> None:
        """Fail unless the container exists, can be listed, and `source` may be copied there."""

    def objects(self, prefix: str) -> Iterator[Stored]:
        """List every object whose key starts with `prefix`."""

    def among(
        self,
        prefix: str,  # noqa: ARG002
        after: str,  # noqa: ARG002
        keys: Sequence[str],  # noqa: ARG002
    ) -> Iterable[Stored] | None:
        """Yield the objects with these keys, and perhaps others; None where it cannot.

        The keys are sorted; `after` is before them all, and near the first. May be called from
        several threads. What it leaves out is looked for in a whole listing.
        """
        return None

    def head(self, key: str) -> Mapping[str, Any]:  # noqa: ARG002  # a store without headers
        """Return the parameters under which `key` is stored, named as the class names them."""
        return {}

    def told(self, file: Any) -> Mapping[str, Any] | None:  # noqa: ARG002
        """Return what head() would, where the class was told it when it opened `file`."""
        return None

    def acl(self, key: str, parameters: Mapping[str, Any]) -> Acl | None:  # noqa: ARG002
        """Ask for an object's ACL; None where the parameters of its save() ask for none."""
        return None

    def parameters(self, key: str) -> Mapping[str, Any]:  # noqa: ARG002
        """Say what save() would say about an object, where no method of the class says it."""
        return {}

    def refusal(self, key: str) -> str:  # noqa: ARG002
        """Say why the store as it is now cannot take an object under `key`, or ''."""
        return ""

    def room(self) -> int | None:
        """Return how many bytes the store can still take; None where it does not say."""
        return None

    def prepare(self, keys: Iterable[str]) -> None:  # noqa: ARG002
        """Make ready for objects that rclone will write, as by making their folders."""
        return

    def read(self, name: str) -> Iterator[bytes] | None:  # noqa: ARG002
        """Yield an object's bytes, for a class whose own open() is known to fail."""
        return None

    def puts(self, size: int) -> int:
        """Return how many requests it takes to write an object of `size` bytes."""

    def settle(self, name: str) -> None:  # noqa: ARG002
        """Give an object that rclone wrote what save() would and rclone cannot, such as modes."""
        return

    def hasher(self) -> Hasher:
        """Return a new hasher whose values can equal `Stored.hash`."""


def entry(family: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the class will read in a dictionary of Django's settings, if it does that."""
    found = getattr(import_module(f"orchestrator.clients.{family}"), "entry", None)
    return found(options) if found else {}


def client(family: str, storage: Any) -> Client:
    made: Client = import_module(f"orchestrator.clients.{family}").Client(storage)
    return made
