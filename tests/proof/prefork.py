"""The program, called thousands of times: forked from a process that has imported it already.

Each call is `cli.main` in a process of its own, which notes what it starts and where it writes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.typed import ROOT

SECONDS = 60  # after which a call counts as hanging
MEMORY = 4 << 30
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn")
CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime"),
)
LOADED = """
    orchestrator.doctor orchestrator.fates orchestrator.pipeline rich.progress
    storages.backends.s3 django.core.files.storage django.core.exceptions importlib.resources
""".split()  # noqa: SIM905  # read in rows


@dataclass(frozen=True, kw_only=True)
class Call:
    """What one call of the program said and did; `code` is below 0 for a signal."""

    code: int
    out: bytes
    err: bytes
    started: tuple[str, ...]
    wrote: tuple[str, ...]

    @property
    def said(self) -> str:
        return (self.out + self.err).decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process that forks one child for each call."""

    process: subprocess.Popen[str]
    folder: Path

    def __call__(
        self,
        *args: str,
        cwd: Path,
        env: Mapping[str, str],
        path: Path | None = None,
        spoil: str = "",
    ) -> Call:
        """Call the program; `path` goes before Python's own, `spoil` is run before the program."""
        request = {"args": args, "cwd": str(cwd), "env": {**env}, "spoil": spoil}
        request |= {"path": str(path or ""), "folder": str(self.folder)}
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        notes = [json.loads(line) for line in self._read("notes").splitlines()]
        return Call(
            code=code,
            out=self._read("out"),
            err=self._read("err"),
            started=tuple(what for kind, what in notes if kind == "start"),
            wrote=tuple(what for kind, what in notes if kind == "write"),
        )

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


@contextmanager
def program() -> Iterator[Program]:
    """Start the process from which the calls are forked."""
    with TemporaryDirectory(prefix="proof-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.proof.prefork"],
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            yield Program(process=process, folder=Path(folder))
            assert process.stdin
            process.stdin.close()


@dataclass(kw_only=True)
class _Notes:
    """An audit hook that writes down what is started and what is changed."""

    file: int
    at_work: bool = field(default=False)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.at_work:
            return
        self.at_work = True
        try:
            for kind, what in _noted(event, args):
                os.write(self.file, (json.dumps([kind, what]) + "\n").encode())
        finally:
            self.at_work = False


def _noted(event: str, args: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    what = args[0] if args else None
    if not isinstance(what, str | bytes | Path):
        return
    if event in STARTS:
        yield "start", os.fsdecode(what)
    elif (
        (event == "open" and args[2] & WRITING)
        or (event in CHANGES and args[-1] in (-1, None))  # no descriptor of a folder
        or (event == "sqlite3.connect" and what != ":memory:")
    ):
        yield "write", _absolute(what)


def _absolute(path: str | bytes | Path) -> str:
    """Return where it really is: a long way is taken through an open folder's descriptor."""
    folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100  # surrogates
    real = os.path.realpath(folder) if folder.startswith("/proc/self/fd/") else folder
    return os.path.join(real, name)  # noqa: PTH118


def _child(request: dict[str, Any], main: Callable[[], None]) -> None:
    """Become the program: its folder, variables, streams and limits, then its main()."""
    os.setpgid(0, 0)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["media-orchestrator", *request["args"]]
    if request["path"]:
        sys.path.insert(0, request["path"])
        sys.modules.pop("rclone_templates", None)
        sys.modules["orchestrator.template"].load_all.cache_clear()
    streams = [os.open(os.devnull, os.O_RDONLY), *(_made(request, n) for n in ("out", "err"))]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    notes = _Notes(file=_made(request, "notes"))
    exec(request["spoil"], {})  # a defect that a test plants
    sys.addaudithook(notes)
    main()


def _made(request: dict[str, Any], name: str) -> int:
    return os.open(Path(request["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


def _serve() -> None:
    from orchestrator import cli, template

    for name in LOADED:
        __import__(name)
    template.load_all()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _run(request, cli.main)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _run(request: dict[str, Any], main: Callable[[], None]) -> None:
    """End this process as the interpreter would end the program's."""
    code = 1
    try:
        _child(request, main)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # whatever it is, the interpreter prints it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
