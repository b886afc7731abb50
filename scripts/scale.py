"""What very many tiny files cost: plan, migrate, and migrate again with nothing to do.

The files are made, and the store is given them by hard links; so `adopt`, the first migrate,
hashes and compares them all but sends none, and `again` has nothing to do. With --migrate the
store is empty, and `adopt` sends them for real.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from scripts.bench.__main__ import workspace
from scripts.bench.contenders import Run, environment, report
from scripts.bench.corpus import Corpus
from scripts.bench.link import SCENARIOS, Link
from scripts.bench.measure import RunError, Usage, measured
from scripts.bench.store import BUCKET, Store, store
from scripts.bench.tools import ours
from scripts.bench.verdict import Table, as_markdown, as_text

FOLDERS, DEPTH = 2_000, 30
MILLION = 1_000_000
FOLDER_CLASS = "django.core.files.storage.FileSystemStorage"
HEAD = (
    "store",
    "files",
    "step",
    "s",
    "CPU s",
    "us a file",
    "Python MB",
    "rclone MB",
    "ledger B a file",
)
LIMITS = {"plan": 60.0, "again": 120.0}  # seconds for a million files
PYTHON_MB = 200


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command on so many files; sizes in bytes, times in seconds."""

    store: str
    files: int
    step: str
    wall: float
    cpu: float  # of the command and all that it starts, without the store
    python: int
    rclone: int
    ledger: int


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where one measurement is done: source, target, and the variables that name it."""

    kind: str
    files: int
    source: Path
    bucket: Path
    work: Path
    env: Mapping[str, str] = field(default_factory=dict)
    forget: Callable[[], None] = lambda: None  # has the server look at its folder again

    def step(self, name: str, *words: str) -> Step:
        used = self._command(*words)
        ledgers = sorted((self.work / "runs").glob("*/ledger.sqlite"))
        return Step(
            store=self.kind,
            files=self.files,
            step=name,
            wall=round(used.wall, 3),
            cpu=round(used.cpu, 3),
            python=max((v for k, v in used.programs.items() if k != "rclone"), default=0),
            rclone=used.programs.get("rclone", 0),
            ledger=ledgers[-1].stat().st_size,
        )

    def _command(self, *words: str) -> Usage:
        where = ["--source", str(self.source), "--run-dir", str(self.work / "runs"), "--quiet"]
        argv = [str(ours("media-orchestrator")), *where, *words]
        return measured(argv, env=self.env, log=self.work / "log")


def steps(site: Site, *, real: bool) -> Iterator[Step]:
    yield site.step("plan", "plan")
    if not real:
        _linked(site.source, site.bucket)
        site.forget()
    yield site.step("adopt", "migrate", "--no-thumbnails")
    _verified(site)
    yield site.step("again", "migrate", "--no-thumbnails")
    _verified(site)
    newest = max((site.work / "runs").glob("*/"))
    yield site.step("report", "report", str(newest))


def _verified(site: Site) -> None:
    found = report(site.work / "runs")
    if found["verdict"] != "verified":
        raise RunError(f"the run ended as {found['verdict']}: {found['states']}")


def make_tree(root: Path, files: int) -> None:
    """Write files of a few bytes: a tenth of them in one folder, the others in all folders."""
    chain = [
        root.joinpath(*(f"level{n:02d}" for n in range(1, d + 1))) for d in range(1, DEPTH + 1)
    ]
    wide = [root / f"year{n // 100:02d}" / f"day{n:04d}" for n in range(FOLDERS - DEPTH - 1)]
    places = [*chain, *wide]
    _write(root / "all", range(files // 10))
    left = files - files // 10
    for number, place in enumerate(places):
        first, last = (left * n // len(places) for n in (number, number + 1))
        _write(place, range(first, last))


def _write(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for number in numbers:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        file = os.open(f"IMG_{number:07d}.jpg", flags, 0o644, dir_fd=place)
        os.write(file, f"{folder.name} {number}\n".encode())
        os.close(file)
    os.close(place)


def _linked(source: Path, bucket: Path) -> None:
    shutil.copytree(source, bucket, copy_function=os.link, dirs_exist_ok=True)


@contextmanager
def site(kind: str, files: int, source: Path, work: Path) -> Iterator[Site]:
    """Yield an empty store for the files; what was in it is gone at the end."""
    bucket = work / "store" / BUCKET
    empty = Site(kind=kind, files=files, source=source, bucket=bucket, work=work)
    work.mkdir()
    try:
        if kind == "folder":
            bucket.mkdir(parents=True)
            yield replace(empty, env=_folder_variables(bucket))
            return
        with store("rclone", Link(scenario=SCENARIOS["L"]), work, ours("rclone")) as served:
            env = _s3_variables(served, work, source)
            yield replace(empty, env=env, forget=served.forget)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _folder_variables(bucket: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    options = json.dumps({"location": str(bucket)})
    return kept | {"MEDIA_STORAGE": FOLDER_CLASS, "MEDIA_STORAGE_OPTIONS": options}


def _s3_variables(served: Store, work: Path, source: Path) -> dict[str, str]:
    media = Corpus(name="tiny", folder=source, files=0, bytes=0)
    run = Run(corpus=media, store=served, folder=work, runs=work, flags={}, source=source)
    return environment(run)


def rows(found: Sequence[Step]) -> Table:
    return [HEAD, *(_row(step) for step in found)]


def _row(step: Step) -> tuple[str, ...]:
    return (
        step.store,
        f"{step.files:,}",
        step.step,
        f"{step.wall:.1f}",
        f"{step.cpu:.1f}",
        f"{1e6 * step.wall / step.files:.0f}",
        f"{step.python / 1e6:.0f}",
        f"{step.rclone / 1e6:.0f}",
        f"{step.ledger / step.files:.0f}",
    )


def fits(found: Sequence[Step]) -> Table:
    """Fit each step's seconds to files ** exponent, and to fixed + cost * files."""
    head = ("store", "step", "exponent", "fixed s", "us a file", "MB more a million files")
    places = dict.fromkeys((s.store, s.step) for s in found)
    groups = {p: [s for s in found if (s.store, s.step) == p] for p in places}
    return [head, *(_fit(p, group) for p, group in groups.items() if len(group) > 1)]


def _fit(place: tuple[str, str], group: Sequence[Step]) -> tuple[str, ...]:
    files = [float(s.files) for s in group]
    exponent, _ = _line([*map(math.log, files)], [math.log(s.wall) for s in group])
    slope, fixed = _line(files, [s.wall for s in group])
    growth, _ = _line(files, [float(s.python) for s in group])
    return (*place, f"{exponent:.2f}", f"{fixed:.1f}", f"{slope * 1e6:.1f}", f"{growth:.0f}")


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return slope and intercept of the least squares."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    slope /= sum((a - x) ** 2 for a in xs)
    return slope, y - slope * x


def targets(found: Sequence[Step]) -> Table:
    """Judge what was measured with a million files."""
    head = ("target", "limit", "measured", "met")
    return [head, *(row for s in found if s.files == MILLION for row in _judged(s))]


def _judged(step: Step) -> Iterator[tuple[str, ...]]:
    if limit := LIMITS.get(step.step):
        met = "yes" if step.wall <= limit else "NO"
        yield f"{step.store} {step.step}", f"≤ {limit:.0f} s", f"{step.wall:.0f} s", met
    met = "yes" if step.python <= PYTHON_MB * 1e6 else "NO"
    size = f"{step.python / 1e6:.0f} MB"
    yield f"{step.store} {step.step}, Python", f"≤ {PYTHON_MB} MB", size, met


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument(
        "--files",
        type=_numbers,
        default=(100_000, 300_000, MILLION),
        metavar="N,…",
        help="how many, once each (default: 100000,300000,1000000)",
    )
    parser.add_argument("--store", choices=("s3", "folder", "both"), default="both")
    parser.add_argument("--migrate", action="store_true", help="send the files for real")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--markdown", action="store_true", help="tables for docs/performance.md")
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number.replace("_", "")) for number in text.split(","))


def measure(arguments: argparse.Namespace, work: Path) -> Iterator[Step]:
    kinds = ("s3", "folder") if arguments.store == "both" else (arguments.store,)
    for files in arguments.files:
        source = work / "media"
        make_tree(source, files)
        for kind in kinds:
            with site(kind, files, source, work / kind) as place:
                for step in steps(place, real=arguments.migrate):
                    print(
                        f"{kind} {files} {step.step}: {step.wall:.1f} s, CPU {step.cpu:.1f} s",
                        file=sys.stderr,
                    )
                    yield step
        shutil.rmtree(source)


def main() -> int:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended
    found: list[Step] = []
    code = 0
    with workspace() as work:
        try:
            found.extend(measure(arguments, work))
        except (RunError, OSError) as error:
            print(f"It ended early: {error}", file=sys.stderr)
            code = 1
    shape = as_markdown if arguments.markdown else as_text
    for table in (rows(found), fits(found), targets(found)):
        if len(table) > 1:
            print("\n".join(shape(table)) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(step) for step in found], indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
