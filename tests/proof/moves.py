"""What others do to a source and to a store while a migration is at work on them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.proof.trial import Trial

FUTURE = 4_000_000_000  # s: in the year 2096

Version = tuple[int, int, int]  # size, mtime and ctime in ns, as the ledger has them


def digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A media folder that remembers which content each of its files had under which times."""

    folder: Path
    versions: dict[str, dict[Version, str]] = field(default_factory=dict)

    def note(self, name: str) -> None:
        """Remember the version that is there now: nobody else moves this file."""
        path = self.folder / name
        with suppress(OSError):
            if path.is_file():
                s = path.stat()
                data = path.read_bytes()
                version = (s.st_size, s.st_mtime_ns, s.st_ctime_ns)
                self.versions.setdefault(name, {})[version] = digest(data)

    def current(self) -> dict[str, str]:
        """Return the digest of each file that can be read, links followed, by name."""
        found = {}
        for top, _, names in os.walk(self.folder):
            for path in (Path(top, name) for name in names):
                if path.is_file() and path.stat().st_mode & 0o400:
                    found[str(path.relative_to(self.folder))] = digest(path.read_bytes())
        return found


def added(draw: Random, path: Path) -> None:
    path.with_name(f"added-{path.name}").write_bytes(draw.randbytes(500))


def changed(draw: Random, path: Path) -> None:
    """Same size, other bytes."""
    path.write_bytes(other(path.read_bytes()))


def changed_in_secret(draw: Random, path: Path) -> None:
    """Same size and same time, other bytes: only ctime, which nobody can set, tells it."""
    before = path.stat()
    path.write_bytes(other(path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def changed_in_future(draw: Random, path: Path) -> None:
    path.write_bytes(draw.randbytes(700))
    os.utime(path, (FUTURE, FUTURE))


def changed_and_older(draw: Random, path: Path) -> None:
    path.write_bytes(other(path.read_bytes()))
    os.utime(path, (1, 1))


def grown(draw: Random, path: Path) -> None:
    with path.open("ab") as file:
        file.write(draw.randbytes(300))


def truncated(draw: Random, path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def swapped(draw: Random, path: Path) -> None:
    """As editors save: another file takes the name."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(draw.randbytes(path.stat().st_size))
    fresh.replace(path)


def touched(draw: Random, path: Path) -> None:
    os.utime(path, (2_000, 2_000))


def linked(draw: Random, path: Path) -> None:
    path.unlink()
    path.symlink_to("../still/0.jpg")


def dangling(draw: Random, path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def foldered(draw: Random, path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inner.jpg").write_bytes(draw.randbytes(400))


def deleted(draw: Random, path: Path) -> None:
    path.unlink()


def closed(draw: Random, path: Path) -> None:
    path.chmod(0)


IN_SOURCE: tuple[Callable[[Random, Path], None], ...] = (
    *(added, changed, changed_in_secret, changed_in_future, changed_and_older, grown, truncated),
    *(swapped, touched, linked, dangling, foldered, deleted, closed),
)


def overwritten(draw: Random, trial: Trial, key: str) -> None:
    """Another writer stores something else under this key, whether it is there or not."""
    trial.put(key, draw.randbytes(350))


def flipped(draw: Random, trial: Trial, key: str) -> None:
    """Same size, other bytes."""
    data = (trial.store.folder / key).read_bytes()
    trial.put(key, other(data) if data else b"other")


def removed(draw: Random, trial: Trial, key: str) -> None:
    if (trial.store.folder / key).exists():
        trial.delete(key)


def joined(draw: Random, trial: Trial, key: str) -> None:
    """Another writer stores an object of its own."""
    folder, _, name = key.rpartition("/")
    trial.put(f"{folder}/foreign-{name}", b"foreign")


IN_STORE: tuple[Callable[[Random, Trial, str], None], ...] = (
    *(overwritten, flipped, removed, joined),
)


def other(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@dataclass(frozen=True, kw_only=True)
class Move:
    """Something done to one file or object, when a stage is this far, maybe while all stand."""

    in_source: Callable[[Random, Path], None] | None = None
    in_store: Callable[[Random, Trial, str], None] | None = None
    name: str
    stage: str
    share: float  # of the time that the stage takes
    standing: bool
    seed: int

    def told(self) -> str:
        done = self.in_store or self.in_source
        kind = done.__name__ if done else "left alone"
        where = "in the store" if self.in_store else "in the source"
        return f"{self.name} {kind} {where} {self.share:.0%} into {self.stage}"


def moves(draw: Random, names: list[str], stages: list[str], *, folders: bool) -> Iterator[Move]:
    """Draw for each name one move; `folders` says whether the store takes x/y beside x."""
    in_source = [kind for kind in IN_SOURCE if folders or kind is not foldered]
    kinds = [*((kind, None) for kind in in_source), *((None, kind) for kind in IN_STORE)]
    for number, name in enumerate(draw.sample(names, len(names))):
        source, store = kinds[number % len(kinds)]
        yield Move(
            in_source=source,
            in_store=store,
            name=name,
            stage=draw.choice(stages),
            share=draw.random(),
            standing=draw.random() < 0.5,
            seed=draw.randrange(1 << 32),
        )
