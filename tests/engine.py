"""podman with settings and storage of its own: nothing of the machine's is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HINT = "podman, runc or mmdebstrap is missing (Debian: apt-get install podman runc mmdebstrap)"
OFFICIAL = "python:3.13-slim"
STAND_IN = "localhost/python-standin:3.13"
IMAGE = "localhost/media-orchestrator:test"
# Low fixed limits and runc: what an engine needs where it may not raise limits.
SETTINGS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
HOST_NETWORK = "services: {migrate: {network_mode: host}}"  # the test servers are on its loopback
CLOSED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")


@dataclass(frozen=True, kw_only=True)
class Podman:
    folder: Path
    env: dict[str, str] = field(repr=False)

    @property
    def own(self) -> list[str]:
        return [f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}"]

    def compose(self, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
        """Run podman-compose on the migrate.yaml in `folder`, in the host's network."""
        (folder / "network.yaml").write_text(HOST_NETWORK)
        files = ["--file=migrate.yaml", "--file=network.yaml"]
        # docker compose activates the profile of a service that it is told to run by itself.
        command = [f"--podman-args={' '.join(self.own)}", "--profile=migrate", *files, *args]
        return subprocess.run(
            [Path(sys.executable).parent / "podman-compose", *command],
            cwd=folder,
            env={**self.env, "MEDIA_ORCHESTRATOR_IMAGE": IMAGE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def __call__(
        self, *args: str | Path, check: bool = True, timeout: float = 600, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["podman", *self.own, *args],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done


def run_flags(volumes: Sequence[str]) -> list[str]:
    """Return the flags of compose.yaml, with the host's network to reach a test server."""
    return ["--network=host", "--user=1000:1000", *CLOSED, *(f"--volume={v}" for v in volumes)]


@contextmanager
def image(context: Path = ROOT) -> Iterator[Podman]:
    """Build the image; where no engine is, skip, or fail if REQUIRE_CONTAINER says so."""
    if not all(shutil.which(program) for program in ("podman", "runc", "mmdebstrap")):
        if os.environ.get("REQUIRE_CONTAINER") == "1":
            pytest.fail(HINT, pytrace=False)
        pytest.skip(HINT)
    folder = Path(tempfile.mkdtemp(prefix="mo-"))  # podman takes only short paths for its run root
    settings = folder / "containers.conf"
    settings.write_text(SETTINGS)
    podman = Podman(folder=folder, env={**os.environ, "CONTAINERS_CONF": str(settings)})
    try:
        base = _base(podman)
        podman(
            "build", "--network=host", f"--build-arg=BASE_IMAGE={base}", f"--tag={IMAGE}", context
        )
        yield podman
    finally:
        podman("rm", "--force", "--all", check=False)
        podman("rmi", "--force", "--all", check=False)
        subprocess.run(
            ["umount", "-l", folder / "storage" / "overlay"], check=False, capture_output=True
        )
        shutil.rmtree(folder, ignore_errors=True)


def _base(podman: Podman) -> str:
    """Return the official image where a registry answers, else Debian's Python of that version."""
    try:
        if podman("pull", "--quiet", OFFICIAL, check=False, timeout=60).returncode == 0:
            return OFFICIAL
    except subprocess.TimeoutExpired:
        pass
    tar = Path.home() / ".cache" / "media-orchestrator" / "base-trixie.tar"
    subprocess.run([ROOT / "scripts" / "standin-base", tar], check=True, stdin=subprocess.DEVNULL)
    podman("import", "--change=ENV LANG=C.UTF-8", tar, STAND_IN)
    return STAND_IN
