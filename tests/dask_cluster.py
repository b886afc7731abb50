"""A Dask scheduler and its workers as an admin starts them: processes, TLS, their logs kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.conformance.observe import wait_for
from tests.servers import launch, process
from tests.servers.certificates import make
from tests.site import Site

DASK = Path(sys.executable).with_name("dask")
SECONDS_TO_END = 10


@dataclass(kw_only=True)
class Cluster:
    """`address` is the scheduler's; give `config` to whom shall be able to reach it."""

    folder: Path
    address: str
    config: Path
    temporary: Path
    stack: ExitStack
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return {"DASK_CONFIG": str(self.config)}

    def start(self, name: str, *args: str, **environ: str) -> None:
        """Start a worker and wait until the scheduler knows it."""
        scheme = self.address.partition(":")[0]
        command = ["worker", self.address, "--name", name, "--host", "127.0.0.1", "--no-dashboard"]
        command += ["--protocol", scheme, "--nthreads", "2", "--no-nanny"]
        command += ["--local-directory", str(self.folder / "scratch"), *args]
        self.workers[name] = self.stack.enter_context(self.running(name, command, **environ))
        assert wait_for(lambda: b"Registered to" in self.log(name)), self.log(name).decode()

    def kill(self, name: str) -> None:
        os.kill(self.workers[name].pid, signal.SIGKILL)
        self.workers[name].wait(SECONDS_TO_END)

    def log(self, name: str) -> bytes:
        return (self.folder / f"{name}.log").read_bytes()

    @property
    def site(self) -> Site:
        """Stand for the folder in which the workers' rclones are at work."""
        return Site(folder=self.folder, options={})

    @contextmanager
    def running(
        self, name: str, command: list[str], **environ: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        env = {**self.site.environ(), "DASK_LOGGING__DISTRIBUTED": "debug", **self.environ}
        env |= {"TMPDIR": str(self.temporary), **environ}
        launcher = [sys.executable, launch.__file__, str(os.getpid()), str(DASK)]
        with (self.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                [*launcher, *command],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield child
        finally:
            process._end(child)


@contextmanager
def cluster(folder: Path, *, scheme: str = "tls") -> Iterator[Cluster]:
    """Start a scheduler that takes only who has a certificate of its authority."""
    folder.mkdir()
    address = process.free_address()
    host, port = address.split(":")
    config = _config(folder)
    with ExitStack() as stack:
        made = Cluster(
            folder=folder,
            address=f"{scheme}://{address}",
            config=config,
            # Short, for a socket is in it.
            temporary=Path(stack.enter_context(TemporaryDirectory(prefix="mo-"))),
            stack=stack,
        )
        command = ["scheduler", "--host", host, "--port", port, "--protocol", scheme]
        stack.enter_context(made.running("scheduler", [*command, "--no-dashboard"]))
        assert wait_for(lambda: b"Scheduler at" in made.log("scheduler")), made.log("scheduler")
        yield made


def _config(folder: Path) -> Path:
    signed = make(folder)
    role = {"cert": str(signed.chain)}
    tls = {"ca-file": str(signed.authority), "scheduler": role, "worker": role, "client": role}
    path = folder / "tls.yaml"
    path.write_text(yaml.safe_dump({"distributed": {"comm": {"tls": tls}}}))
    return path
