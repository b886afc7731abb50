"""What only a store's own client can say: which objects there are, and how each is stored.

One module a family, named like its template, with a class `Client(storage)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from orchestrator.digest import Hasher


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """An object as the store lists it; `hash` is None where the store has none of the whole."""

    key: str
    size: int
    hash: str | None
    tag: str | None


class Client(Protocol):
    """A family's client inherits from this, and may leave out `settle` and `head`.

    Uses the connection of the storage object it is made with; raises that SDK's errors.
    """

    def probe(self, prefix: str, source: Path) -> None:
        """Fail unless the container exists, can be listed, and `source` may be copied there."""

    def objects(self, prefix: str) -> Iterator[Stored]:
        """List every object whose key starts with `prefix`."""

    def head(self, key: str) -> Mapping[str, Any]:  # noqa: ARG002  # a store without headers
        """Return the parameters under which `key` is stored, named as the class names them."""
        return {}

    def puts(self, size: int) -> int:
        """Return how many requests it takes to write an object of `size` bytes."""

    def settle(self, name: str) -> None:  # noqa: ARG002
        """Give an object that rclone wrote what save() would and rclone cannot, such as modes."""
        return

    def hasher(self) -> Hasher:
        """Return a new hasher whose values can equal `Stored.hash`."""


def client(family: str, storage: Any) -> Client:
    made: Client = import_module(f"orchestrator.clients.{family}").Client(storage)
    return made
