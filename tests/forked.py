"""Programs that are forked from a process which has imported most of what they import.

Importing is more than half of what a short run costs. What is asked for the third time in the same
environment is no longer started anew, but still runs as `python -m` would run it: as `__main__`, in
a process of its own, which ends as the interpreter does.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
RARELY = 2  # starts that are not worth a process to fork from
LONGEST = 1 << 17  # bytes of a request
OF_A_RUN = ("TMPDIR", "MEDIA_ORCHESTRATOR_SOURCE")
"""Variables that no module reads when it is imported."""
LOADED = """
    orchestrator.doctor orchestrator.fates orchestrator.pipeline rich.progress
    django.core.files.storage django.core.exceptions importlib.resources.readers _strptime
""".split()  # noqa: SIM905  # read in rows


class Kind(NamedTuple):
    """What a process must have been started with to be the one to fork from."""

    module: str
    environ: tuple[tuple[str, str], ...]


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    module: str,
    timeout: float,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a `python -m` and keep what it says; `module` is one that it needs besides."""
    parent = _parent(command, env, module)
    with _file(stdin) as given, _file() as out, _file() as err:
        if parent:
            code = parent.call(
                command, cwd=cwd, env=env, streams=(given, out, err), seconds=timeout
            )
        else:
            code = subprocess.run(
                command,
                cwd=cwd,
                env=env,
                stdin=given,
                stdout=out,
                stderr=err,
                timeout=timeout,
                check=False,
            ).returncode
        return subprocess.CompletedProcess(command, code, _text(out), _text(err))


@contextmanager
def _file(text: str = "") -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class Parent:
    """A process that forks one child for each call."""

    def __init__(self, kind: Kind) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno()), kind.module],
                cwd=ROOT,
                env=dict(kind.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def call(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        streams: tuple[IO[bytes], ...],
        seconds: float,
    ) -> int:
        """Return the exit code, below 0 for a signal."""
        os.umask(mask := os.umask(0o077))
        task = {"module": command[2], "args": command[3:], "cwd": str(cwd), "env": {**env}}
        request = json.dumps({**task, "mask": mask}).encode()
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as answers:
            try:
                files = [writing, *(stream.fileno() for stream in streams)]
                socket.send_fds(self._requests, [request], files)
            finally:
                os.close(writing)
            child = int(answers.readline())
            if not select.select([answers], [], [], seconds)[0]:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                answers.readline()
                raise subprocess.TimeoutExpired(command, seconds)
            return int(answers.readline())

    def end(self) -> None:
        self._requests.close()
        self._process.wait()


_asked: Counter[Kind] = Counter()
_parents: dict[Kind, Parent] = {}


def end_all() -> None:
    while _parents:
        _parents.popitem()[1].end()


def _parent(command: Sequence[str], env: Mapping[str, str], module: str) -> Parent | None:
    """Return the process to fork from, if this is such a command and has come often enough."""
    if [*command[:2]] != [sys.executable, "-m"] or env.get("PYTHONPATH") != str(ROOT):
        return None
    kind = Kind(module, tuple(sorted((k, v) for k, v in env.items() if k not in OF_A_RUN)))
    _asked[kind] += 1
    if _asked[kind] > RARELY and kind not in _parents:
        _parents[kind] = Parent(kind)
    return _parents.get(kind)


def _serve(requests: socket.socket) -> str:
    """Fork for each request; return in the child, with the module that it shall run."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
        if not data:
            os._exit(0)
        if not os.fork():
            requests.close()
            return _accompany(json.loads(data), *files)
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _accompany(task: dict[str, object], answers: int, *streams: int) -> str:
    """Fork once more: one process tells how the other ends."""
    child = os.fork()
    if not child:
        os.close(answers)
        return _become(task, streams)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(answers, b"%d\n" % child)
    _, status = os.waitpid(child, 0)
    with suppress(BrokenPipeError):  # nobody waits any longer
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(task: dict[str, object], streams: Sequence[int]) -> str:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(str(task["cwd"]))
    os.umask(int(str(task["mask"])))
    assert isinstance(task["env"], dict)
    assert isinstance(task["args"], list)
    coerced = {k: v for k, v in os.environ.items() if k == "LC_CTYPE"}  # by Python as it started
    os.environ.clear()
    os.environ.update(coerced | task["env"])
    tempfile.tempdir = None
    sys.path[0] = str(task["cwd"])
    sys.argv[1:] = task["args"]
    return str(task["module"])


def _load(module: str) -> None:
    for name in (*LOADED, module):
        with suppress(ImportError):  # the run will say so
            import_module(name)
    with suppress(Exception):
        import_module("orchestrator.template").load_all()
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _load(sys.argv[2])
    runpy.run_module(
        _serve(socket.socket(fileno=int(sys.argv[1]))), run_name="__main__", alter_sys=True
    )
