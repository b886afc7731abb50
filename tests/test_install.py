"""The ways to install that the README names: into folders of their own, and then used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.site import Result, Site

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WAYS = re.findall(r"((?:pipx|uv tool) install) 'media-orchestrator\[s3\]'", README)
UNREACHABLE = re.compile(r"ConnectionError|NewConnectionError|dns error|tcp connect error")


@dataclass(frozen=True, kw_only=True)
class Installed(Site):
    """A site on which an installed program is used, and nothing of this repository."""

    program: Path

    def command(self, *args: str) -> list[str]:
        return [str(self.program), *args]

    def environ(self, **extra: str) -> dict[str, str]:
        return {**super().environ(**extra), "PYTHONPATH": ""}


def run(*command: str | Path, **environ: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode and UNREACHABLE.search(said) and not os.environ.get("REQUIRED_SERVERS"):
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, said[-3000:]
    return said


def wheel(folder: Path) -> Path:
    run(BIN / "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    return next(folder.glob("media_orchestrator-*.whl"))


def install(way: str, made: Path, folder: Path) -> Path:
    """Install the wheel as the README says, at home in `folder`; return the program."""
    program, *words = way.split()
    home = {
        "HOME": str(folder),
        "PIPX_HOME": str(folder / "pipx"),
        "PIPX_BIN_DIR": str(folder / "bin"),
        "PIPX_MAN_DIR": str(folder / "man"),
        "PIPX_DEFAULT_PYTHON": sys.executable,
        "UV_TOOL_DIR": str(folder / "tools"),
        "UV_TOOL_BIN_DIR": str(folder / "bin"),
        "UV_CACHE_DIR": str(folder / "cache"),
        "UV_PYTHON": sys.executable,
    }
    run(BIN / program, *words, f"media-orchestrator[s3] @ {made.as_uri()}", **home)
    return folder / "bin" / "media-orchestrator"


def migrate(program: Path, folder: Path) -> Result:
    store = folder / "store"
    store.mkdir()
    site = Installed(
        folder=folder,
        options={"location": str(store)},
        storage_class="django.core.files.storage.FileSystemStorage",
        program=program,
    )
    site.add("galleries/Été.jpg")
    done = site.migrate()
    assert (store / "galleries/Été.jpg").read_bytes() == b"hello"
    return done


def test_what_pipx_and_uv_install_migrates(tmp_path: Path) -> None:
    assert WAYS == ["pipx install", "uv tool install"]
    made = wheel(tmp_path)
    for way in WAYS:
        folder = tmp_path / way.split()[0]
        folder.mkdir()
        program = install(way, made, folder)
        assert re.search(r"version \d+\.\d+", run(program, "--version", PYTHONPATH=""))
        assert "storages.backends.s3.S3Storage" in run(program, "storages", PYTHONPATH="")
        done = migrate(program, folder)
        assert (done.code, done.states()) == (0, {"verified": 1}), done.err
