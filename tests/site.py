"""A Django site as its admin sees it: an `.env`, a media folder, and the program on it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forked
from tests.servers.base import Server

S3 = "storages.backends.s3.S3Storage"
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one call of the program left: exit code, output, and its JSON report if it made one."""

    code: int
    out: str
    err: str
    report: Mapping[str, Any]

    def states(self) -> dict[str, int]:
        return {state: count["files"] for state, count in self.report["states"].items()}

    def reasons(self) -> dict[str, str]:
        return {item["name"]: item["reason"] for item in self.report["trouble"]}


@dataclass(frozen=True, kw_only=True)
class Site:
    """Use `Site.on(server, options, folder)` for one whose store is a test server."""

    folder: Path
    options: Mapping[str, Any]
    storage_class: str = S3
    variables: Mapping[str, str] = field(default_factory=dict)
    patience: float = 300
    """Seconds after which a run that has not ended fails its test."""

    @classmethod
    def on(cls, server: Server, options: Mapping[str, Any], folder: Path) -> Site:
        return cls(
            folder=folder,
            options=options,
            storage_class=server.storage_class,
            variables=server.environ,
        )

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def runs(self) -> Path:
        return self.folder / "migration-runs"

    def write_env(self) -> None:
        lines = [f"MEDIA_STORAGE={self.storage_class}"]
        lines += [f"MEDIA_STORAGE_OPTIONS='{json.dumps(dict(self.options))}'"]
        (self.folder / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def add(self, name: str | bytes, data: bytes = b"hello") -> Path:
        path = self.media / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", *args]

    def environ(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name in KEPT if (value := os.environ.get(name))}
        root = str(Path(__file__).parent.parent)
        return {**kept, "PYTHONPATH": root, "NO_COLOR": "1", **self.variables, **extra}

    def run(self, *args: str, **environ: str) -> Result:
        """Run the program as a user would, in the site's folder, with JSON output."""
        self.write_env()
        self.media.mkdir(exist_ok=True)
        done = forked.run(
            self.command("--json", *args),
            cwd=self.folder,
            env=self.environ(**environ),
            module=self.storage_class.rpartition(".")[0],
            timeout=self.patience,
        )
        return Result(
            code=done.returncode, out=done.stdout, err=done.stderr, report=report_in(done.stdout)
        )

    def migrate(self, *args: str, **environ: str) -> Result:
        return self.run("migrate", *args, **environ)

    def plan(self, *args: str, **environ: str) -> Result:
        return self.run("plan", *args, **environ)


def report_in(out: str) -> Mapping[str, Any]:
    """Return the report among the events that a run has printed; empty if there is none."""
    events = (json.loads(line) for line in out.splitlines() if line.startswith("{"))
    return next((event for event in events if event.get("event") == "report"), {})
