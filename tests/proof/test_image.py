"""The container's image and what a run leaves of its container hold no secret of the site."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conformance.test_no_secret_leaves import secrets_in
from tests.engine import IMAGE, ROOT, Podman, image
from tests.proof.figures import Proof, Tally
from tests.proof.planted import OTHERS, forms, new
from tests.servers.base import Options, Server
from tests.site import Site
from tests.test_container import of_the_user, volumes

LEFT_OUT = (".venv", ".git", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build")
CHANGED = {"", "C /tmp", "C /app", "A /app/.env", "C /etc", "C /etc/group", "C /etc/passwd"}
"""What the engine adds for mounts and for the user."""
PLACES = (".env", "orchestrator/.env", "media/.env", "migration-runs/1/report.json", "rclone.conf")


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    """Return variables that hold secrets where the image is built, and where it runs."""
    return {name: new() for name in OTHERS[:3]}


@pytest.fixture(scope="module")
def podman(secrets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Build the image in the folder of a site that is at work, with secrets in the environment."""
    context = tmp_path_factory.mktemp("image") / "context"
    shutil.copytree(ROOT, context, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for place in PLACES:
        (context / place).parent.mkdir(parents=True, exist_ok=True)
        (context / place).write_text("".join(f"{k}={v}\n" for k, v in secrets.items()))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        with image(context) as engine:
            yield engine


def inside(podman: Podman, folder: Path, tag: str, secrets: Iterable[str]) -> set[str]:
    """Return where in an image a secret stands: in which layer, or in its history."""
    saved = folder / "saved"
    podman("save", "--format=docker-dir", "--output", saved, tag)
    found = {path.name for path in saved.iterdir() if holds(path, secrets)}
    history = podman("history", "--no-trunc", "--format=json", tag).stdout.encode()
    shutil.rmtree(saved)
    return found | {"history" for secret in secrets if any(f in history for f in forms(secret))}


def holds(path: Path, secrets: Iterable[str]) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(form) >= 0 for secret in secrets for form in {*forms(secret)})


@pytest.mark.on("rclone_s3")
def test_no_layer_no_history_and_no_container_holds_a_secret(  # noqa: PLR0917  # fixtures
    podman: Podman,
    secrets: dict[str, str],
    server: Server,
    bucket: Options,
    tmp_path: Path,
    proof: Proof,
) -> None:
    tally = Tally(cases=1)
    tally.missed += inside(podman, tmp_path, IMAGE, secrets.values())
    site = Site.on(server, bucket, tmp_path / "site")
    site.add("photo.jpg", os.urandom(100_000))
    of_the_user(site)
    known = {*secrets.values(), *secrets_in(site.options)}
    mounts = [f"--volume={volume}" for volume in volumes(site)]
    variables = [f"--env={name}={value}" for name, value in secrets.items()]
    for number, command in enumerate(("doctor", "migrate", "check", "config")):
        name = f"--name=run{number}"
        done = podman("run", "--network=host", name, *mounts, *variables, IMAGE, command)
        exported = tmp_path / "exported"
        podman("export", "--output", exported, f"run{number}")
        tally.cases += 1
        changed = {*podman("diff", f"run{number}").stdout.split("\n")} - CHANGED
        tally.missed += (f"{command} changed {path}" for path in changed)
        if holds(exported, known):
            tally.missed.append(f"{command} left a secret in its container")
        if any(secret in done.stdout + done.stderr for secret in known):
            tally.missed.append(f"{command} told a secret")
    proof.holds("secrets in images", tally)


def test_a_secret_in_an_image_would_be_seen(
    podman: Podman, secrets: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("".join(secrets.values()))
    one = next(iter(secrets.values()))
    for line, where in (("COPY .env /app/x", "layer"), (f"LABEL x={one}", "history")):
        (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\n{line}\n")
        podman("build", "--tag=localhost/spoilt", tmp_path)
        found = inside(podman, tmp_path, "localhost/spoilt", secrets.values())
        assert found, line
        assert ("history" in found) == (where == "history")
