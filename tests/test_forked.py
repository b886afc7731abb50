"""A forked program is the program: same streams, folder, variables, umask and end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked

SAYS = """
import json, os, tempfile
print(json.dumps([__name__, sys.argv, os.getcwd(), sorted(os.environ.items()), sys.path]))
print(tempfile.gettempdir(), os.umask(0), repr(sys.stdin.read()), sys.stdout.isatty())
print(os.listdir("/proc/self/fd"))
print('wrong', file=sys.stderr)
"""
ENDS = {
    "sys.exit(7)": 7,
    "sys.exit('no')": 1,
    "pass": 0,
    "1 / 0": 1,
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": -9,
    "import threading; threading.Timer(0.1, print, ['late']).start()": 0,
    "import atexit; atexit.register(print, 'at the end')": 0,
}


def run(folder: Path, code: str, *args: str, timeout: float = 60) -> Iterator[tuple[object, ...]]:
    """Yield what a module in the folder does, called until it is forked, and once more."""
    (folder / "said.py").write_text(f"import sys\n{code}\n")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(forked.ROOT), "TMPDIR": str(folder)}
    for _ in range(forked.RARELY + 2):
        command = [sys.executable, "-m", "said", *args]
        done = forked.run(
            command, cwd=folder, env=env, module="json", timeout=timeout, stdin="line\n"
        )
        yield done.returncode, done.stdout, done.stderr.replace(str(folder), "")


def test_it_sees_and_says_what_a_started_one_does(tmp_path: Path) -> None:
    first, *others = run(tmp_path, SAYS, "-x", "\udcff", "a b")
    assert first[0] == 0
    assert "__main__" in str(first[1])
    assert others == [first] * len(others)


@pytest.mark.parametrize("code", ENDS)
def test_it_ends_as_a_started_one_does(tmp_path: Path, code: str) -> None:
    ends = [(code, out, str(err).splitlines()[-1:]) for code, out, err in run(tmp_path, code)]
    assert ends == [ends[0]] * len(ends)
    assert ends[0][0] == ENDS[code]


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    said = run(tmp_path, "import os\nprint(os.getpid(), file=open('pid', 'w'), flush=True)")
    assert [code for code, *_ in said] == [0] * (forked.RARELY + 2)
    code = "import os, time\nprint(os.getpid(), file=open('pid', 'w'), flush=True)\ntime.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        next(run(tmp_path, code, timeout=3))
    assert not Path("/proc", (tmp_path / "pid").read_text().strip(), "cwd").exists()
