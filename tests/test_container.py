"""The one-off container, built and run for real; the compose file and the Kubernetes Job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import django_side
from tests.conformance import corpus
from tests.conformance.observe import stored
from tests.conformance.twin import Recorder, compare
from tests.engine import IMAGE, ROOT, Podman, image, run_flags
from tests.servers.base import Options, Server
from tests.site import Site

TYPES = (
    "jpg JPG png webp heic svg svgz mp4 webm mkv mp3 m4a pdf docx odt epub js xml md tar.gz gz x"
)
BIN = Path(sys.executable).parent


def linted(program: str, *args: str) -> None:
    done = subprocess.run(
        [BIN / program, *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    linted("hadolint", "Dockerfile")


def test_the_compose_file_follows_its_schema() -> None:
    linted("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_the_job_is_valid_for_kubernetes() -> None:
    linted("kubernetes-validate", "--strict", "docs/kubernetes-job.yaml")


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with image() as engine:
        yield engine


@pytest.fixture
def site(server: Server, bucket: Options, tmp_path: Path) -> Site:
    site = Site.on(server, bucket, tmp_path)
    for kind in TYPES.split():
        site.add(f"a.{kind}", kind.encode())
    return of_the_user(site)


def of_the_user(site: Site) -> Site:
    """Give the site's folder to the user that the container runs as."""
    site.write_env()
    site.runs.mkdir(exist_ok=True)
    for folder, _, files in os.walk(site.folder):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            os.chown(path, 1000, 1000)
    site.folder.chmod(0o755)
    return site


def volumes(site: Site) -> list[str]:
    return [
        f"{site.media}:/app/media:ro",
        f"{site.folder / '.env'}:/app/.env:ro",
        f"{site.runs}:/app/migration-runs",
    ]


def run(podman: Podman, site: Site, *args: str) -> subprocess.CompletedProcess[str]:
    return podman("run", "--rm", *run_flags(volumes(site)), IMAGE, *args, check=False)


@pytest.mark.on("rclone_s3")
class TestImage:
    @pytest.mark.usefixtures("server")
    def test_size_and_contents(self, podman: Podman) -> None:
        found = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
        size = found["Size"] / 1e6
        print(f"image: {size:.0f} MB")
        assert size < 450
        assert found["Config"]["User"] == "1000:1000"
        assert "org.opencontainers.image.licenses" in found["Config"]["Labels"]
        left = r"find /opt /app /root /tmp \( -name .cache -o -name '*.pyc' -o -name .env \)"
        command = ["--rm", "--user=0", "--entrypoint=sh", IMAGE, "-c", left]
        assert podman("run", *command).stdout == ""

    def test_it_migrates_from_read_only_mounts(self, podman: Podman, site: Site) -> None:
        for command in ("doctor", "plan", "migrate"):
            done = run(podman, site, command)
            assert done.returncode == 0, done.stdout + done.stderr
        assert "VERIFIED" in done.stdout
        assert list(site.runs.glob("*/report.html"))

    def test_content_types_are_those_of_the_image_s_own_python(
        self, podman: Podman, server: Server, site: Site
    ) -> None:
        assert run(podman, site, "migrate").returncode == 0
        script = (
            "import mimetypes, json, sys; mimetypes.knownfiles[:] = []; mimetypes.init();"
            "print(json.dumps({n: mimetypes.guess_type('a.' + n) for n in sys.argv[1:]}))"
        )
        python = ["run", "--rm", "--entrypoint=python3", IMAGE, "-c", script, *TYPES.split()]
        for kind, (type_, encoding) in json.loads(podman(*python).stdout).items():
            stored = server.peek(site.options, f"a.{kind}")
            assert stored.content_type == (type_ or "application/octet-stream"), kind
            assert stored.content_encoding == (encoding or ""), kind

    def test_stop_ends_it_within_ten_seconds_and_the_run_goes_on_later(
        self, podman: Podman, server: Server, site: Site
    ) -> None:
        for number in range(40):
            os.chown(site.add(f"{number}.bin", os.urandom(100_000)), 1000, 1000)
        slow = [*run_flags(volumes(site)), "--name=slow", "--detach"]
        podman("run", *slow, IMAGE, "migrate", "--bwlimit=400k", "--transfers=2")
        _wait_for(lambda: len(server.keys(site.options)) > 3)
        start = time.monotonic()
        podman("stop", "--time=10", "slow")
        took = time.monotonic() - start
        code = podman("inspect", "--format={{.State.ExitCode}}", "slow").stdout.strip()
        print(f"stopped in {took:.1f} s")
        assert (code, took < 10) == ("143", True)
        done = run(podman, site, "migrate")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.on("moto")
def test_what_the_container_stores_is_what_a_save_in_it_stores(
    podman: Podman, server: Server, bucket: Options, tmp_path: Path, record_property: Recorder
) -> None:
    site = Site.on(server, bucket, tmp_path)
    for name in corpus.TYPES:
        site.add(name, corpus.content(name))
    of_the_user(site)
    table = tmp_path / "mime.types"
    table.write_text("text/x-misleading jpg heic svg txt css js webm docx\n")
    misled = [*volumes(site), f"{table}:/etc/mime.types:ro"]
    done = podman("run", "--rm", *run_flags(misled), IMAGE, "migrate", check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    twin = replace(site, options={**site.options, **server.new_bucket()})
    python = ["--interactive", "--entrypoint=python3", "--env=PYTHONPATH=/repository"]
    mounts = [*volumes(site), f"{ROOT / 'tests'}:/repository/tests:ro"]
    asked = django_side.question(twin, "save", corpus.TYPES, media="/app/media")
    command = [*run_flags(mounts), *python, IMAGE, "-m", "tests.django_side"]
    saved = json.loads(podman("run", "--rm", *command, stdin=asked).stdout)
    assert saved == {"given": {name: name for name in corpus.TYPES}, "errors": {}}

    tally = compare(server, stored(server, site.options), stored(server, twin.options))
    tally.record(server, record_property)
    assert not tally.different
    assert tally.equal["key"] == tally.equal["content_type"] == len(corpus.TYPES)


@pytest.mark.on("rclone_s3")
def test_compose_runs_it_in_the_folder_of_cousins_matter(
    podman: Podman, server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    for name in ("public/pages/a.svg", "public/css/b.css", "galleries/c.jpg"):
        site.add(name, name.encode())
    shutil.copy(ROOT / "compose.yaml", tmp_path / "migrate.yaml")
    (tmp_path / "docker-compose.yml").write_text("services: {cousins-matter: {image: none}}")
    of_the_user(site)
    public = ("--source", "/app/media/public")
    said: dict[str, str] = {}
    for args in (("doctor",), (*public, "plan"), (*public, "migrate"), ("migrate",)):
        done = podman.compose(tmp_path, "run", "--rm", "migrate", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        said[" ".join(args)] = done.stdout
        if args[-1] == "plan":
            assert server.keys(bucket) == []
        elif args == (*public, "migrate"):
            assert server.keys(bucket) == ["css/b.css", "pages/a.svg"]
    assert "✓ a probe object" in said["doctor"]
    assert "VERIFIED: all 3 files" in said["migrate"]
    assert len(server.keys(bucket)) == 5
    assert len(list(site.runs.glob("2*/report.html"))) == 3
    site.add("not utf-8 \udcff.jpg")
    assert podman.compose(tmp_path, "run", "--rm", "migrate", "migrate").returncode == 7


def _wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.2)
