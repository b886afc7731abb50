"""The recording at the top of the README is what the demo prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORDED = re.compile(r"<!-- recorded.*?-->\n```console\n(.*?)```\n<!-- end -->", re.DOTALL)


def demo(folder: Path) -> str:
    """Return what the demo shows for its first `migrate`, without what differs in each run."""
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=ROOT,
        env={**os.environ, "DEMO_DIR": str(folder), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    shown = done.stdout.split("── Do it\n")[1].split("(exit code")[0]
    shown = shown.replace(f"{folder}/", "").replace(" --run-dir migration-runs", "")
    return re.sub(r"\d{8}T[\d.]+Z-\w+", "<time>", shown)


def without_draw(text: str) -> str:
    """Each run draws another sample, and with it one more or less of the odd names."""
    return re.sub(r"\d+( of \d+ files were read back)", r"N\1", text)


def test_the_recording_is_what_the_demo_prints(tmp_path: Path) -> None:
    shown = demo(tmp_path.resolve())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    recorded = RECORDED.search(readme)
    assert recorded
    assert without_draw(recorded[1]) == without_draw(shown)
