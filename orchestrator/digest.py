"""Hashes of local content in the very form in which a store reports those of its objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

BLOCK = 1 << 18


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
        self._part = _md5()
        self._whole: hashlib._Hash | None = None  # up to the end of the first part they are one
        self._parts = b""
        self._threshold, self._size, self._room, self._total = threshold, part, part, 0

    def update(self, data: bytes, /) -> None:
        self._total += len(data)
        if len(data) < self._room and not self._whole:  # as in almost every file
            self._part.update(data)
            self._room -= len(data)
            return
        for piece in _pieces(data, self._room, self._size):
            self._part.update(piece)
            if self._whole:
                self._whole.update(piece)
            self._room -= len(piece)
            if not self._room:
                self._next_part()

    def _next_part(self) -> None:
        self._whole = self._whole or self._part.copy()
        self._parts += self._part.digest()
        self._part, self._room = _md5(), self._size

    def values(self) -> tuple[str, ...]:
        whole = (self._whole or self._part).hexdigest()
        if self._total < self._threshold:
            return (whole,)
        if self._room < self._size:
            self._next_part()
        digest = _md5(self._parts).hexdigest()
        return whole, f"{digest}-{len(self._parts) // 16}"


class ContentHash:
    """Dropbox: SHA-256 of the SHA-256s of the blocks of 4 MiB.

    Source: Dropbox, "Content Hash".
    """

    SIZE = 4 << 20

    def __init__(self) -> None:
        self._blocks, self._block, self._room = hashlib.sha256(), hashlib.sha256(), self.SIZE

    def update(self, data: bytes, /) -> None:
        for piece in _pieces(data, self._room, self.SIZE):
            self._block.update(piece)
            self._room -= len(piece)
            if not self._room:
                self._next_block()

    def _next_block(self) -> None:
        self._blocks.update(self._block.digest())
        self._block, self._room = hashlib.sha256(), self.SIZE

    def values(self) -> tuple[str, ...]:
        if self._room < self.SIZE:
            self._next_block()
        return (self._blocks.hexdigest(),)


def _pieces(data: bytes, room: int, size: int) -> Iterator[memoryview]:
    """Cut data at the borders of blocks of `size` bytes; the first of them has `room` left."""
    view = memoryview(data)
    while view:
        yield view[:room]
        view, room = view[room:], size


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def digest(body: BinaryIO, hasher: Hasher) -> tuple[str, ...]:
    while data := body.read(BLOCK):
        hasher.update(data)
    return hasher.values()
