"""Compare `migrate` with bare rclone and with other tools, behind a link with delay and limit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from scripts.bench import verdict
from scripts.bench.cells import CELLS, QUICK, Cell, chosen
from scripts.bench.contenders import CONTENDERS
from scripts.bench.measure import RunError
from scripts.bench.race import Race
from scripts.bench.store import minio
from scripts.bench.tools import others

SHM = Path("/dev/shm")
SCHEMA = 1
EPILOG = "contenders:\n" + "".join(f"  {k:<5} {c.title}\n" for k, c in CONTENDERS.items())
EPILOG += "\nexample: make bench ARGS='--scenario W --corpus small --only A,B,C --repeat 5'"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="only see that the bench works")
    parser.add_argument("--scenario", type=_words, default=(), metavar="W,H,L", help="links")
    parser.add_argument("--corpus", type=_words, default=(), metavar="NAME,…", help="kinds")
    parser.add_argument("--only", type=_words, default=(), metavar="A,B,…", help="contenders")
    parser.add_argument("--files", type=int, help="so many, instead of those of each cell")
    parser.add_argument("--repeat", type=int, help="repetitions (3; with --quick 1)")
    parser.add_argument("--server", choices=("rclone", "minio"), default="rclone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--markdown", action="store_true", help="tables for docs/performance.md")
    return parser.parse_args()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main() -> int:
    arguments = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and links are ended
    cells = chosen(
        QUICK if arguments.quick else CELLS, arguments.scenario, arguments.corpus, arguments.only
    )
    cells = [replace(cell, files=arguments.files or cell.files) for cell in cells]
    if wrong := _wrong(arguments, cells):
        print(wrong, file=sys.stderr)
        return 2
    start = time.monotonic()
    with workspace() as work:
        repeat = arguments.repeat or (1 if arguments.quick else 3)
        race = Race(server=arguments.server, repeat=repeat, work=work)
        try:
            race.run(cells)
        except (RunError, OSError) as error:
            print(f"The bench ended early: {error}", file=sys.stderr)
            return 1
    _show(race, arguments, time.monotonic() - start)
    return 0


def _wrong(arguments: argparse.Namespace, cells: list[Cell]) -> str:
    """Say what cannot be run, before anything is; install what is missing."""
    if not cells:
        return "Nothing is left to run.\n  TIP: --help lists the contenders; see CELLS in cells.py."
    if arguments.server == "minio" and not minio():
        return "There is no MinIO server.\n  TIP: scripts/install-minio, then MINIO_SERVER=…"
    if any({"E", "F"} & {*cell.contenders} for cell in cells):
        others()
    return ""


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a folder in memory where there is one: a disk would be measured too."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=SHM if SHM.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _show(race: Race, arguments: argparse.Namespace, seconds: float) -> None:
    found = verdict.judged(race.results)
    shape = verdict.as_markdown if arguments.markdown else verdict.as_text
    links = "; ".join(f"{name}: {kind}" for name, kind in race.links.items())
    command = shlex.join(["make", "bench", f"ARGS={shlex.join(sys.argv[1:])}"])
    date = datetime.now(UTC).isoformat(timespec="minutes")
    print(f"{date}, {command}, server {race.server}, {os.cpu_count()} cores, {seconds:.0f} s")
    print(f"Links: {links}.\n")
    print("\n".join(shape(verdict.runs_table(race.results))))
    if found:
        print("\n" + "\n".join(shape(verdict.targets_table(found))))
    if arguments.json:
        facts = {
            "schema": SCHEMA,
            "date": date,
            "command": command,
            "server": race.server,
            "links": race.links,
            "machine": {"cores": os.cpu_count(), "system": platform.platform()},
            "seconds": round(seconds, 1),
            "runs": [asdict(result) for result in race.results],
            "targets": [asdict(item) for item in found],
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
