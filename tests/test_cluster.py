"""Several machines do one run: each proves itself first, and what it leaves, others do."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.errors import AccessRefusedError, OrchestratorError, Problem
from tests.conformance.observe import Held, rclones, running, wait_for
from tests.conformance.test_no_secret_leaves import forms, secrets_in
from tests.dask_cluster import Cluster, cluster
from tests.servers import process
from tests.servers.base import Options, Server
from tests.site import Site

pytest.importorskip("distributed", reason="Dask is missing: pip install distributed")
pytestmark = pytest.mark.on("rclone_s3")
MANY = 600
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "dask") as made:
        yield made


def site_of(server: Server, options: Options, folder: Path, dask: Cluster | None = None) -> Site:
    folder.mkdir(exist_ok=True)
    environ = {**server.environ, **(dask.environ if dask else {})}
    site = Site(
        folder=folder, options=options, storage_class=server.storage_class, variables=environ
    )
    for number in range(MANY):
        site.add(f"{number % 7}/{number}.jpg", b"%d " % number * 500)
    return site


def notes(report: object) -> str:
    assert isinstance(report, dict)
    return "\n".join(report["notes"])


def test_workers_of_this_machine_do_the_work_and_are_gone_at_the_end(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = site_of(server, bucket, tmp_path / "site")
    done = site.migrate("--cluster", "local:2")
    assert (done.code, done.states(), done.err) == (0, {"verified": MANY}, "")
    assert "worker 0 did " in notes(done.report)
    assert "worker 1 did " in notes(done.report)
    assert any("rclone copy" in line for line in done.report["commands"])
    assert len(server.keys(bucket)) == MANY
    assert not rclones(site)
    assert b"--cluster" not in b"".join(p.read_bytes() for p in _cmdlines(site.folder))


def _cmdlines(folder: Path) -> Iterator[Path]:
    """Yield the command lines of the processes at work in a folder."""
    for found in Path("/proc").glob("[0-9]*"):
        try:
            if (found / "cwd").readlink() == folder.resolve():
                yield found / "cmdline"
        except OSError:
            continue


def test_only_machines_that_see_the_same_source_by_the_same_versions_work(
    server: Server, bucket: Options, tmp_path: Path, dask: Cluster
) -> None:
    site = site_of(server, bucket, tmp_path / "site", dask)
    edited = tmp_path / "edited"
    subprocess.run(["cp", "-a", site.media, edited], check=True)
    for path in edited.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[::-1])
    other = tmp_path / "other" / "media_orchestrator-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: media-orchestrator\nVersion: 9.9")
    newer = os.pathsep.join((str(other.parent), str(Path(__file__).parent.parent)))

    dask.start("empty", MEDIA_ORCHESTRATOR_SOURCE=str(tmp_path / "nowhere"))
    dask.start("edited", MEDIA_ORCHESTRATOR_SOURCE=str(edited))
    dask.start("newer", PYTHONPATH=newer)
    refused = site.migrate("--cluster", dask.address)
    assert (refused.code, refused.report["verdict"]) == (2, "failed")
    problems = refused.report["problems"]
    assert len(problems) == 3
    assert all(problem["tip"] for problem in problems)
    assert not server.keys(bucket)

    dask.start("good")
    done = site.migrate("--cluster", dask.address)
    assert (done.code, done.states()) == (0, {"verified": MANY})
    said = notes(done.report)
    assert f"worker good did {MANY} files" in said
    assert "worker empty is left out: " in said
    assert "nowhere is not there" in said
    assert "worker edited is left out: " in said
    assert "is not the same folder" in said
    assert "worker newer is left out: it has media-orchestrator 9.9, not " in said
    assert wait_for(lambda: not rclones(dask.site))


def test_a_machine_that_has_not_the_storage_class_is_left_out(
    server: Server, bucket: Options, tmp_path: Path, dask: Cluster
) -> None:
    site = site_of(server, bucket, tmp_path / "site", dask)
    own = tmp_path / "own"
    own.mkdir()
    (own / "photos.py").write_text("from storages.backends.s3 import S3Storage as Photos\n")
    both = os.pathsep.join((str(own), str(Path(__file__).parent.parent)))
    environ = {"PYTHONPATH": both, "MEDIA_STORAGE": "photos.Photos"}

    dask.start("bare")
    refused = site.migrate("--cluster", dask.address, **environ)
    assert refused.code == 2
    assert "worker bare cannot take part: " in refused.out
    dask.start("whole", PYTHONPATH=both)
    done = site.migrate("--cluster", dask.address, **environ)
    assert (done.code, done.states()) == (0, {"verified": MANY})
    assert "worker bare is left out" in notes(done.report)
    assert f"worker whole did {MANY} files" in notes(done.report)


def test_what_a_worker_had_is_done_by_others_when_it_dies(
    server: Server,
    bucket: Options,
    tmp_path: Path,
    dask: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask.start("one")
    dask.start("two")
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, tmp_path / "site", dask)
        held = Held(proxy, monkeypatch, "PUT /")
        with running(site, "migrate", "--cluster", dask.address) as run:
            assert wait_for(lambda: held.waiting and len(rclones(dask.site)) == 2)
            dask.kill("one")
            held.release()
            code, said = run.end()
    assert code == 0, said
    assert "worker one is gone" in said
    assert len(server.keys(bucket)) == MANY
    assert server.peek(bucket, next(k for k in server.keys(bucket) if k.endswith("/8.jpg"))).data


def test_without_any_worker_left_the_run_ends_and_goes_on_later(
    server: Server,
    bucket: Options,
    tmp_path: Path,
    dask: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask.start("one")
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, tmp_path / "site", dask)
        held = Held(proxy, monkeypatch, "PUT /")
        with running(site, "migrate", "--cluster", dask.address) as run:
            assert wait_for(lambda: held.waiting)
            dask.kill("one")
            held.release()
            code, said = run.end()
        assert code == 6, said
        assert "all workers of the cluster are gone" in said
        assert "goes on where it was" in said
        assert wait_for(lambda: not rclones(dask.site))
        dask.start("later")
        done = site.migrate("--cluster", dask.address)
    assert (done.code, done.states()) == (0, {"verified": MANY})


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("local", [True, False])
def test_an_interrupted_run_ends_what_the_workers_do(  # noqa: PLR0917  # fixtures
    server: Server,
    bucket: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: int,
    code: int,
    *,
    local: bool,
) -> None:
    with server.proxied(bucket) as (options, proxy), ExitStack() as stack:
        if local:
            where = site = site_of(server, options, tmp_path / "site")
            address = "local:2"
        else:
            dask = stack.enter_context(cluster(tmp_path / "dask"))
            dask.start("one")
            site = site_of(server, options, tmp_path / "site", dask)
            where, address = dask.site, dask.address
        held = Held(proxy, monkeypatch, "PUT /")
        with running(site, "migrate", "--cluster", address) as run:
            assert wait_for(lambda: held.waiting)
            assert rclones(where)
            run.signal(sent)
            ended, said = run.end()
            left = rclones(where)
            held.release()
    assert (ended, left) == (code, {}), said
    assert "Traceback" not in said


def test_a_refusal_at_one_worker_ends_the_run_with_its_exit_code(
    server: Server, bucket: Options, tmp_path: Path, dask: Cluster
) -> None:
    dask.start("one")
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, tmp_path / "site", dask)
        proxy.answer(403, DENIED, times=1_000_000, matching="PUT /")
        done = site.migrate("--cluster", dask.address)
    assert (done.code, done.report["verdict"]) == (5, "failed")
    assert "Traceback" not in done.out + done.err
    assert done.report["problems"][0]["tip"]
    assert b"Compute Failed" not in dask.log("one")


def test_no_secret_is_left_with_the_scheduler_or_a_worker(
    server: Server,
    bucket: Options,
    tmp_path: Path,
    dask: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dask.start("one")
    with server.proxied(bucket) as (options, proxy):
        site = site_of(server, options, tmp_path / "site", dask)
        held = Held(proxy, monkeypatch, "PUT /")
        with running(site, "migrate", "--cluster", dask.address) as run:
            assert wait_for(lambda: held.waiting)
            # The logs have messages word by word: a heartbeat tells what is done.
            assert wait_for(lambda: any(b"-shard-" in data for data in _kept(dask).values()))
            amid = _kept(dask)
            held.release()
            code, said = run.end()
    assert code == 0, said
    planted = [form for secret in secrets_in(dict(options)) for form in forms(secret)]
    assert planted
    for where, data in [*amid.items(), *_kept(dask).items(), ("said", said.encode())]:
        assert not [form for form in planted if form in data], where


def _kept(dask: Cluster) -> dict[str, bytes]:
    """Return all files of the cluster and all command lines of this machine."""
    files = (path for folder in (dask.folder, dask.temporary) for path in folder.rglob("*"))
    found = {str(path): path.read_bytes() for path in files if path.is_file()}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[str(path)] = path.read_bytes()
        except OSError:
            continue
    return found


def test_secrets_travel_only_encrypted_or_on_this_machine(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = site_of(server, bucket, tmp_path / "site")
    refused = site.migrate("--cluster", "tcp://192.0.2.1:8786")
    assert refused.code == 2
    assert "--cluster-insecure" in refused.out
    bare = site.migrate("--cluster", f"tls://{process.free_address()}")
    assert bare.code == 2
    assert "tls.yaml" in bare.out
    assert site.migrate("--cluster", "four").code == 2
    assert site.migrate("--cluster", "local:2", "--bwlimit", "1M").code == 2


def test_a_scheduler_that_cannot_be_reached_is_told(
    server: Server, bucket: Options, tmp_path: Path, dask: Cluster
) -> None:
    site = site_of(server, bucket, tmp_path / "site", dask)
    empty = site.migrate("--cluster", dask.address)
    assert empty.code == 2
    assert "has no workers" in empty.out
    plain = site.migrate("--cluster", dask.address.replace("tls://127", "tcp://127"))
    assert plain.code == 2
    assert "cannot be reached" in plain.out


def test_a_cluster_of_this_machine_needs_no_encryption(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    with cluster(tmp_path / "dask", scheme="tcp") as dask:
        dask.start("one")
        done = site_of(server, bucket, tmp_path / "site").migrate("--cluster", dask.address)
    assert (done.code, done.states()) == (0, {"verified": MANY})


def test_without_dask_the_run_tells_what_to_install(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = site_of(server, bucket, tmp_path / "site")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "distributed.py").write_text("raise ImportError('no Dask here')")
    root = str(Path(__file__).parent.parent)
    done = site.migrate("--cluster=local:2", PYTHONPATH=os.pathsep.join((str(hidden), root)))
    assert done.code == 2
    assert "pip install 'media-orchestrator[cluster]'" in done.out
    assert site.migrate(PYTHONPATH=os.pathsep.join((str(hidden), root))).code == 0


def test_the_program_starts_without_dask() -> None:
    code = "import sys, orchestrator.pipeline; sys.exit('distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_travel_whole() -> None:
    problems = (Problem(what="a", tip="b"), Problem(what="c"))
    found = pickle.loads(pickle.dumps(AccessRefusedError(*problems)))
    assert isinstance(found, OrchestratorError)
    assert (found.problems, found.exit_code, str(found)) == (problems, 5, "a\n  TIP: b\nc")
