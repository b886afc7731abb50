"""Hold what a migration left in a store against what Django's own save() left in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from orchestrator.template import load_all
from tests.servers.base import Server, Stored

NAMES = tuple(entry.name for entry in fields(Stored))
Recorder = Callable[[str, object], None]


@dataclass(kw_only=True)
class Tally:
    """How often each field was there to be compared, how often it was equal, and what was not."""

    compared: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)

    def count(self, name: str, ours: object, theirs: object, key: str) -> None:
        if not ours and not theirs:  # the server keeps none, or the object has none
            return
        self.compared[name] += 1
        if ours == theirs:
            self.equal[name] += 1
        else:
            self.different.append(f"{key!a}: {name} is {ours!r:.200} instead of {theirs!r:.200}")

    def record(self, server: Server, recorder: Recorder) -> None:
        """Leave the figures for the table at the end of the session."""
        for name, number in self.compared.items():
            recorder("twin", (server.name, name, self.equal[name], number))


def compare(server: Server, ours: Mapping[str, Stored], theirs: Mapping[str, Stored]) -> Tally:
    """Compare two sets of objects, by key, in every field that the server keeps."""
    declared = _declared(server)
    tally = Tally()
    for key in sorted({*ours, *theirs}):
        tally.count("key", key in ours, key in theirs, key)
    for key in ours.keys() & theirs.keys():
        for name in NAMES:
            one, other = getattr(ours[key], name), getattr(theirs[key], name)
            if name == "metadata":
                one = {k: v for k, v in one.items() if k not in declared}
            tally.count("bytes" if name == "data" else name, one, other, key)
    return tally


def _declared(server: Server) -> set[str]:
    """Return the metadata that the template declares to be rclone's alone."""
    prefix = "metadata "
    template = next(t for t in load_all() if t.family == server.family)
    return {name.removeprefix(prefix) for name in template.differs if name.startswith(prefix)}


def table(rows: Iterable[tuple[str, str, int, int]]) -> list[str]:
    """Render what was recorded: a line a field, a column a server, equal of compared."""
    equal, compared = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for server, name, same, number in rows:
        equal[name, server] += same
        compared[name, server] += number
    servers = sorted({server for _, server in compared})
    lines = [f"{'field':<20}" + "".join(f"{server:>16}" for server in servers)]
    for name in ("key", "bytes", *NAMES[1:]):
        cells = [_cell(equal[name, s], compared[name, s]) for s in servers]
        lines.append(f"{name:<20}" + "".join(f"{cell:>16}" for cell in cells))
    return lines


def _cell(equal: int, compared: int) -> str:
    return f"{equal}/{compared}" if compared else "not kept"
