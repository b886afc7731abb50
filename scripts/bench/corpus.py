"""Folders of made-up media: their sizes are what counts, so their bytes are random."""

from __future__ import annotations

import mimetypes
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
FOLDER = 100  # files in a folder
TYPES = 50
RANGES = {  # bytes of a file
    "small": (4 * KIB, 60 * KIB),
    "photos": (1 * MIB, 6 * MIB),
    "video": (100 * MIB, 100 * MIB),
    "mixed": (4 * KIB, 60 * KIB),
    "part": (4 * KIB, 60 * KIB),  # of small, for the slow
    "fixed": (4 * KIB, 60 * KIB),  # so few files that what a run costs at least is seen
    "again": (200, 2 * KIB),  # so many that a listing takes a while
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    name: str
    folder: Path
    files: int
    bytes: int


@contextmanager
def corpus(name: str, files: int, folder: Path) -> Iterator[Corpus]:
    """Draw `files` files; they are gone at the end."""
    try:
        if name == "mixed":
            size = _fill(folder / "fifty", name, files, _suffixes())
            _fill(folder / "one", name, files, [".jpg"])
        else:
            size = _fill(folder, name, files, [".mp4" if name == "video" else ".jpg"])
        yield Corpus(name=name, folder=folder, files=files, bytes=size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _suffixes() -> list[str]:
    """Return suffixes of so many different content types."""
    found: dict[str, str] = {}
    for suffix, kind in sorted(mimetypes.MimeTypes(()).types_map[True].items()):
        found.setdefault(kind, suffix)
    return list(found.values())[:TYPES]


def _fill(folder: Path, name: str, files: int, suffixes: list[str]) -> int:
    dice = random.Random(name)
    pool = dice.randbytes(RANGES[name][1])
    total = 0
    for number in range(files):
        size = dice.randint(*RANGES[name])
        place = folder / f"album{number // FOLDER:04d}"
        place.mkdir(parents=True, exist_ok=True)
        head = f"{name} {number}\n".encode()  # no two files are equal
        path = place / f"IMG_{number:06d}{suffixes[number % len(suffixes)]}"
        path.write_bytes(head + pool[: size - len(head)])
        total += size
    return total
