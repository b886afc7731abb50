"""Very many files cost no more each than a few do: in memory, in SQL, and on the page."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.scale import make_tree
from tests.servers.base import Options, Server
from tests.site import Result, Site
from tests.traced import Notes, read

FEW, MANY = 10_000, 100_000
ONCE = 4  # a statement that runs more often runs for each page, or for each file
MB = 1_000_000
WHOLE = ("USE TEMP B-TREE", "AUTOMATIC", "SCAN")  # each goes through the rows of a table


@dataclass(frozen=True, kw_only=True)
class Traced(Site):
    """A site whose program notes its SQL and its memory."""

    @property
    def notes(self) -> Path:
        return self.folder / "notes.json"

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "tests.traced", str(self.notes), *args]

    def traced(self, *args: str) -> tuple[Result, Notes]:
        return self.run("--quiet", *args), read(self.notes)


def site(server: Server, bucket: Options, folder: Path, files: int) -> Traced:
    folder.mkdir()
    made = Traced.on(server, bucket, folder)
    assert isinstance(made, Traced)
    make_tree(made.media, files)
    return made


def hot(notes: Notes) -> dict[str, tuple[str, ...]]:
    return {kind.sql: kind.plan for kind in notes.kinds if kind.count > ONCE and kind.plan}


@pytest.mark.on("rclone_s3")
def test_ten_times_the_files_take_ten_times_the_sql_and_no_more_memory(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    few, many = (site(server, bucket, tmp_path / str(n), n) for n in (FEW, MANY))
    (planned, little), (all_planned, much) = few.traced("plan"), many.traced("plan")
    assert (planned.states(), all_planned.states()) == ({"planned": FEW}, {"planned": MANY})
    assert much.statements <= 10 * little.statements
    assert much.rss < 200 * MB
    assert much.rss - little.rss < 60 * MB  # SQLite's cache is half of that, a row a file more
    assert hot(much)
    assert not {sql: plan for sql, plan in hot(much).items() if scans(plan)}
    assert (newest(many) / "report.html").stat().st_size < 3 * MB
    for made in (few, many):
        shutil.rmtree(made.folder)


@pytest.mark.on("rclone_s3")
def test_large_files_are_not_all_in_memory_while_they_are_read_back(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    """The class has the whole of an object in memory, and up to 16 are read at once."""
    made = Traced.on(server, bucket, tmp_path)
    assert isinstance(made, Traced)
    for number in range(6):
        made.add(f"{number}.bin", os.urandom(40 * MB))
    assert made.migrate().states() == {"verified": 6}
    done, notes = made.traced("verify", "--memory", "50")
    assert done.code == 0, done.out
    assert "6 of 6 files were read back" in done.out
    assert notes.rss < 220 * MB  # 150 without them
    shutil.rmtree(made.folder)


def scans(plan: tuple[str, ...]) -> bool:
    return any(step.startswith(WHOLE) and "USING INDEX" not in step for step in plan)


def newest(made: Site) -> Path:
    return max(path for path in made.runs.iterdir() if path.is_dir())


@pytest.mark.on("folder")
def test_a_run_with_nothing_to_do_takes_few_statements_a_file(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    made = site(server, bucket, tmp_path / "site", 3 * FEW)
    shutil.copytree(made.media, bucket["location"], copy_function=os.link, dirs_exist_ok=True)
    assert made.migrate("--no-thumbnails").states() == {"verified": 3 * FEW}
    result, notes = made.traced("migrate", "--no-thumbnails")
    assert result.states() == {"verified": 3 * FEW}
    assert not {sql: plan for sql, plan in hot(notes).items() if scans(plan)}
    # One inventory and one listing; seven where a touched link has each object compared again.
    assert notes.statements < 8 * 3 * FEW
