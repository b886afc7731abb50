"""Hashes of local content in the very form in which a store reports those of its objects."""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Protocol

BLOCK = 1 << 20


class Hasher(Protocol):
    """Fed the bytes of one object; `values` are the hashes that a store may report for them."""

    def update(self, data: bytes, /) -> None: ...
    def values(self) -> tuple[str, ...]: ...


class Hash:
    """One hash of hashlib, in hex."""

    def __init__(self, name: str) -> None:
        self._hash = hashlib.new(name, usedforsecurity=False)

    def update(self, data: bytes, /) -> None:
        self._hash.update(data)

    def values(self) -> tuple[str, ...]:
        return (self._hash.hexdigest(),)


class ETag:
    """S3: MD5 of an object sent at once; MD5 of the parts' MD5s and their number otherwise.

    Source: AWS, "Checking object integrity"; boto3 sends parts of `part` bytes from `threshold` on.
    """

    def __init__(self, threshold: int, part: int) -> None:
        self._whole, self._part = _md5(), _md5()
        self._parts = b""
        self._threshold, self._size, self._room, self._total = threshold, part, part, 0

    def update(self, data: bytes, /) -> None:
        self._whole.update(data)
        self._total += len(data)
        view = memoryview(data)
        while view:
            taken = view[: self._room]
            self._part.update(taken)
            self._room -= len(taken)
            view = view[len(taken) :]
            if not self._room:
                self._next_part()

    def _next_part(self) -> None:
        self._parts += self._part.digest()
        self._part, self._room = _md5(), self._size

    def values(self) -> tuple[str, ...]:
        whole = self._whole.hexdigest()
        if self._total < self._threshold:
            return (whole,)
        if self._room < self._size:
            self._next_part()
        digest = _md5(self._parts).hexdigest()
        return whole, f"{digest}-{len(self._parts) // 16}"


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def digest(body: BinaryIO, hasher: Hasher) -> tuple[str, ...]:
    while data := body.read(BLOCK):
        hasher.update(data)
    return hasher.values()
