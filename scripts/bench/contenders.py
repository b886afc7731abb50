"""The ways of moving the media that are compared, each as the commands of one run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scripts.bench.corpus import Corpus
from scripts.bench.store import BUCKET, Store
from scripts.bench.tools import others, ours

FAITHFUL = ("--no-unicode-normalization", "--copy-links")
# What the product gives rclone for its own use, and what belongs to one batch.
NOT_TUNING = (
    *("--files-from", "--header-upload", "--combined", "--config", "--use-json-log"),
    *("--log-", "--stats", "--rc", "--download"),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that a contender needs to know; `folder` is a new one for this run."""

    corpus: Corpus
    store: Store
    folder: Path
    runs: Path
    flags: Mapping[str, Sequence[str]]  # of the product's own rclone commands, by subcommand
    source: Path

    def within(self, part: str) -> Run:
        return replace(self, source=self.corpus.folder / part)


@dataclass(frozen=True, kw_only=True)
class Contender:
    title: str
    commands: Callable[[Run], list[list[str]]]
    verifies: bool = False
    sends: bool = True


def environment(run: Run) -> dict[str, str]:
    """Return what all of them read; secrets are on no command line."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "MEDIA_STORAGE": "storages.backends.s3.S3Storage",
        "MEDIA_STORAGE_OPTIONS": json.dumps(run.store.options()),
        "AWS_ACCESS_KEY_ID": run.store.access_key,
        "AWS_SECRET_ACCESS_KEY": run.store.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def ours_command(run: Run, command: str, *flags: str) -> list[str]:
    words = ["--env-file", str(env_file(run)), "--source", str(run.source), "--quiet"]
    return [str(ours("media-orchestrator")), *words, "--run-dir", str(run.runs), command, *flags]


def env_file(run: Run) -> Path:
    """Write the site's two lines."""
    path = run.folder / ".env"
    path.write_text(
        "MEDIA_STORAGE=storages.backends.s3.S3Storage\n"
        f"MEDIA_STORAGE_OPTIONS='{json.dumps(run.store.options())}'\n"
    )
    return path


def report(runs: Path) -> dict[str, Any]:
    """Return the newest report of the product."""
    newest = max(runs.glob("*/report.json"))
    found: dict[str, Any] = json.loads(newest.read_text())
    return found


def tuning(runs: Path) -> dict[str, tuple[str, ...]]:
    """Return the flags of the product's rclone commands, as its report lists them."""
    found: dict[str, tuple[str, ...]] = {}
    for command in map(shlex.split, report(runs)["commands"]):
        flags = (word for word in command if word.startswith("--"))
        kept = tuple(flag for flag in flags if not flag.startswith(NOT_TUNING))
        found.setdefault(command[1], kept)
    return found


def _rclone(run: Run, command: str, *flags: str) -> list[str]:
    """Return a command on the very remote that the product makes of the two lines."""
    config = ["--config", str(run.folder / "rclone.conf")]
    return [str(ours("rclone")), *config, command, str(run.source), f"media:{BUCKET}", *flags]


def _bare(run: Run) -> list[list[str]]:
    return [_rclone(run, "copy", *run.flags["copy"])]


def _by_hand(run: Run) -> list[list[str]]:
    check = run.flags.get("check", ("--one-way", *FAITHFUL))
    return [*_bare(run), _rclone(run, "check", *check)]


def _listing(run: Run) -> list[list[str]]:
    words = ["lsjson", "-R", "--hash", "--files-only", f"media:{BUCKET}"]
    return [[str(ours("rclone")), "--config", str(run.folder / "rclone.conf"), *words]]


def _aws(run: Run) -> list[list[str]]:
    words = ["--endpoint-url", run.store.url, "s3", "sync", "--only-show-errors"]
    return [[str(others() / "aws"), *words, str(run.source), f"s3://{BUCKET}"]]


def _s5cmd(run: Run) -> list[list[str]]:
    words = ["--endpoint-url", run.store.url, "--log", "error", "cp"]
    return [[str(others() / "s5cmd"), *words, f"{run.source}/", f"s3://{BUCKET}/"]]


def _save(threads: int) -> Callable[[Run], list[list[str]]]:
    script = str(Path(__file__).with_name("save_loop.py"))
    return lambda run: [[sys.executable, script, str(run.source), str(threads)]]


def _migrate(run: Run) -> list[list[str]]:
    return [ours_command(run, "migrate")]


CONTENDERS: Mapping[str, Contender] = {
    "A": Contender(title="rclone copy, our flags", commands=_bare),
    "B": Contender(title="migrate: all verified, a sample read", commands=_migrate, verifies=True),
    "B5": Contender(
        title="migrate, a small sample read",
        commands=lambda run: [ours_command(run, "migrate", "--sample=5%")],
        verifies=True,
    ),
    "C": Contender(title="rclone copy, then check, by hand", commands=_by_hand, verifies=True),
    "D": Contender(title="rclone copy, its defaults", commands=lambda run: [_rclone(run, "copy")]),
    "E": Contender(title="aws s3 sync", commands=_aws),
    "F": Contender(title="s5cmd cp", commands=_s5cmd),
    "G1": Contender(title="storage.save(), a loop", commands=_save(1)),
    "G16": Contender(title="storage.save(), 16 threads", commands=_save(16)),
    "M1": Contender(
        title="migrate, one batch of headers",
        commands=lambda run: _migrate(run.within("one")),
        verifies=True,
    ),
    "M50": Contender(
        title="migrate, 50 batches of headers",
        commands=lambda run: _migrate(run.within("fifty")),
        verifies=True,
    ),
    "LS": Contender(title="rclone lsjson -R --hash", commands=_listing, sends=False),
    "N": Contender(
        title="migrate with nothing to do", commands=_migrate, verifies=True, sends=False
    ),
    "PASS": Contender(
        title="python -c pass",
        commands=lambda _: [[sys.executable, "-c", "pass"]],
        sends=False,
    ),
    "HELP": Contender(
        title="media-orchestrator --help",
        commands=lambda _: [[str(ours("media-orchestrator")), "--help"]],
        sends=False,
    ),
}
